"""Trials record the bytes of their network's weights and buffers, which a budget may now bound."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds the column; what earlier trials would have taken is not known."""
    op.add_column("trials", sa.Column("size_bytes", sa.BigInteger(), nullable=True))
