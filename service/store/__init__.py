"""The content-addressed store of uploads and checkpoints: in a folder, or in S3."""

from __future__ import annotations

from pathlib import Path

from service.settings import Settings
from service.store.base import Blob, Damaged, Store, StoreAway, Upload, room
from service.store.folder import FolderStore

__all__ = ["Blob", "Damaged", "FolderStore", "Store", "StoreAway", "Upload", "open_store", "room"]


def open_store(settings: Settings) -> Store:
    """The store that the settings name; what it needs to work is asked for when it is used, or by ``check``."""
    from service.store.bucket import SCHEME, BucketStore  # which most services never need

    if settings.store_at.startswith(SCHEME):
        return BucketStore(settings.store_at, settings.data_dir / "store")
    return FolderStore(Path(settings.store_at))
