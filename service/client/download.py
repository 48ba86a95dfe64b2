"""Downloads that survive a broken line: resumed by ``Range``, checked against the sha256 that the server gives as ``ETag``.

What has arrived lies beside the target as ``NAME.SHA256.part``, so that a later call, even of another process, goes on
where the last one ended, and never mixes two files. The target appears whole or not at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from pathlib import Path

import httpx2

from pruners.errors import InvalidInput, SecateurError
from service.client.connection import Connection

_FRUITLESS_TRIES = 4  # resumptions in a row that bring not a single byte
_SHA256_DIGITS = 64


class DownloadCorrupt(SecateurError):
    """What arrived is not what the server announced."""


async def download(connection: Connection, source: str, params: Mapping[str, str], target: Path) -> Path:
    """Fetches ``source`` into the file ``target``, replacing it, and returns ``target``.

    Raises:
        InvalidInput: a target that cannot be written to.
        RequestRefused: the server has no such file.
        DownloadCorrupt: its sha256 differs from the announced one.
        ServerUnreachable: the line stayed broken; what has arrived is kept.
    """
    _check(target)
    fruitless = 0
    while True:
        before = _size(_partial(target))
        try:
            part = await _fetch(connection, source, params, target)
        except httpx2.TransportError as error:
            fruitless = 0 if _size(_partial(target)) > before else fruitless + 1
            if fruitless >= _FRUITLESS_TRIES:
                raise SecateurError(f"The download of {target.name} broke off ({error}); run it again to go on.") from error
            continue
        if part is not None:
            part.replace(target)
            return target


def _check(target: Path) -> None:
    if target.is_dir():
        raise InvalidInput("output", str(target), "is a folder; name a file in it")
    if not target.parent.is_dir():
        raise InvalidInput("output", str(target), "lies in a folder that does not exist; make that folder first")


async def _fetch(connection: Connection, source: str, params: Mapping[str, str], target: Path) -> Path | None:
    """One attempt: the complete and verified file, or ``None`` if what was there turned out to be of no use."""
    part = _partial(target)
    headers = {}
    if part is not None:
        headers = {"Range": f"bytes={part.stat().st_size}-", "If-Range": f'"{_announced(part)}"'}
    async with connection.stream(source, params, headers) as response:
        if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and part is not None:
            # Nothing is missing: an earlier attempt ended between the last byte and the renaming.
            if await connection.line.work(partial(_sha256, part)) == _announced(part):
                return part
            part.unlink()
            return None
        sha256 = response.headers.get("etag", "").removeprefix("W/").strip('"')
        if len(sha256) != _SHA256_DIGITS:
            raise DownloadCorrupt(f"{response.url} gives no sha256 for its file; is a Secateur server there?")
        resumed = response.status_code == HTTPStatus.PARTIAL_CONTENT
        if part is not None and not resumed:  # of another file than the one there is now
            part.unlink()
        part = target.with_name(f"{target.name}.{sha256}.part")
        with open(part, "ab" if resumed else "wb") as file:  # noqa: ASYNC230 - pieces are small, and the disk is near
            async for received in connection.line.pieces(response):
                file.write(received)
    if await connection.line.work(partial(_sha256, part)) != sha256:
        part.unlink()
        raise DownloadCorrupt(f"The sha256 of {target.name} is not the {sha256} that the server announced; try again.")
    return part


def _partial(target: Path) -> Path | None:
    """The beginning of this target that an earlier attempt left."""
    for path in target.parent.iterdir():
        middle = path.name.removeprefix(f"{target.name}.").removesuffix(".part")
        if path.name == f"{target.name}.{middle}.part" and len(middle) == _SHA256_DIGITS and path.stat().st_size:
            return path
    return None


def _announced(part: Path) -> str:
    """The sha256 of the whole, from the part's name."""
    return part.name.split(".")[-2]


def _size(part: Path | None) -> int:
    return 0 if part is None else part.stat().st_size


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
