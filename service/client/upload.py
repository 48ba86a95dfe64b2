"""Uploads that survive a broken line: small files in one request, large ones in parts, everything held to its sha256.

Whoever uploads the same large file again, in another process even, goes on where the server has it.
"""

from __future__ import annotations

import base64
import hashlib
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from service.client.connection import Connection, RequestRefused

PART_BYTES = 32 * 2**20  # a part is in memory while it is sent, and is sent again if its line breaks
_FRUITLESS_TRIES = 4  # parts in a row of which nothing arrives
_KINDS = {"/models": "model", "/datasets": "dataset"}


async def upload(connection: Connection, path: str, file: Path, name: str) -> dict[str, Any]:
    """Sends a file to ``/models`` or ``/datasets`` and returns what became of it.

    Raises:
        RequestRefused: the server does not want it; says why.
        ServerUnreachable: the line stayed broken; the same call goes on from there.
    """
    digest, size = await connection.line.work(lambda: _measured(file))
    if size > PART_BYTES:
        announced = {"kind": _KINDS[path], "size": size, "sha256": digest.hex(), "name": name}
        return await _in_parts(connection, file, size, await connection.json("POST", "/uploads", body=announced))
    headers = {"Content-Type": "application/octet-stream", "Content-Digest": _field(digest)}
    made: dict[str, Any] = await connection.json("POST", path, params={"name": name}, upload=file, headers=headers)
    return made


async def _in_parts(connection: Connection, file: Path, size: int, begun: dict[str, Any]) -> dict[str, Any]:
    place, offset, fruitless = f"/uploads/{begun['id']}", begun["offset"], 0
    while offset < size:
        part = await connection.line.work(partial(_part, file, offset))
        headers = {"Upload-Offset": str(offset), "Content-Digest": _field(hashlib.sha256(part).digest())}
        try:
            there = (await connection.json("PATCH", place, upload=part, headers=headers))["offset"]
        except RequestRefused as refused:
            # A part was cut, and some of it is there: its repetition begins too early.
            if refused.status != HTTPStatus.CONFLICT:
                raise
            there = (await connection.json("GET", place))["offset"]
            fruitless = 0 if there > offset else fruitless + 1
            if fruitless >= _FRUITLESS_TRIES:
                raise
        offset = there
    made: dict[str, Any] = await connection.json("POST", f"{place}/finish")
    return made


def _measured(file: Path) -> tuple[bytes, int]:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").digest(), opened.tell()


def _part(file: Path, offset: int) -> bytes:
    with open(file, "rb") as opened:
        opened.seek(offset)
        return opened.read(PART_BYTES)


def _field(digest: bytes) -> str:
    """A sha256 as RFC 9530 writes it."""
    return f"sha-256=:{base64.b64encode(digest).decode()}:"
