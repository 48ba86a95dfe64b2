"""``/ui/login`` and ``/ui/logout``: an API key for a session, and its end."""

from __future__ import annotations

import re
import secrets

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from service.auth import identified, require_access
from service.problems import Forbidden, Unauthorized
from service.sessions import COOKIE, SESSION_SECONDS, csrf_sent, csrf_token, new_session, same
from service.web.html import HOME, HtmlRoute, render

router = APIRouter(prefix="/ui", route_class=HtmlRoute, include_in_schema=False)

_BEFORE = "secateur_login"  # a random cookie that the form of nobody yet is bound to
_OURS = re.compile(r"/ui/[A-Za-z0-9/_-]*")  # no other host, and nothing that browsers make one of


@router.get("/login")
async def get_login(request: Request, next: str = HOME) -> Response:
    """The form that asks for a key."""
    return _form(request, next)


@router.post("/login")
async def post_login(request: Request) -> Response:
    """Signs in; a key that is none of ours shows the form again."""
    bound = request.cookies.get(_BEFORE, "")
    if not bound or not same(await csrf_sent(request), csrf_token(request.app.state.token, bound)):
        raise Forbidden("This form was not opened in this browser, or long ago; open the page again.")
    sent = await request.form()
    key, following = str(sent.get("key", "")).strip(), str(sent.get("next", HOME))
    try:
        caller = await identified(request, key)
    except Unauthorized:
        return _form(
            request, following, "This key is none of this server's. The administrator makes keys: secateur keys create."
        )
    request.scope["caller"] = caller  # for the audit
    response = RedirectResponse(_own(following), status_code=303)
    _set(request, response, COOKIE, new_session(request.app.state.token, caller.key_id), SESSION_SECONDS)
    response.delete_cookie(_BEFORE, path="/ui")
    return response


@router.post("/logout")
async def post_logout(request: Request) -> Response:
    """Signs out."""
    await require_access(request, None)
    response = RedirectResponse("/ui/login", status_code=303)
    response.delete_cookie(COOKIE, path="/")
    return response


def _form(request: Request, following: str, wrong: str | None = None) -> Response:
    bound = request.cookies.get(_BEFORE) or secrets.token_urlsafe(16)
    token = csrf_token(request.app.state.token, bound)
    response = render(request, "login.html", 401 if wrong else 200, login_csrf=token, next=_own(following), wrong=wrong)
    _set(request, response, _BEFORE, bound, 3600, path="/ui")
    return response


def _own(path: str) -> str:
    return path if _OURS.fullmatch(path) else HOME


def _set(request: Request, response: Response, name: str, value: str, seconds: int, path: str = "/") -> None:
    secure = request.url.scheme == "https"  # of a proxy's clients, what it says in X-Forwarded-Proto
    response.set_cookie(name, value, max_age=seconds, path=path, secure=secure, httponly=True, samesite="strict")
