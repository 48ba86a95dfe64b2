"""Puts the pages into the app."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, RedirectResponse
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from service import report
from service.web import routes, signing_in
from service.web.html import HOME

PALETTE = Path(report.__file__).parent / "templates" / "palette.css"
"""Page and report have the same colours."""


class _Revalidated(StaticFiles):
    """Files that a browser keeps, and asks about: an answer of no body where they are the same."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "no-cache"
        return response


def install(app: FastAPI) -> None:
    """The pages under ``/ui``, their files, and the way there from ``/``."""
    app.mount("/ui/static", GZipMiddleware(_Revalidated(directory=Path(__file__).parent / "static")), name="static")
    app.add_api_route("/ui/palette.css", lambda: FileResponse(PALETTE), include_in_schema=False, name="get_palette")
    app.add_api_route("/", lambda: RedirectResponse(HOME), include_in_schema=False, name="get_home")
    app.include_router(signing_in.router)
    app.include_router(routes.router)
