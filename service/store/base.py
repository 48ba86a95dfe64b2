"""Files by the hash of their content, wherever they are kept.

A file's name is its sha256 and nothing else, so no string a user sends ever becomes a path, and the same bytes are kept
once. What arrives is written to a folder of this machine first, ``incoming``, and taken over once it is whole.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from service.problems import ServiceError, StorageFull, TooLarge, Unavailable

_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHUNK = 2**20  # bytes; larger ones are no faster

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says of a disk that is full."""


@dataclass(frozen=True)
class Blob:
    """A stored file: its sha256 in hexadecimal and its size in bytes."""

    sha256: str
    size: int


class Damaged(ServiceError):
    """A stored file is gone or has other bytes than it was stored with."""

    title = "Stored file damaged"


class StoreAway(Unavailable):
    """The store does not answer or refuses us; the same call may well succeed in a moment."""

    title = "Temporarily unavailable"
    example = "The S3 store does not answer (EndpointConnectionError); try again in a moment."


class Upload:
    """A file on its way into the store, at ``path`` until it is kept; what is there already counts."""

    def __init__(self, store: Store, path: Path, field: str, limit: int | None) -> None:
        self.path = path
        self._store = store
        self._file = path.open("ab")
        self._hash = hashlib.sha256()
        self._size = 0
        self._field = field
        self._limit = limit

    @property
    def blob(self) -> Blob:
        """What has been written so far."""
        return Blob(self._hash.hexdigest(), self._size)

    def write(self, chunk: bytes) -> None:
        """Appends; raises ``TooLarge`` as soon as the limit is passed."""
        self._size += len(chunk)
        if self._limit is not None and self._size > self._limit:
            raise TooLarge(self._field, self._limit)
        self._hash.update(chunk)
        self._file.write(chunk)

    def reread(self) -> Blob:
        """What is in the file now, whoever wrote it."""
        self._hash = hashlib.sha256()
        with self.path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                self._hash.update(chunk)
            self._size = file.tell()
        return self.blob

    def complete(self) -> Blob:
        """All bytes are written: flushes them to the disk, so that ``path`` can be read by others."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self.blob

    def keep(self) -> Blob:
        """Moves the file into the store."""
        self.complete()
        self._store.take(self.path, self.blob.sha256)
        return self.blob

    def release(self) -> None:
        """Nothing more is written; the file stays where it is."""
        with suppress(OSError):  # what is still to be written may find the disk full
            self._file.close()

    def close(self) -> None:
        """Removes what was not kept."""
        self.release()
        self.path.unlink(missing_ok=True)


class Store(ABC):
    """A content-addressed store.

    Args:
        incoming: a folder of this machine, made if it is not there.

    Attributes:
        incoming: where files are that are not whole yet.
    """

    def __init__(self, incoming: Path) -> None:
        self.incoming = incoming
        self.incoming.mkdir(parents=True, exist_ok=True, mode=0o700)

    @contextmanager
    def receive(self, field: str, limit: int | None = None) -> Iterator[Upload]:
        """A new upload of at most ``limit`` bytes, gone at the end unless it was kept; ``field`` is for the error.

        Raises ``StorageFull`` where the disk is.
        """
        descriptor, path = tempfile.mkstemp(dir=self.incoming)
        os.close(descriptor)
        upload = Upload(self, Path(path), field, limit)
        try:
            with room():
                yield upload
        finally:
            upload.close()

    def check_room(self, size: int) -> None:
        """Raises ``StorageFull`` where so many bytes would not fit."""
        if size > shutil.disk_usage(self.incoming).free:
            raise StorageFull(f"The store's disk has no room for {size:,} bytes; free some space and try again.")

    def put(self, chunks: Iterable[bytes], field: str = "file", limit: int | None = None) -> Blob:
        """Stores the bytes; raises ``TooLarge`` beyond ``limit``."""
        with self.receive(field, limit) as upload:
            for chunk in chunks:
                upload.write(chunk)
            return upload.keep()

    def put_file(self, path: Path) -> Blob:
        """Stores a copy of a file."""
        with path.open("rb") as file:
            return self.put(iter(lambda: file.read(_CHUNK), b""))

    @abstractmethod
    def take(self, path: Path, sha256: str) -> None:
        """Takes over a file of ``incoming``, whole and on the disk, whose hash this is; ``path`` is free afterwards."""

    @abstractmethod
    def has(self, sha256: str) -> bool:
        """Whether there is such a file; anything but a sha256 raises ``ValueError``."""

    @abstractmethod
    def verified(self, sha256: str) -> Path:
        """Where it can be read on this machine, its bytes found to be those that were stored; raises ``Damaged``."""

    @abstractmethod
    def discard(self, needed: Collection[str], grace_seconds: float) -> list[int]:
        """Deletes the files that are not needed, and uploads that broke off, if older than the grace; their sizes."""

    @abstractmethod
    def check(self) -> None:
        """Raises ``StoreAway`` where nothing could be stored."""

    def _discard_if_old(self, path: Path, limit: float) -> list[int]:
        """Deletes a file last written before ``limit``; its size, if it was.

        One that is stored anew in this very moment is another file under its name: it is younger, and put back.
        """
        if path.stat().st_mtime > limit:
            return []
        doomed = self.incoming / f"doomed-{path.name}"
        os.replace(path, doomed)
        if doomed.stat().st_mtime > limit:
            os.replace(doomed, path)
            return []
        size = doomed.stat().st_size
        doomed.unlink()
        return [size]


def checked(sha256: str) -> str:
    """The same, if it is a sha256; else raises ``ValueError``."""
    if not _SHA256.fullmatch(sha256):
        raise ValueError(f"{sha256!r} is not a sha256")
    return sha256


def digest(path: Path) -> str:
    """The sha256 of a file's bytes; raises ``FileNotFoundError``."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lost(sha256: str) -> Damaged:
    """The error about a file that is gone."""
    return Damaged(f"The store has lost the file {sha256}; restore it from a backup, or upload it again.")


def damaged(sha256: str) -> Damaged:
    """The error about a file with other bytes."""
    return Damaged(f"The file {sha256} in the store is damaged; restore it from a backup, or upload it again.")


def oldest(grace_seconds: float) -> float:
    """The time before which something is older than the grace."""
    return time.time() - grace_seconds


@contextmanager
def room() -> Iterator[None]:
    """Says that the disk is full in the error of our own."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StorageFull("The store's disk is full; free some space and try again.") from error
        raise
