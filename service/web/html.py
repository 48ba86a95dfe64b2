"""How a page is made: its template, its security policy, and errors as pages."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime
from functools import cache
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined

from pruners.errors import InvalidInput
from service.jobs.figures import figure
from service.problems import ServiceError, Unauthorized
from service.report.charts import short
from service.scopes import Scope
from service.sessions import csrf_token, session_of
from service.texts import budget_text

HOME = "/ui/jobs"

# Nothing but this server's own files: no script or style in a page, so that what a user sent can be neither.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class HtmlRoute(APIRoute):
    """A route whose errors are pages, and which leads whoever is not signed in to where they can."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def shown(request: Request) -> Response:
            try:
                response = await handler(request)
            except Unauthorized:
                back = f"?next={quote(request.url.path)}" if request.method == "GET" else ""
                response = RedirectResponse(f"/ui/login{back}", status_code=303)
            except ServiceError as error:
                response = error_page(request, int(error.status), error.title, str(error))
            except InvalidInput as error:
                response = error_page(request, 422, "Invalid input", str(error))
            except RequestValidationError:
                response = error_page(request, 422, "Invalid input", "The address has a part that cannot be read.")
            response.headers["content-security-policy"] = POLICY
            return response

        return shown


def render(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page, with what every page shows: who is signed in, and the proof that its forms send back."""
    secret = request.app.state.token
    session = session_of(request, secret)
    caller = request.scope.get("caller")
    text = (
        _environment()
        .get_template(template)
        .render(
            caller=caller,
            may_submit=caller is not None and caller.scope.includes(Scope.SUBMIT),
            csrf="" if session is None else csrf_token(secret, session.text),
            path=request.url.path,
            **values,
        )
    )
    return HTMLResponse(text, status_code=status)


def error_page(request: Request, status: int, title: str, detail: str) -> HTMLResponse:
    """An error of the API's as a page."""
    return render(request, "error.html", status, title=title, detail=detail, request_id=request.scope.get("request_id"))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("service.web", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(short=short, figure=figure, moment=_moment, share=_share, seconds=_seconds)
    environment.globals.update(budget_text=budget_text)
    return environment


def _moment(moment: datetime | None) -> str:
    return "–" if moment is None else moment.strftime("%Y-%m-%d %H:%M:%S")


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{value:.1f} s"
