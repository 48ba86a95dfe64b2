"""Schema, transactions and types of the database."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from service.database import Database
from service.database.migrate import upgrade
from service.database.tables import Base, Event, Job, Trial, new_id
from service.jobs.states import locked


def test_the_migrations_make_the_tables_that_the_code_expects(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "target_metadata": Base.metadata})
        assert compare_metadata(context, Base.metadata) == []


def test_upgrading_again_changes_nothing(database: Database, queued: str) -> None:
    upgrade(database)
    with database.read() as session:
        assert session.get_one(Job, queued).state == "queued"


def test_trials_of_the_first_tables_are_kept(database: Database, queued: str) -> None:
    with database.write() as session:
        common = {"state": "pending", "note": "", "widths": [1], "plan": {}, "macs": 1, "params": 1, "asked_sequence": 1}
        session.add(Trial(job_id=queued, number=0, **common))
    with database.engine.begin() as connection:
        for later in ("size_bytes", "parent", "training"):
            connection.execute(text(f"ALTER TABLE trials DROP COLUMN {later}"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    upgrade(database)
    with database.read() as session:
        trial = session.get_one(Trial, (queued, 0))
        assert (trial.macs, trial.size_bytes, trial.parent, trial.training) == (1, None, None, None)


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
