"""Uploads that are not whole yet, as files: what has arrived is what the file holds, and nothing else keeps count.

Beside the bytes (``ID.part``) lies what was announced of them (``ID.json``). The id follows from that, so whoever begins the
same upload again, after whatever happened, goes on with it. Any process that has the folder may take the next part.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Literal

from service.problems import Conflict, NotFound, ServiceError
from service.store import Store, Upload, room

MOST_OPEN = 100  # at once: beyond, something begins uploads and never ends them
FORGOTTEN_SECONDS = 24 * 3600.0  # after which an upload that got no more bytes is given up

_ID = re.compile(r"upload-[0-9a-f]{32}")

Kind = Literal["model", "dataset"]


@dataclass(frozen=True)
class Transfer:
    """An upload in parts, as it was announced.

    Attributes:
        kind: what it becomes.
        size: bytes of the whole.
        sha256: of the whole.
        name: for people.
        owner: whose it is; the upload of one is not found by another.
        result: id of what it became; for a day, so that whoever missed the answer may ask again.
    """

    kind: Kind
    size: int
    sha256: str
    name: str | None
    owner: str
    result: str | None = None

    @property
    def id(self) -> str:
        """The same for the same announcement, but for the name."""
        announced = f"{self.owner} {self.kind} {self.size} {self.sha256}"
        return f"upload-{sha256(announced.encode()).hexdigest()[:32]}"


class NoUpload(NotFound):
    """No such upload, or none any more."""

    def __init__(self, upload_id: str) -> None:
        ServiceError.__init__(self, f"There is no upload {upload_id[:80]!r}, or none any more; begin it by POST /uploads.")


class WrongOffset(Conflict):
    """A part that does not begin where the bytes so far end."""

    def __init__(self, offset: int, sent: int) -> None:
        super().__init__(f"Upload-Offset {sent} is not where this upload ends, {offset}; go on from there.")
        self.headers = {"Upload-Offset": str(offset)}


class Transfers:
    """One owner's uploads in parts to a store."""

    def __init__(self, store: Store, owner: str) -> None:
        self._store = store
        self._owner = owner

    def begin(self, kind: Kind, size: int, digest: str, name: str | None) -> tuple[Transfer, bool]:
        """Opens an upload, unless it is open, and says whether it is new; for the arguments see ``Transfer``.

        Raises:
            Conflict: too many are open.
            StorageFull: the disk has no room for it.
        """
        self._forget_old()
        transfer = Transfer(kind, size, digest, name, self._owner)
        if self._about(transfer.id).exists():
            return self.get(transfer.id)[0], False
        if sum(1 for _ in self._store.incoming.glob("upload-*.part")) >= MOST_OPEN:
            raise Conflict(f"{MOST_OPEN} uploads are open; finish or delete some, or wait a day.")
        self._store.check_room(transfer.size)
        with room():
            self._part(transfer.id).touch(mode=0o600)
            self._note(transfer)
        return transfer, True

    def get(self, upload_id: str) -> tuple[Transfer, int]:
        """An upload and how many of its bytes are there; raises ``NotFound``."""
        try:
            transfer = Transfer(**json.loads(self._about(upload_id).read_text()))
            there = transfer.size if transfer.result is not None else self._part(upload_id).stat().st_size
        except FileNotFoundError:
            raise NoUpload(upload_id) from None
        if transfer.owner != self._owner:
            raise NoUpload(upload_id)
        return transfer, there

    def append(self, upload_id: str, offset: int, chunk: bytes) -> None:
        """Writes bytes behind those that are there.

        Of two requests that send the same part, say one whose line was cut and its successor, the later to write is refused.

        Raises:
            WrongOffset: there are not ``offset`` bytes.
        """
        with self._locked(upload_id) as file:
            there = file.seek(0, os.SEEK_END)
            if there != offset:
                raise WrongOffset(there, offset)
            with room():
                try:
                    file.write(chunk)
                    file.flush()
                except OSError:
                    file.truncate(there)
                    raise

    def take_back(self, upload_id: str, offset: int) -> None:
        """Forgets what lies beyond."""
        with self._locked(upload_id) as file:
            file.truncate(offset)

    @contextmanager
    def whole(self, upload_id: str) -> Iterator[Upload]:
        """All of it, on its way into the store; what is not kept is still here afterwards.

        Raises:
            Conflict: somebody else is at it.
        """
        with self._locked(upload_id, at_once=True), room():
            upload = Upload(self._store, self._part(upload_id), "upload", None)
            try:
                yield upload
            finally:
                upload.release()

    def became(self, transfer: Transfer, result: str) -> None:
        """Its bytes are taken over: notes the id of what it became."""
        self._note(replace(transfer, result=result))
        self._part(transfer.id).unlink(missing_ok=True)

    def drop(self, upload_id: str) -> None:
        """Deletes an upload, if it is there."""
        for path in (self._about(upload_id), self._part(upload_id)):
            path.unlink(missing_ok=True)

    @contextmanager
    def _locked(self, upload_id: str, at_once: bool = False) -> Iterator[BinaryIO]:
        try:
            file = self._part(upload_id).open("r+b")
        except FileNotFoundError:
            raise NoUpload(upload_id) from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if at_once else 0))
            except BlockingIOError:
                raise Conflict(f"Upload {upload_id} is being finished by another request; ask for it again.") from None
            if not self._part(upload_id).exists():  # it was finished while we waited
                raise NoUpload(upload_id)
            yield file

    def _note(self, transfer: Transfer) -> None:
        """Whole or not at all."""
        unfinished = self._path(transfer.id, "new")
        unfinished.write_text(json.dumps(asdict(transfer)))
        os.replace(unfinished, self._about(transfer.id))

    def _forget_old(self) -> None:
        for about in self._store.incoming.glob("upload-*.json"):
            part = about.with_suffix(".part")
            with suppress(FileNotFoundError):
                latest = part if part.exists() else about
                if latest.stat().st_mtime < time.time() - FORGOTTEN_SECONDS:
                    self.drop(about.stem)

    def _about(self, upload_id: str) -> Path:
        return self._path(upload_id, "json")

    def _part(self, upload_id: str) -> Path:
        return self._path(upload_id, "part")

    def _path(self, upload_id: str, suffix: str) -> Path:
        if not _ID.fullmatch(upload_id):
            raise NoUpload(upload_id)
        return self._store.incoming / f"{upload_id}.{suffix}"
