"""Schema, transactions and types of the database."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError

from searchers.base import Asked, Outcome, Proposal, Told
from service.database import Database, DatabaseAway, migrations
from service.database.migrate import upgrade
from service.database.tables import Base, Event, Job, Model, new_id
from service.jobs.log import DatabaseLog
from service.jobs.repository import JobRepository, Once
from service.jobs.states import locked
from service.jobs.views import job_view
from service.problems import StorageFull
from service.store import FolderStore
from tests.postgres import Postgres
from tests.service.doubles import a_job
from workers.log import Worker


def test_the_migrations_make_the_tables_that_the_code_expects(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "target_metadata": Base.metadata})
        assert compare_metadata(context, Base.metadata) == []


def test_upgrading_again_changes_nothing(database: Database, queued: str) -> None:
    upgrade(database)
    with database.read() as session:
        assert session.get_one(Job, queued).state == "queued"


SCHEMAS = sorted((Path(__file__).parent / "schemas").glob("*.sql"))
"""Databases as earlier versions left them: what SQLite's ``.dump`` printed."""


def test_there_is_a_database_of_every_earlier_version() -> None:
    versions = Path(migrations.__file__).parent / "versions"
    revisions = sorted(path.stem[1:5] for path in versions.glob("m0*.py"))
    assert [schema.stem for schema in SCHEMAS] == revisions[:-1]


@pytest.fixture(params=SCHEMAS, ids=lambda path: path.stem)
def old(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> Iterator[Database]:
    """A database of an earlier version. Only SQLite had any; PostgreSQL gets that version's tables and the same rows."""
    schema: Path = request.param
    if kind == "sqlite":
        path = tmp_path / "old.db"
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(schema.read_text())
        database = Database(f"sqlite:///{path}")
    else:
        server: Postgres = request.getfixturevalue("postgresql")
        database = Database(server.url(server.database()))
        upgrade(database, schema.stem)
        rows = [line for line in schema.read_text().splitlines() if line.startswith("INSERT INTO")]
        parents = ("users", "models", "datasets", "jobs")  # first, since references are checked row by row
        rows.sort(key=lambda row: [row.split('"')[1] == table for table in parents], reverse=True)
        with database.engine.begin() as connection:
            for row in rows:
                if "alembic_version" not in row and "INTO \"users\" VALUES('admin'" not in row:  # migrations wrote these
                    connection.exec_driver_sql(row)
            connection.execute(text("SELECT setval(pg_get_serial_sequence('events', 'id'), 100)"))
    yield database
    database.close()


def test_a_database_of_an_earlier_version_is_upgraded_and_goes_on(old: Database, store: FolderStore) -> None:
    upgrade(old)
    jobs = JobRepository(old)
    by_name = {job.name: job for job in jobs.page(10, None)[0]}
    views = {name: job_view(job, jobs.summaries_of([job])[job.id]) for name, job in by_name.items()}
    assert [views[f"job {number}"].state for number in (1, 2, 3, 4)] == ["succeeded", "running", "queued", "failed"]
    best = views["job 1"].best
    assert best is not None
    assert (best.trial, best.macs, views["job 1"].counts.succeeded) == (0, 70_000, 1)
    assert jobs.made_by(Once("key-1", "c" * 64)) is not None
    assert [kept.format for kept in jobs.checkpoints("job-1")] == ["pt2"]
    ((live, attempt, silence),) = jobs.live()
    assert attempt.number == 1
    assert silence > timedelta(seconds=60), "nobody has heard of it since"
    again = jobs.lost(live.id, live.attempt, "Its cluster was lost.", "here")
    assert again is not None
    log = DatabaseLog(old, store, again.id, again.attempt)
    first, second = Proposal(0, (8, 8), "trial 0"), Proposal(1, (8, 8), "trial 1")
    assert list(log.record()) == [Asked(first), Asked(second), Told(0, Outcome(-0.125, 0.9))]
    log.running(20)
    log.started(1)
    log.told(1, Outcome(-0.5, 0.8), 0.1, Worker("node", 12))
    trial = jobs.trial(again.id, 1)
    assert (trial.state, trial.attempts) == ("succeeded", 2)
    started = jobs.start("job-3", "here", most=9)
    assert started is not None
    assert started.attempt == 1


def test_a_folder_with_a_percent_sign_works(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / '100% new' / 'x.db'}")
    upgrade(database)
    database.check()
    database.close()


def test_concurrent_writers_wait_their_turn(database: Database, queued: str) -> None:
    def read_then_write(_: int) -> None:
        with database.write() as session:
            locked(session, queued).sequence += 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read_then_write, range(200)))
    with database.read() as session:
        assert session.get_one(Job, queued).sequence == 200


