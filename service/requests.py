"""Around every request: an id in the answer and in the log, one log line, and no fault that leaves as a trace."""

from __future__ import annotations

import secrets
import time
from http import HTTPStatus

import structlog
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import problem, unexpected

log = structlog.get_logger()


class RequestLog:
    """ASGI middleware, to be the outermost."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(8)
        scope["request_id"] = request_id
        status: int | None = None
        plain: Message | None = None
        began = time.perf_counter()

        async def numbered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        async def no_plain_errors(message: Message) -> None:
            """Starlette's file responses answer a bad Range in plain text."""
            nonlocal plain
            if message["type"] == "http.response.start" and message["status"] >= 400 and _is_plain(message):
                plain = message
            if plain is None:
                await numbered(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, no_plain_errors)
                if plain is not None:
                    await _as_problem(Request(scope), plain)(scope, receive, numbered)
            except Exception:
                log.exception("request_failed")
                if status is not None:
                    raise  # the answer is half sent: only breaking the connection tells the caller
                await unexpected(Request(scope))(scope, receive, numbered)
            seconds = round(time.perf_counter() - began, 4)
            log.info("request", method=scope["method"], path=scope["path"], status=status, seconds=seconds)


def _is_plain(message: Message) -> bool:
    return Headers(raw=message["headers"]).get("content-type", "").startswith("text/plain")


def _as_problem(request: Request, start: Message) -> Response:
    range_ = Headers(raw=start["headers"]).get("content-range")
    title = HTTPStatus(start["status"]).phrase
    detail = f"Range {request.headers.get('range', '')[:80]!r} does not fit this file; leave it out for the whole file."
    return problem(request, start["status"], title, detail, {"Content-Range": range_} if range_ else None)
