"""Jobs count the processes that they lost without a result in between."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Adds the column; earlier jobs failed at their first loss."""
    op.add_column("jobs", sa.Column("losses", sa.Integer(), nullable=False, server_default="0"))
