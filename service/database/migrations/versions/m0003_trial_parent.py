"""Trials record which trial's network they started from, and the schedule that they trained by."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Adds the columns; every earlier trial was a bare cut of the dense network."""
    op.add_column("trials", sa.Column("parent", sa.Integer(), nullable=True))
    op.add_column("trials", sa.Column("training", sa.JSON(), nullable=True))
