"""A store in a local folder, or in one that several machines mount.

A reader sees a file whole or not at all: it is written under a temporary name, flushed to the disk and then renamed.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from service.store.base import Store, StoreAway, checked, damaged, digest, lost, oldest


class FolderStore(Store):
    """A content-addressed folder; made if it is not there.

    Attributes:
        folder: itself.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "incoming")
        self.folder = folder

    def path(self, sha256: str) -> Path:
        """Where a file of that hash lies, or would; anything but a sha256 raises ``ValueError``."""
        return self.folder / sha256[:2] / checked(sha256)

    def take(self, path: Path, sha256: str) -> None:
        target = self.path(sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)
        _sync_folder(target.parent)

    def has(self, sha256: str) -> bool:
        return self.path(sha256).exists()

    def verified(self, sha256: str) -> Path:
        path = self.path(sha256)
        try:
            found = digest(path)
        except FileNotFoundError as error:
            raise lost(sha256) from error
        if found != sha256:
            raise damaged(sha256)
        return path

    def discard(self, needed: Collection[str], grace_seconds: float) -> list[int]:
        limit, sizes = oldest(grace_seconds), []
        for path in [*self.folder.glob("[0-9a-f][0-9a-f]/*"), *self.incoming.iterdir()]:
            if path.name not in needed:
                sizes += self._discard_if_old(path, limit)
        return sizes

    def check(self) -> None:
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise StoreAway("The store's folder is gone or not writable.")


def _sync_folder(folder: Path) -> None:
    """Makes a rename survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
