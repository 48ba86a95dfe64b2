"""An index of what a job's trials add up to, and by which version they were scored."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Adds the index and the column; all jobs so far were scored by the first version."""
    op.add_column("jobs", sa.Column("scoring", sa.Integer(), nullable=False, server_default="1"))
    columns = ["job_id", "state", "score", "number", "metric", "macs", "params", "size_bytes"]
    op.create_index("ix_trials_summary", "trials", columns, unique=False)
