"""The two clients: one that waits for each answer, and one for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

from service.client.calls import Calls, Json
from service.client.connection import Connection
from service.client.job import AsyncJob, Job
from service.client.line import AsyncLine, BlockingLine, run


class Client(Calls[Json, Iterator[Json], list[Json], Path, None, Job]):
    """A Secateur server.

    Every method raises ``RequestRefused`` with the server's sentence where it says no, and ``ServerUnreachable`` where it
    says nothing. Lost connections and "try later" are retried first.

    Args:
        url: unset: ``SECATEUR_URL``, else ``http://127.0.0.1:8000``.
        token: unset: ``SECATEUR_TOKEN``, else the one that a server on this machine saved in ``SECATEUR_DATA_DIR/token``
            (``secateur-data/token`` below the current folder).
        transport: replaces the network in tests.
    """

    def __init__(self, url: str | None = None, token: str | None = None, transport: httpx2.BaseTransport | None = None) -> None:
        self._connection = Connection(partial(BlockingLine, transport), url, token)

    def close(self) -> None:
        """Ends the open connections; leaving a ``with`` block does it too."""
        run(self._connection.line.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _one(self, work: Coroutine[Any, Any, Json]) -> Json:
        return run(work)

    def _many(self, path: str, **params: str) -> Iterator[Json]:
        following: dict[str, str] | None = params
        while following is not None:
            items, following = run(self._page(path, following))
            yield from items

    def _listed(self, path: str) -> list[Json]:
        return list(self._many(path))

    def _file(self, work: Coroutine[Any, Any, Path]) -> Path:
        return run(work)

    def _done(self, work: Coroutine[Any, Any, None]) -> None:
        run(work)

    def _made(self, work: Coroutine[Any, Any, str]) -> Job:
        return Job(self, run(work))


class AsyncClient(
    Calls[Awaitable[Json], AsyncIterator[Json], Awaitable[list[Json]], Awaitable[Path], Awaitable[None], Awaitable[AsyncJob]]
):
    """``Client`` for asyncio: the same methods, whose answers are awaited, and whose lists are read with ``async for``.

    It belongs to the event loop in which it is used first. Its arguments are those of ``Client``.
    """

    def __init__(
        self, url: str | None = None, token: str | None = None, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self._connection = Connection(partial(AsyncLine, transport), url, token)

    async def close(self) -> None:
        """Ends the open connections; leaving an ``async with`` block does it too."""
        await self._connection.line.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _one(self, work: Coroutine[Any, Any, Json]) -> Awaitable[Json]:
        return work

    async def _many(self, path: str, **params: str) -> AsyncIterator[Json]:
        following: dict[str, str] | None = params
        while following is not None:
            items, following = await self._page(path, following)
            for item in items:
                yield item

    async def _listed(self, path: str) -> list[Json]:
        return [item async for item in self._many(path)]

    def _file(self, work: Coroutine[Any, Any, Path]) -> Awaitable[Path]:
        return work

    def _done(self, work: Coroutine[Any, Any, None]) -> Awaitable[None]:
        return work

    async def _made(self, work: Coroutine[Any, Any, str]) -> AsyncJob:
        return AsyncJob(self, await work)
