"""What jobs keep on this machine's disk while they last, and the end of it."""

from __future__ import annotations

import shutil
from pathlib import Path

from sqlalchemy import select

from service.database import Database
from service.database.tables import Job
from service.jobs.states import ENDS


def clear_folders(database: Database, data_dir: Path) -> list[str]:
    """Deletes the folders of jobs that have ended or that were deleted, which killed processes left; their jobs' ids."""
    folders = {path.name: path for path in (data_dir / "jobs").glob("job-*")}
    if not folders:
        return []
    with database.read() as session:
        lasting = set(session.scalars(select(Job.id).where(Job.id.in_(folders), Job.state.not_in(ENDS))))
    left = sorted(set(folders) - lasting)
    for name in left:
        shutil.rmtree(folders[name], ignore_errors=True)  # its process may be at the same
    return left
