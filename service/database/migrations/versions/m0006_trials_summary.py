"""An index of what a job's trials add up to."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Adds the index."""
    columns = ["job_id", "state", "score", "number", "metric", "macs", "params", "size_bytes"]
    op.create_index("ix_trials_summary", "trials", columns, unique=False)
