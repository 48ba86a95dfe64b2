"""Around every request: an id in the answer and in the log, one log line, and no fault that leaves as a trace.

And the headers by which a browser does nothing with an answer that was not meant: it does not guess types, puts no page of ours
into a frame, runs no script but those that the page of calls is made of, keeps nothing that took a key.
"""

from __future__ import annotations

import re
import secrets
import time

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.metrics import RequestMetrics
from service.problems import BadRange, problem, unexpected

_GIVEN_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")  # a caller's own id, if it is one: UUIDs, trace ids

_NOTHING = "default-src 'none'; frame-ancestors 'none'"
# FastAPI's page is a line of script and Swagger's files from one host; what that script calls is this server.
_DOCS = (
    "default-src 'none'; frame-ancestors 'none'; script-src 'unsafe-inline' https://cdn.jsdelivr.net; "
    "style-src 'unsafe-inline' https://cdn.jsdelivr.net; img-src data: https://fastapi.tiangolo.com; connect-src 'self'"
)
_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}

log = structlog.get_logger()


class RequestLog:
    """ASGI middleware, to be the outermost.

    Args:
        app: what answers.
        requests: counts and times them.
    """

    def __init__(self, app: ASGIApp, requests: RequestMetrics) -> None:
        self._app = app
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _GIVEN_ID.fullmatch(given) else secrets.token_hex(8)
        scope["request_id"] = request_id
        status: int | None = None
        plain: Message | None = None
        began = time.perf_counter()

        async def numbered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(raw=[*message["headers"]])
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("content-security-policy", _DOCS if scope["path"].startswith("/docs") else _NOTHING)
                headers["x-request-id"] = request_id
                message["headers"] = headers.raw
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
            seconds = time.perf_counter() - began
            self._requests.observe(scope, status, seconds)
            log.info("request", method=scope["method"], path=scope["path"], status=status, seconds=round(seconds, 4))


def _is_plain(message: Message) -> bool:
    return Headers(raw=message["headers"]).get("content-type", "").startswith("text/plain")


def _as_problem(request: Request, start: Message) -> Response:
    range_ = Headers(raw=start["headers"]).get("content-range")
    detail = f"Range {request.headers.get('range', '')[:80]!r} does not fit this file; leave it out for the whole file."
    return problem(request, int(BadRange.status), BadRange.title, detail, {"Content-Range": range_} if range_ else None)
