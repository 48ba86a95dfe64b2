"""What a trial's metric dropped by, all networks that a job kept, and the metric of forms that compute another one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Adds the columns; jobs so far kept the best network alone, in forms that all compute the same."""
    op.add_column("trials", sa.Column("metric_drop", sa.Double(), nullable=True))
    op.add_column("jobs", sa.Column("kept", sa.JSON(), nullable=True))
    op.add_column("checkpoints", sa.Column("metric", sa.Double(), nullable=True))
