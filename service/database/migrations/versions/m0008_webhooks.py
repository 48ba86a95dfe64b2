"""Webhooks: where a job tells its events, and what is still to be told. And what a job said last, beside its state."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Adds the columns and the table; jobs so far tell nobody."""
    op.add_column("jobs", sa.Column("message", sa.Text(), nullable=True))
    _move_messages()
    op.add_column("jobs", sa.Column("webhook", sa.JSON(none_as_null=True), nullable=True))
    op.create_table(
        "deliveries",
        sa.Column("event_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["event_id"], ["events.id"]),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sa.PrimaryKeyConstraint("event_id"),
    )
    op.create_index("ix_deliveries_job_id_event_id", "deliveries", ["job_id", "event_id"], unique=False)
    op.create_index("ix_deliveries_due_at", "deliveries", ["due_at"], unique=False)


def _move_messages() -> None:
    """The last line of progress of each job, which was looked for among its events so far."""
    events = sa.table("events", *map(sa.column, ("id", "job_id", "type")), sa.column("data", sa.JSON()))
    jobs = sa.table("jobs", sa.column("id"), sa.column("message"))
    last = sa.select(sa.func.max(events.c.id)).where(events.c.type == "progress").group_by(events.c.job_id)
    said = op.get_bind().execute(sa.select(events.c.job_id, events.c.data).where(events.c.id.in_(last))).all()
    for job_id, data in said:
        op.execute(sa.update(jobs).where(jobs.c.id == job_id).values(message=data["message"]))
