"""One server: requests that are repeated where that helps, and errors that are the server's own sentence.

Every call of this client may be sent twice: reads and cancellations anyway, uploads because equal bytes give an equal id,
and a new job because it carries an ``Idempotency-Key``. So a lost answer is always asked for again.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx2

from pruners.errors import InvalidInput, SecateurError
from service.client.line import Line

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_DATA_DIR = "secateur-data"  # where `secateur serve` keeps its token unless told otherwise

_TRY_LATER = {429, 502, 503, 504}
_TRIES_UNREACHABLE = 4  # 3.5 s in all: enough for a dropped connection; a server that is not there is soon said to be
_TRIES_LATER = 6  # 15 s, or what the server asks for
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 60.0  # seconds; each wait is twice the one before
_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 300.0  # an uploaded model is inspected before it is answered for; servers stop that after 120 s
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class RequestRefused(SecateurError):
    """The server said no; the text is its reason.

    Attributes:
        status: the HTTP status.
        problem: the whole problem document (RFC 9457), empty if the answer was none.
    """

    def __init__(self, sentence: str, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(sentence)
        self.status = status
        self.problem = problem


class ServerUnreachable(SecateurError):
    """No answer, though asked several times."""


class Connection:
    """A server and the right to use it.

    Args:
        make_line: from httpx2's options to the line to it.
        url: the server's; unset: ``SECATEUR_URL``, else this machine's port 8000.
        token: unset: ``SECATEUR_TOKEN``, else what a server on this machine saved in ``SECATEUR_DATA_DIR/token``.

    Attributes:
        line: to the server.

    Raises:
        InvalidInput: the address is none.
    """

    def __init__(self, make_line: Callable[[Mapping[str, Any]], Line], url: str | None, token: str | None) -> None:
        self.url = (url or os.environ.get("SECATEUR_URL") or DEFAULT_URL).rstrip("/")
        local = _host(self.url) in _LOOPBACK
        # A saved token belongs to this machine's server; it is not sent to others.
        token = token or os.environ.get("SECATEUR_TOKEN") or (_saved_token() if local else None)
        options = {
            "base_url": self.url,
            # Files are compressed or random already; identity keeps byte ranges and hashes those of the file itself.
            "headers": {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {token}"} if token else {}),
            "timeout": httpx2.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS),
            "trust_env": not local,  # a proxy named in the environment cannot reach this machine's loopback
        }
        self.line = make_line(options)

    async def json(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        upload: Path | bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Calls and returns the answer's JSON, ``None`` if it has none.

        ``body`` is sent as JSON, or ``upload`` as it is, a file streamed.

        Raises:
            RequestRefused: an answer other than success.
            ServerUnreachable: none.
        """
        response = await self._repeated(method, path, upload, False, params=params, json=body, headers=headers)
        _check(response)
        return response.json() if response.content else None

    @asynccontextmanager
    async def stream(self, path: str, params: Mapping[str, str], headers: Mapping[str, str]) -> AsyncIterator[httpx2.Response]:
        """A GET whose body is yet to be read; 416 is an answer like any other. Raises as ``json`` does."""
        response = await self._repeated("GET", path, None, True, params=params, headers=headers)
        try:
            if response.status_code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                if response.is_error:
                    await self.line.read(response)
                _check(response)
            yield response
        finally:
            await self.line.end(response)

    async def _repeated(
        self, method: str, path: str, upload: Path | bytes | None, stream: bool, **request: Any
    ) -> httpx2.Response:
        tries = 0
        while True:
            tries += 1
            try:
                response = await self.line.send(method, path, upload, stream, **request)
            except httpx2.TransportError as error:
                if tries >= _TRIES_UNREACHABLE:
                    raise ServerUnreachable(
                        f"No Secateur server answers at {self.url} ({_reason(error)}); "
                        "start one with 'secateur serve', or set SECATEUR_URL to where it is."
                    ) from error
                await self.line.pause(_wait(tries, None))
                continue
            if response.status_code not in _TRY_LATER or tries >= _TRIES_LATER:
                return response
            await self.line.end(response)
            await self.line.pause(_wait(tries, response.headers.get("retry-after")))


def _check(response: httpx2.Response) -> None:
    if response.is_success:
        return
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if isinstance(problem, dict) and isinstance(problem.get("detail"), str):
        raise RequestRefused(problem["detail"], response.status_code, problem)
    said = f"{response.status_code} {response.reason_phrase}".strip()
    raise RequestRefused(f"{response.url} answered {said}; is a Secateur server there?", response.status_code, {})


def _wait(tries: int, retry_after: str | None) -> float:
    """Seconds to wait: what the server asks for, else twice as long each time, spread so that clients do not march in step."""
    asked = _seconds(retry_after)
    if asked is None:
        asked = _FIRST_WAIT * 2 ** (tries - 1) * random.uniform(0.8, 1.2)  # noqa: S311
    return min(asked, _LONGEST_WAIT)


def _seconds(retry_after: str | None) -> float | None:
    """A ``Retry-After``: seconds or a date."""
    if retry_after is None:
        return None
    if retry_after.isdigit():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None


def _reason(error: httpx2.TransportError) -> str:
    return str(error) or type(error).__name__


def _host(url: str) -> str:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        parsed = httpx2.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidInput("SECATEUR_URL", url, f"is not a server's address; use one like {DEFAULT_URL}")
    return parsed.host


def _saved_token() -> str | None:
    path = Path(os.environ.get("SECATEUR_DATA_DIR") or DEFAULT_DATA_DIR) / "token"
    try:
        return path.read_text().strip()
    except OSError:  # none was saved here; a server that wants one says so
        return None
