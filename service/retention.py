"""Frees the space of what nothing refers to any more: ``secateur gc``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select, union_all

from service.database import Database
from service.database.tables import Checkpoint, Dataset, Model
from service.jobs.folders import clear_folders
from service.store import Store

GRACE_SECONDS = 24 * 3600.0
"""A file younger than this stays: it is stored before the row that refers to it is written, and an upload may take hours."""


@dataclass(frozen=True)
class Freed:
    """What was deleted, or would be.

    Attributes:
        files: of the store, unfinished uploads among them.
        size: their bytes.
        folders: of jobs that have ended, by the job's id.
    """

    files: int
    size: int
    folders: list[str]


def collect(database: Database, store: Store, data_dir: Path, grace_seconds: float = GRACE_SECONDS) -> Freed:
    """Deletes stored files that no model, data set or checkpoint has, uploads that broke off, and ended jobs' folders.

    May be run while the service runs.
    """
    with database.read() as session:
        arrays = select(Dataset.inspection["arrays"].as_string())
        used = union_all(*(select(table.sha256) for table in (Model, Dataset, Checkpoint)), arrays)
        needed = set(session.scalars(used))
    sizes = store.discard(needed, grace_seconds)
    return Freed(files=len(sizes), size=sum(sizes), folders=clear_folders(database, data_dir))