def test_an_exception_undoes_the_transaction(database: Database, queued: str) -> None:
    def interrupted() -> None:
        with database.write() as session:
            locked(session, queued).sequence = 7
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    with database.read() as session:
        assert session.get_one(Job, queued).sequence == 0


def test_references_are_enforced(database: Database) -> None:
    with pytest.raises(IntegrityError), database.write() as session:
        session.add(Event(job_id="job-none", type="state", data={}))


def test_moments_come_back_in_utc(database: Database, queued: str) -> None:
    moment = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=9)))
    with database.write() as session:
        locked(session, queued).started_at = moment
    with database.read() as session:
        stored = session.scalars(select(Job.started_at)).one()
    assert stored == moment
    assert stored is not None
    assert stored.tzinfo is UTC


def test_ids_sort_by_age() -> None:
    ids = [new_id("job") for _ in range(1000)]
    assert ids == sorted(set(ids))


def test_processes_that_start_at_once_upgrade_once(postgresql: Postgres) -> None:
    url = postgresql.url(postgresql.database())

    def start(_: int) -> tuple[str | None, str | None]:
        database = Database(url)
        try:
            return upgrade(database)
        finally:
            database.close()

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(start, range(4)))
    assert sorted(before is None for before, _ in done) == [False, False, False, True]


def test_a_connection_that_the_server_ends_is_the_database_away(postgresql: Postgres) -> None:
    database = Database(postgresql.url(postgresql.database(template="migrated")))

    def interrupted() -> None:
        with database.write() as session, postgresql.connect() as other:
            pid = session.scalar(select(func.pg_backend_pid()))
            other.execute("SELECT pg_terminate_backend(%s)", [pid])
            session.scalar(select(Job.id))

    with pytest.raises(DatabaseAway, match="does not answer"):
        interrupted()
    database.check()
    database.close()


def test_a_server_without_a_free_slot_is_the_database_away(postgresql: Postgres) -> None:
    database = Database(postgresql.url(postgresql.database(template="migrated")))
    with ExitStack() as taken:
        with suppress(psycopg.OperationalError):
            while True:
                taken.enter_context(postgresql.connect())
        with pytest.raises(DatabaseAway, match="does not answer"):
            database.check()
    database.check()
    database.close()


def test_a_connection_that_is_in_use_when_the_rest_is_closed_is_closed_afterwards(database_url: str) -> None:
    database = Database(database_url)
    with database.engine.connect() as connection:
        used = connection.connection.dbapi_connection
        assert used is not None
        database.close()
        assert connection.scalar(text("SELECT 1")) == 1
    with pytest.raises((sqlite3.ProgrammingError, psycopg.OperationalError), match="closed"):
        used.cursor().execute("SELECT 1")


def test_a_full_disk_is_said_to_be_full(tmp_path: Path, migrated: Path) -> None:
    shutil.copy(migrated, tmp_path / "x.db")
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")

    def fill() -> None:
        with database.write() as session:
            session.execute(text("PRAGMA max_page_count = 1"))  # of this connection: the file may not grow
            session.add_all(a_job(spec={"text": "x" * 100_000})[:2])
            session.flush()
            session.add(Model(id="model-big", sha256="f" * 64, size=1, name="n", inspection={"text": "x" * 1_000_000}))

    with pytest.raises(StorageFull, match="free some space"):
        fill()
    database.close()
