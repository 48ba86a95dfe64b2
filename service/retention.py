"""Frees the space of what nothing refers to any more, and forgets what is only remembered for a while: ``secateur gc``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from sqlalchemy import CursorResult, delete, select, union_all

from service.database import Database, now
from service.database.tables import AuditEntry, Checkpoint, Dataset, IdempotencyKey, Model
from service.jobs.folders import clear_folders
from service.store import Store

GRACE_SECONDS = 24 * 3600.0
"""A file younger than this stays: it is stored before the row that refers to it is written, and an upload may take hours."""

IDEMPOTENCY_DAYS = 7
"""An ``Idempotency-Key`` is remembered for so long: a client that was switched off for some days may still repeat itself."""

AUDIT_DAYS = 365
"""What users did is remembered for so long: it is asked for when something is found out, which may be months later."""


@dataclass(frozen=True)
class Freed:
    """What was deleted, or would be.

    Attributes:
        files: of the store, unfinished uploads among them.
        size: their bytes.
        folders: of jobs that have ended, by the job's id.
        idempotency_keys: older than ``IDEMPOTENCY_DAYS``.
        audit_entries: older than ``AUDIT_DAYS``.
    """

    files: int
    size: int
    folders: list[str]
    idempotency_keys: int
    audit_entries: int


def collect(database: Database, store: Store, data_dir: Path, grace_seconds: float = GRACE_SECONDS) -> Freed:
    """Deletes stored files that no model, data set or checkpoint has, uploads that broke off, and ended jobs' folders.

    May be run while the service runs.
    """
    with database.read() as session:
        arrays = select(Dataset.inspection["arrays"].as_string())
        used = union_all(*(select(table.sha256) for table in (Model, Dataset, Checkpoint)), arrays)
        needed = set(session.scalars(used))
    sizes = store.discard(needed, grace_seconds)
    with database.write() as session:
        moment = now(session)
        old_keys = delete(IdempotencyKey).where(IdempotencyKey.created_at < moment - timedelta(days=IDEMPOTENCY_DAYS))
        old_entries = delete(AuditEntry).where(AuditEntry.at < moment - timedelta(days=AUDIT_DAYS))
        forgotten = [cast(CursorResult[Any], session.execute(statement)).rowcount for statement in (old_keys, old_entries)]
    return Freed(len(sizes), sum(sizes), clear_folders(database, data_dir), *forgotten)
