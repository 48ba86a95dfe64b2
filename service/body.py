"""A request's raw body: what its headers announce is checked before a byte of it is read, and what arrives against that.

``Content-Length`` and ``Content-Digest`` (RFC 9530, ``sha-256``) are held to. A body has to keep a pace: whoever sends less
than the least rate, counted from a time of grace, is not waited for, so that idle connections cannot pile up.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import math
import re
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from hashlib import sha256
from time import monotonic
from typing import Any

from fastapi import Request
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pruners.errors import InvalidInput
from service.problems import BrokenOff, TooLarge, TooSlow, WrongMediaType
from service.settings import Settings

JSON_BYTES = 2**20
"""Of a body that is JSON; a job whose config_list names 10,000 layers takes half of it."""

_DIGEST = re.compile(r"(?:^|,)\s*sha-256\s*=\s*:([A-Za-z0-9+/=]*):\s*(?:$|[,;])")
_CHUNK = 2**20  # bytes gathered before a thread writes them: a network's packets are too small to be worth the switch


class ClosesUnread:
    """ASGI middleware: an answer that comes before the body's end closes the connection behind it.

    The server would otherwise go on reading, to throw away, for as long as anybody sends.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        unread = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"

        async def watched() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and bool(message.get("more_body"))
            return message

        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start" and unread:
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        await self._app(scope, watched, closing)


@dataclass(frozen=True)
class Announced:
    """What a request's headers say of its body.

    Attributes:
        size: bytes; ``None``: not said.
        digest: its sha256 in hexadecimal; ``None``: not said.
    """

    size: int | None
    digest: str | None

    def check(self, size: int, digest: str) -> None:
        """Raises ``InvalidInput`` where another body arrived."""
        if self.size is not None and size != self.size:
            raise InvalidInput("Content-Length", self.size, f"is not what arrived, {size} bytes; send the body again")
        if self.digest is not None and digest != self.digest:
            problem = "is not the sha-256 of the body that arrived; it was damaged on its way, send it again"
            raise InvalidInput("Content-Digest", None, problem)


def announced(request: Request, field: str, limit: int) -> Announced:
    """What the headers say, checked before anything of the body is read.

    Args:
        request: whose headers.
        field: what the body is, for errors.
        limit: bytes that it may have.

    Raises:
        TooLarge: it is said to be larger.
        WrongMediaType: a form, or a compressed body.
        InvalidInput: a digest that cannot be read, or of another kind.
    """
    if request.headers.get("content-type", "").startswith("multipart/"):
        raise WrongMediaType(f"{field} is sent as the raw body here, not as a form: curl --data-binary @FILE.")
    coding = request.headers.get("content-encoding", "identity")
    if coding != "identity":
        raise WrongMediaType(f"{field} is sent as it is, not encoded by {coding[:20]!r}; leave Content-Encoding out.")
    size = announced_size(request, field, limit)
    return Announced(size, _digest(request.headers.getlist("content-digest")))


def announced_size(request: Request, field: str, limit: int) -> int | None:
    """``Content-Length``, if it is there; raises as ``announced`` does."""
    length = request.headers.get("content-length")
    if length is None:
        return None
    if not (length.isascii() and length.isdigit()):
        raise InvalidInput("Content-Length", length, "is no number of bytes; leave it to your client")
    if int(length) > limit:
        raise TooLarge(field, limit)
    return int(length)


async def chunks(request: Request, settings: Settings) -> AsyncIterator[bytes]:
    """The body in pieces worth writing.

    What has arrived when the line breaks comes first, then the error.

    Raises:
        TooSlow: it does not keep the least pace.
        BrokenOff: the client is gone.
    """
    pending = bytearray()
    try:
        async for packet in _packets(request, settings):
            pending += packet
            if len(pending) >= _CHUNK:
                yield bytes(pending)
                pending.clear()
    except (TooSlow, BrokenOff):
        if pending:
            yield bytes(pending)
        raise
    if pending:
        yield bytes(pending)


async def limited(request: Request, settings: Settings, most: int) -> AsyncGenerator[bytes]:
    """The same, of so many bytes at most; raises ``TooLarge``."""
    size = 0
    async for chunk in chunks(request, settings):
        size += len(chunk)
        if size > most:
            raise TooLarge("body", most)
        yield chunk


async def read_json(request: Request, settings: Settings) -> dict[str, Any]:
    """The body, a JSON object; raises as ``limited`` and ``strict_json`` do."""
    return strict_json("body", b"".join([chunk async for chunk in limited(request, settings, JSON_BYTES)]))


def strict_json(field: str, text: bytes) -> dict[str, Any]:
    """A JSON object in UTF-8 whose numbers are all finite; raises ``InvalidInput``."""

    def finite(number: str) -> float:
        value = float(number)
        if not math.isfinite(value):
            raise ValueError(f"{number} is no finite number")
        return value

    try:
        value = json.loads(text.decode(), parse_float=finite, parse_constant=finite)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(field, None, f"is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidInput(field, value, "is not a JSON object; send {…}")
    return value


async def _packets(request: Request, settings: Settings) -> AsyncIterator[bytes]:
    stream = request.stream()
    received, waited = 0, 0.0  # what we take to write is not the client's time
    while True:
        began = monotonic()
        allowed = settings.upload_grace_seconds + received / settings.upload_bytes_per_second - waited
        try:
            async with asyncio.timeout(allowed):
                packet = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise TooSlow(
                f"{received:,} bytes of the body arrived within {waited + monotonic() - began:.0f} s, fewer than "
                f"{settings.upload_bytes_per_second:,} a second; send it on a quicker line, or in parts by POST /uploads."
            ) from None
        except ClientDisconnect as error:
            raise BrokenOff(f"The connection ended after {received:,} bytes of the body.") from error
        waited += monotonic() - began
        received += len(packet)
        yield packet


def _digest(values: list[str]) -> str | None:
    if not values:
        return None
    text = ", ".join(values)
    found = _DIGEST.search(text)
    try:
        digest = base64.b64decode(found[1], validate=True) if found else b""
    except binascii.Error:
        digest = b""
    if len(digest) != sha256().digest_size:
        raise InvalidInput("Content-Digest", text, "holds no sha-256; send sha-256=:BASE64:, or leave it out")
    return digest.hex()
