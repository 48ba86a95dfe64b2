"""Budgets of milliseconds: what was measured for a job, and what each of its trials is foretold to take."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Adds the columns; a limit of milliseconds is not known before they are measured."""
    op.add_column("trials", sa.Column("latency_ns", sa.BigInteger(), nullable=True))
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("times", sa.JSON(), nullable=True))
        jobs.alter_column("budget_limit", existing_type=sa.BigInteger(), nullable=True)
