"""What the routes work with, made once per app, and how they get at it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import Depends, Request

from pruners.errors import InvalidInput
from service.auth import Caller, require_access
from service.database import Database
from service.dispatcher import Dispatcher
from service.inspection import Inspect
from service.jobs.watch import Watch
from service.metrics import RequestMetrics
from service.problems import Unavailable
from service.scopes import Scope
from service.settings import Settings
from service.store import Store


class Catalogue:
    """The pruners there are. Asking takes a process that imports torch, so it is done once, in the background."""

    def __init__(self, inspect: Inspect) -> None:
        self._inspect = inspect
        self._asking: asyncio.Task[dict[str, Any]] | None = None

    def prepare(self) -> asyncio.Task[dict[str, Any]]:
        """Starts asking, unless that is under way or done; a failed attempt is repeated."""
        if self._asking is None or (self._asking.done() and self._failed(self._asking)):
            self._asking = asyncio.create_task(self._inspect("catalogue"))
        return self._asking

    async def pruners(self) -> list[dict[str, Any]]:
        """``[{"name", "description", "reference", "params"}]``, ``params`` a JSON Schema; raises ``Unavailable``."""
        try:
            found: list[dict[str, Any]] = (await asyncio.shield(self.prepare()))["pruners"]
        except InvalidInput as error:
            raise Unavailable(f"The pruners cannot be listed at the moment: {error}") from error
        return found

    async def close(self) -> None:
        """Ends an attempt that is under way."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    @staticmethod
    def _failed(task: asyncio.Task[dict[str, Any]]) -> bool:
        return task.cancelled() or task.exception() is not None


@dataclass(frozen=True)
class Context:
    """The app's parts."""

    settings: Settings
    database: Database
    store: Store
    inspect: Inspect
    catalogue: Catalogue
    dispatcher: Dispatcher
    requests: RequestMetrics
    watch: Watch


async def _whole(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


async def _callers(request: Request, caller: Annotated[Caller, Depends(require_access)]) -> Context:
    context = await _whole(request)
    return replace(context, database=context.database.of(caller.user, sees_all=caller.scope is Scope.ADMIN))


InContext = Annotated[Context, Depends(_callers)]
"""Type of a route's parameter that receives the app's context, its database as the caller sees it. It takes a key."""

InService = Annotated[Context, Depends(_whole)]
"""Type of a parameter that receives the whole context, for routes that show nothing of any user."""
