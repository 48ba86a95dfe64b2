"""An index of trials by when they were told, for what is new of a job."""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Adds the index."""
    op.create_index("ix_trials_told", "trials", ["job_id", "told_sequence"], unique=False)
