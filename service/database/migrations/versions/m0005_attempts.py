"""Attempts have rows: who runs them and when they were last heard of. Stops are remembered, trials keep their losses."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_LIVE = ("starting", "running", "pausing", "stopping", "cancelling", "finishing")


def upgrade() -> None:
    """Adds the table and the columns; the attempts of earlier versions that may be alive have not been heard of since."""
    op.create_table(
        "attempts",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("cluster", sa.Text(), nullable=False),
        sa.Column("process", sa.Text(), nullable=True),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("searching_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("writes", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sa.PrimaryKeyConstraint("job_id", "number"),
    )
    op.add_column("jobs", sa.Column("stop_asked", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("trials", sa.Column("losses", sa.JSON(), nullable=False, server_default="[]"))
    jobs, attempts = sa.table("jobs", *map(sa.column, ("id", "attempt", "state", "created_at", "started_at"))), "attempts"
    began = sa.func.coalesce(jobs.c.started_at, jobs.c.created_at)
    live = sa.select(jobs.c.id, jobs.c.attempt, sa.literal("unknown"), began, jobs.c.started_at, began, sa.literal(0))
    names = ["job_id", "number", "cluster", "began_at", "searching_at", "seen_at", "writes"]
    target = sa.table(attempts, *map(sa.column, names))
    op.execute(sa.insert(target).from_select(names, live.where(jobs.c.state.in_(_LIVE))))
