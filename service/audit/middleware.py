"""Writes the audit entries: before a caller hears that something was done, it is on record that they asked for it."""

from __future__ import annotations

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.auth import Caller
from service.database import Database
from service.database.tables import AuditEntry
from service.problems import ServiceError

_READING = {"GET", "HEAD", "OPTIONS"}

log = structlog.get_logger()


class Audit:
    """ASGI middleware between ``service.requests.RequestLog``, which gives requests their id, and the app.

    Calls that changed nothing since they were not answered at all have no entry. Where the database is away, the log has it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def recorded(message: Message) -> None:
            if message["type"] == "http.response.start" and scope["method"] not in _READING and "caller" in scope:
                entry = _entry(scope, message)
                try:
                    await run_in_threadpool(_write, scope["app"].state.context.database, entry)
                except ServiceError as error:
                    log.warning("audit_entry_not_written", reason=str(error), status=entry.status, made=entry.made)
            await send(message)

        await self._app(scope, receive, recorded if scope["type"] == "http" else send)


def _entry(scope: Scope, start: Message) -> AuditEntry:
    caller: Caller = scope["caller"]
    client = scope.get("client")
    return AuditEntry(
        user=caller.user,
        key_id=caller.key_id,
        address=client and client[0],
        method=scope["method"],
        path=scope["path"].replace("\0", "\\0")[:1000],
        status=start["status"],
        made=Headers(raw=start["headers"]).get("location"),
        request_id=scope["request_id"],
    )


def _write(database: Database, entry: AuditEntry) -> None:
    with database.write() as session:
        session.add(entry)
