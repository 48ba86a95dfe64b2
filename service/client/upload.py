"""Uploads that survive a broken line: small files in one request, large ones in parts, everything held to its sha256.

Whoever uploads the same large file again, in another process even, goes on where the server has it.
"""

from __future__ import annotations

import base64
import hashlib
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO

from service.client.connection import Connection, RequestRefused

PART_BYTES = 32 * 2**20  # a part is in memory while it is sent, and is sent again if its line breaks
_FRUITLESS_TRIES = 4  # parts in a row of which nothing arrives
_KINDS = {"/models": "model", "/datasets": "dataset"}


def upload(connection: Connection, path: str, file: Path, name: str) -> dict[str, Any]:
    """Sends a file to ``/models`` or ``/datasets`` and returns what became of it.

    Raises:
        RequestRefused: the server does not want it; says why.
        ServerUnreachable: the line stayed broken; the same call goes on from there.
    """
    with open(file, "rb") as opened:
        digest = hashlib.file_digest(opened, "sha256")
        size = opened.tell()
        if size > PART_BYTES:
            announced = {"kind": _KINDS[path], "size": size, "sha256": digest.hexdigest(), "name": name}
            return _in_parts(connection, opened, size, connection.json("POST", "/uploads", body=announced))
    headers = {"Content-Type": "application/octet-stream", "Content-Digest": _field(digest.digest())}
    made: dict[str, Any] = connection.json("POST", path, params={"name": name}, upload=file, headers=headers)
    return made


def _in_parts(connection: Connection, file: BinaryIO, size: int, begun: dict[str, Any]) -> dict[str, Any]:
    place, offset, fruitless = f"/uploads/{begun['id']}", begun["offset"], 0
    while offset < size:
        file.seek(offset)
        part = file.read(PART_BYTES)
        headers = {"Upload-Offset": str(offset), "Content-Digest": _field(hashlib.sha256(part).digest())}
        try:
            there = connection.json("PATCH", place, upload=part, headers=headers)["offset"]
        except RequestRefused as refused:
            # A part was cut, and some of it is there: its repetition begins too early.
            if refused.status != HTTPStatus.CONFLICT:
                raise
            there = connection.json("GET", place)["offset"]
            fruitless = 0 if there > offset else fruitless + 1
            if fruitless >= _FRUITLESS_TRIES:
                raise
        offset = there
    made: dict[str, Any] = connection.json("POST", f"{place}/finish")
    return made


def _field(digest: bytes) -> str:
    """A sha256 as RFC 9530 writes it."""
    return f"sha-256=:{base64.b64encode(digest).decode()}:"
