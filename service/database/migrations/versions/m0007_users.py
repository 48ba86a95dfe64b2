"""Users, their API keys and what they did; what there is belongs to the first of them. Idempotency keys have a table.

And an index of the trials' states and seconds, which are counted for Prometheus.
"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_BIG_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Adds the tables and the owners; all that earlier versions took came with the administrator's token."""
    users = op.create_table(
        "users",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("max_jobs", sa.Integer(), nullable=True),
        sa.Column("max_trials", sa.BigInteger(), nullable=True),
        sa.Column("max_bytes", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.bulk_insert(users, [{"name": "admin", "created_at": datetime.now(UTC)}])
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("user", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("scope", sa.String(length=20), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["user"], ["users.name"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "audit",
        sa.Column("id", _BIG_NUMBER, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("user", sa.String(length=40), nullable=False),
        sa.Column("key_id", sa.String(length=40), nullable=True),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("method", sa.String(length=10), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("made", sa.Text(), nullable=True),
        sa.Column("request_id", sa.String(length=200), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("owner", sa.String(length=40), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("request_sha256", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sa.ForeignKeyConstraint(["owner"], ["users.name"]),
        sa.PrimaryKeyConstraint("owner", "key"),
    )
    op.create_index("ix_idempotency_keys_job_id", "idempotency_keys", ["job_id"], unique=False)
    _move_keys()
    for table in ("models", "datasets"):
        _give_owner(table)
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(_owner("jobs"))
        jobs.drop_column("idempotency_key")
        jobs.drop_column("request_sha256")
    op.create_index("ix_jobs_owner_id", "jobs", ["owner", "id"], unique=False)
    op.create_index("ix_trials_state_seconds", "trials", ["state", "evaluate_seconds"], unique=False)


def _move_keys() -> None:
    names = ["key", "request_sha256", "job_id", "created_at"]
    jobs = sa.table("jobs", *map(sa.column, ("id", "idempotency_key", "request_sha256", "created_at")))
    made = sa.select(sa.literal("admin"), jobs.c.idempotency_key, jobs.c.request_sha256, jobs.c.id, jobs.c.created_at)
    target = sa.table("idempotency_keys", *map(sa.column, ["owner", *names]))
    op.execute(sa.insert(target).from_select(["owner", *names], made.where(jobs.c.idempotency_key.is_not(None))))


def _give_owner(table: str) -> None:
    """Equal bytes of two users are two rows from now on. The constraint was made without a name."""
    sqlite = op.get_bind().dialect.name == "sqlite"
    convention = {"uq": "uq_%(table_name)s_%(column_0_name)s"}  # for what SQLite left unnamed; PostgreSQL names by itself
    with op.batch_alter_table(table, naming_convention=convention) as batch:
        batch.add_column(_owner(table))
        batch.drop_constraint(f"uq_{table}_sha256" if sqlite else f"{table}_sha256_key", type_="unique")
        batch.create_unique_constraint(f"uq_{table}_owner", ["owner", "sha256"])


def _owner(table: str) -> sa.Column[str]:
    reference = sa.ForeignKey("users.name", name=f"fk_{table}_owner")
    return sa.Column("owner", sa.String(length=40), reference, nullable=False, server_default="admin")
