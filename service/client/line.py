"""How a client waits: two lines to a server, one for code that blocks and one for asyncio.

All else of the client is written once, as coroutines that wait through a ``Line``. On a ``BlockingLine`` none of them is ever
suspended, since whatever they await blocks until it is there; so ``run`` carries them out like plain functions, without any
event loop, and in a notebook that runs one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol, TypeVar

import httpx2

_CHUNK = 2**18  # bytes of a file that is read while another is sent

Result = TypeVar("Result")


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """The result of a coroutine that waits on a ``BlockingLine`` alone."""
    try:
        work.send(None)
    except StopIteration as done:
        result: Result = done.value
        return result
    finally:
        work.close()
    raise RuntimeError("a coroutine on a blocking line was suspended")


class Line(Protocol):
    """To one server; ``options`` are httpx2's."""

    async def send(self, method: str, path: str, upload: Path | bytes | None, stream: bool, **request: Any) -> httpx2.Response:
        """One request, a file streamed from its beginning; the whole answer, unless ``stream``."""

    def pieces(self, response: httpx2.Response) -> AsyncIterator[bytes]:
        """The body of a streamed answer, as it comes: pieces of a set size would lose the last one of a broken line."""

    async def read(self, response: httpx2.Response) -> None:
        """Reads the rest of a streamed answer."""

    async def end(self, response: httpx2.Response) -> None:
        """Lets go of an answer."""

    async def pause(self, seconds: float) -> None:
        """Waits."""

    async def work(self, function: Callable[[], Result]) -> Result:
        """Does something that takes its time: reading a file, exporting a network."""

    async def close(self) -> None:
        """Ends the open connections."""


class BlockingLine:
    """For code that waits for each answer."""

    def __init__(self, transport: httpx2.BaseTransport | None, options: Mapping[str, Any]) -> None:
        self._http = httpx2.Client(transport=transport, **options)

    async def send(self, method: str, path: str, upload: Path | bytes | None, stream: bool, **request: Any) -> httpx2.Response:
        with open(upload, "rb") if isinstance(upload, Path) else nullcontext(upload) as content:  # noqa: ASYNC230 - as meant
            return self._http.send(self._http.build_request(method, path, content=content, **request), stream=stream)

    async def pieces(self, response: httpx2.Response) -> AsyncIterator[bytes]:
        for piece in response.iter_raw():
            yield piece

    async def read(self, response: httpx2.Response) -> None:
        response.read()

    async def end(self, response: httpx2.Response) -> None:
        response.close()

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - as meant

    async def work(self, function: Callable[[], Result]) -> Result:
        return function()

    async def close(self) -> None:
        self._http.close()


class AsyncLine:
    """For coroutines on asyncio."""

    def __init__(self, transport: httpx2.AsyncBaseTransport | None, options: Mapping[str, Any]) -> None:
        self._http = httpx2.AsyncClient(transport=transport, **options)

    async def send(self, method: str, path: str, upload: Path | bytes | None, stream: bool, **request: Any) -> httpx2.Response:
        if isinstance(upload, Path):
            size = await asyncio.to_thread(lambda: upload.stat().st_size)
            headers = {**(request.pop("headers", None) or {}), "Content-Length": str(size)}
            built = self._http.build_request(method, path, content=_read(upload), headers=headers, **request)
        else:
            built = self._http.build_request(method, path, content=upload, **request)
        return await self._http.send(built, stream=stream)

    def pieces(self, response: httpx2.Response) -> AsyncIterator[bytes]:
        return response.aiter_raw()

    async def read(self, response: httpx2.Response) -> None:
        await response.aread()

    async def end(self, response: httpx2.Response) -> None:
        await response.aclose()

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def work(self, function: Callable[[], Result]) -> Result:
        return await asyncio.to_thread(function)

    async def close(self) -> None:
        await self._http.aclose()


async def _read(path: Path) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(open, path, "rb") as file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK):
            yield chunk
