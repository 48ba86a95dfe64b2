"""The tables, in types that SQLite and PostgreSQL share."""

from __future__ import annotations

import re
import secrets
import time
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from workers.spec import SCORING

ID_LENGTH = 40  # characters: prefix, 16 of time, 8 random, with room
NAME_LENGTH = 200  # characters: longer names are cut off by every table anyway
SHA256_LENGTH = 64  # hexadecimal digits
USER_LENGTH = 40  # characters: a name, not an address
KEY_LENGTH = 255  # characters of an Idempotency-Key: a UUID has 36, a URL fits

ADMIN = "admin"
"""The user that ``SECATEUR_TOKEN`` is of; there from the first migration on."""


def new_id(prefix: str) -> str:
    """An opaque id; ids sort in the order in which they were made."""
    return f"{prefix}-{time.time_ns():016x}{secrets.token_hex(4)}"


def is_id(text: str) -> bool:
    """Whether the text could be one of our ids; anything else never reaches the database."""
    return re.fullmatch(r"[a-z0-9-]+", text) is not None and len(text) <= ID_LENGTH


def utc_now() -> datetime:
    """Now, with its time zone."""
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC; SQLite keeps no time zone, so it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Of all tables."""

    type_annotation_map = {  # noqa: RUF012  (SQLAlchemy reads it from the class)
        dict[str, Any]: JSON,
        list[int]: JSON,
        list[dict[str, Any]]: JSON,
        datetime: UtcDateTime,
        float: Double,
    }


class User(Base):
    """Somebody who has models, data sets and jobs, and may have so many: ``null`` is no limit."""

    __tablename__ = "users"

    name: Mapped[str] = mapped_column(String(USER_LENGTH), primary_key=True)
    max_jobs: Mapped[int | None] = mapped_column(Integer)
    max_trials: Mapped[int | None] = mapped_column(BigInteger)
    max_bytes: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class ApiKey(Base):
    """What a user calls with. ``sha256`` is of its secret, which is kept nowhere; a revoked key's row stays for the record."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    user: Mapped[str] = mapped_column(ForeignKey("users.name"))
    name: Mapped[str] = mapped_column(String(NAME_LENGTH))
    scope: Mapped[str] = mapped_column(String(20))
    sha256: Mapped[str] = mapped_column(String(SHA256_LENGTH))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class AuditEntry(Base):
    """A call that was to change something: whose, from where, and what it was answered. It refers to nothing: it lasts."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    at: Mapped[datetime] = mapped_column(default=utc_now)
    user: Mapped[str] = mapped_column(String(USER_LENGTH))
    key_id: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    address: Mapped[str | None] = mapped_column(Text)
    method: Mapped[str] = mapped_column(String(10))
    path: Mapped[str] = mapped_column(Text)
    status: Mapped[int] = mapped_column(Integer)
    made: Mapped[str | None] = mapped_column(Text)
    request_id: Mapped[str] = mapped_column(String(NAME_LENGTH))


class Owned:
    """Rows of one user's, which no other user's session finds: ``service.database.engine`` sees to that."""

    owner: Mapped[str] = mapped_column(ForeignKey("users.name"), server_default=ADMIN)


class Uploaded(Owned):
    """Columns of what a user uploads: a name, the file in the store, and what its inspection found."""

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(SHA256_LENGTH))
    size: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str] = mapped_column(String(NAME_LENGTH))
    inspection: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Model(Uploaded, Base):
    """A trained network; ``inspection`` as ``workers.inspection.inspect_model`` returns it."""

    __tablename__ = "models"
    __table_args__ = (UniqueConstraint("owner", "sha256", name="uq_models_owner"),)


class Dataset(Uploaded, Base):
    """Inputs and labels; ``inspection`` as ``workers.formats.convert.convert`` returns it.

    With it goes ``arrays``: the sha256 of the file of arrays in the store, which is what jobs read.
    """

    __tablename__ = "datasets"
    __table_args__ = (UniqueConstraint("owner", "sha256", name="uq_datasets_owner"),)


class Job(Owned, Base):
    """A request to prune a model, and how far it has come. Its state changes in ``service.jobs.states`` alone.

    ``attempt`` is the fencing token: it grows with each process that is started for the job, and only the newest may
    write. ``losses`` counts the processes lost since a trial was last told. ``sequence`` numbers the job's asks and tells.
    ``kept`` has the figures of all networks that it kept, ``best`` first; null in jobs that ended before there were others.
    ``stop_asked``: no trial is to start any more, whatever becomes of the process. ``scoring`` is the ``SCORING`` that its
    trials are scored by. ``times`` are the milliseconds that ``workers.latency`` measured for a budget of them; before that is
    done, ``budget_limit``, in the units of the budget's cost, is null. ``message`` is the last line that it said about its
    work. ``webhook`` has ``url``, ``secret`` and ``events``, as they were sent; its secret is never shown.
    """

    __tablename__ = "jobs"
    __table_args__ = (Index("ix_jobs_owner_id", "owner", "id"),)

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    name: Mapped[str] = mapped_column(String(NAME_LENGTH))
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    spec: Mapped[dict[str, Any]]
    budget_limit: Mapped[int | None] = mapped_column(BigInteger)
    times: Mapped[list[float] | None] = mapped_column(JSON(none_as_null=True))
    planned_trials: Mapped[int] = mapped_column(BigInteger)
    scoring: Mapped[int] = mapped_column(Integer, default=SCORING, server_default="1")
    state: Mapped[str] = mapped_column(String(20), index=True)
    reason: Mapped[str | None] = mapped_column(Text)
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    losses: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    stop_asked: Mapped[bool] = mapped_column(default=False, server_default=false())
    sequence: Mapped[int] = mapped_column(Integer, default=0)
    message: Mapped[str | None] = mapped_column(Text)
    webhook: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    baseline: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    best: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    kept: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class IdempotencyKey(Base):
    """An ``Idempotency-Key`` that a user sent, by what its request says, and the job that it made."""

    __tablename__ = "idempotency_keys"

    owner: Mapped[str] = mapped_column(ForeignKey("users.name"), primary_key=True)
    key: Mapped[str] = mapped_column(String(KEY_LENGTH), primary_key=True)
    request_sha256: Mapped[str] = mapped_column(String(SHA256_LENGTH))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Attempt(Base):
    """A process that a job was given, or is to be given, and what was last heard of it, on the database's clock.

    ``cluster`` names the Ray that runs it; the dispatchers of that Ray look after it, others only once its lease is over.
    ``process`` is the one that claimed the attempt, for good: host, process id and a random part; null until then.
    ``searching_at`` is when its search began. ``seen_at`` is its last sign of life, from which its lease runs; before it
    claimed the attempt, when that began.
    ``writes`` counts what it wrote, so that a write whose commit was not confirmed is made once.
    """

    __tablename__ = "attempts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    cluster: Mapped[str] = mapped_column(Text)
    process: Mapped[str | None] = mapped_column(Text)
    began_at: Mapped[datetime]
    searching_at: Mapped[datetime | None]
    seen_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    reason: Mapped[str | None] = mapped_column(Text)
    writes: Mapped[int] = mapped_column(Integer, default=0)


class Trial(Base):
    """One proposal and what came of it; ``number`` is the proposal's id, ``widths`` are the searcher's own.

    Sequences number the entries of a job's record; a trial that an earlier job gave is one entry, its ask and its tell at once.
    ``size_bytes`` is null in trials from before it was a cost; no budget of theirs asked for it. ``latency_ns`` is foretold, in
    jobs whose budget is milliseconds. ``parent`` is the number of
    the trial that this one started from, null for the dense network; ``training`` has ``schedule``, ``params`` and
    ``retrain``, null for a bare cut. ``metric_drop`` is the outcome's ``drop``. ``losses`` tells of each worker that was lost
    with it: ``at``, ``attempt``, ``reason``.
    """

    __tablename__ = "trials"
    __table_args__ = (
        # Holds all that ``service.jobs.summary`` reads, so that it never reads the plans beside them.
        Index("ix_trials_summary", "job_id", "state", "score", "number", "metric", "macs", "params", "size_bytes"),
        Index("ix_trials_told", "job_id", "told_sequence"),  # those told since somebody looked
        Index("ix_trials_state_seconds", "state", "evaluate_seconds"),  # likewise for ``service.metrics``
    )

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    state: Mapped[str] = mapped_column(String(20))
    note: Mapped[str] = mapped_column(Text)
    widths: Mapped[list[int]]
    parent: Mapped[int | None] = mapped_column(Integer)
    training: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    plan: Mapped[dict[str, Any]]
    macs: Mapped[int] = mapped_column(BigInteger)
    params: Mapped[int] = mapped_column(BigInteger)
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    latency_ns: Mapped[int | None] = mapped_column(BigInteger)
    score: Mapped[float | None]
    metric: Mapped[float | None]
    metric_drop: Mapped[float | None]
    error: Mapped[str | None] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    losses: Mapped[list[dict[str, Any]]] = mapped_column(default=list, server_default="[]")
    asked_sequence: Mapped[int] = mapped_column(Integer)
    told_sequence: Mapped[int | None] = mapped_column(Integer)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    evaluate_seconds: Mapped[float | None]
    node: Mapped[str | None] = mapped_column(Text)
    pid: Mapped[int | None] = mapped_column(Integer)

    @property
    def given(self) -> bool:
        """Whether an earlier job gave it."""
        return self.told_sequence == self.asked_sequence


class Checkpoint(Base):
    """One downloadable form of a trial's network, in the store; ``metric`` is null where it is the network's own."""

    __tablename__ = "checkpoints"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    trial: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    format: Mapped[str] = mapped_column(String(20), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(SHA256_LENGTH))
    size: Mapped[int] = mapped_column(BigInteger)
    metric: Mapped[float | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Event(Base):
    """Something that happened to a job; ids grow, so a reader resumes after the last it has seen."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_job_id_id", "job_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    type: Mapped[str] = mapped_column(String(20))
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Delivery(Base):
    """An event that its job's webhook is still to be told; gone once it was.

    ``due_at``: when the next try is to be made; while one is being made, when its lease ends. ``tries`` counts them.
    """

    __tablename__ = "deliveries"
    __table_args__ = (Index("ix_deliveries_job_id_event_id", "job_id", "event_id"),)

    event_id: Mapped[int] = mapped_column(ForeignKey("events.id"), primary_key=True, autoincrement=False)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    due_at: Mapped[datetime] = mapped_column(index=True)
    tries: Mapped[int] = mapped_column(Integer, default=0)
