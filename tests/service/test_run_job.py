"""The job's process: what it hands to the workers, and how each kind of end is written."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from threading import Event

import pytest
from sqlalchemy.orm import Session

from pruners.errors import InvalidInput, JobFailed
from searchers.base import Proposal
from service.database import Database, DatabaseAway
from service.jobs.log import DatabaseLog
from service.jobs.repository import JobRepository
from service.jobs.states import State
from service.run_job import attempt
from service.store import FolderStore, StoreAway
from tests.service.doubles import DATA, MODEL
from workers.log import Artefact, Finished, JobLog, Measurement, Plan
from workers.spec import JobSpec

FIGURES = Measurement(metric=0.9, macs=10, params=10, size_bytes=10, latency_ms=1.0, latency_spread_ms=0.1, budget_ratio=1.0)


@pytest.fixture
def jobs(database: Database, store: FolderStore, queued: str) -> JobRepository:
    store.put([MODEL])
    store.put([DATA])
    jobs = JobRepository(database)
    jobs.start(queued, "fake", most=9)
    return jobs


def not_left() -> None:
    pytest.fail("the process was ended")


def finish(workdir: Path, log: JobLog) -> None:
    """One trial, and its network."""
    log.asked(Proposal(0, (1,)), Plan({}, {}, macs=1, params=1, size_bytes=1))
    log.finishing()
    (workdir / "net").write_bytes(b"net")
    log.succeeded(FIGURES, [Finished(0, FIGURES, [Artefact("pt2", workdir / "net")])])


def test_a_job_that_works_succeeds(
    database: Database, store: FolderStore, jobs: JobRepository, queued: str, tmp_path: Path
) -> None:
    def work(spec: JobSpec, model: Path, data: Path, workdir: Path, networks: Path, log: JobLog) -> None:
        assert spec.budget.ratio == 0.5
        assert (model.read_bytes(), data.read_bytes()) == (MODEL, DATA)
        assert list(workdir.iterdir()) == []
        networks.mkdir()
        log.running(3)
        finish(workdir, log)

    assert attempt(queued, 1, database, store, tmp_path, work, not_left) == 0
    assert jobs.get(queued).state == State.SUCCEEDED
    card, kept = jobs.checkpoints(queued)
    assert card.format == "card"
    assert store.path(kept.sha256).read_bytes() == b"net"
    assert list((tmp_path / "jobs").iterdir()) == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (JobFailed("No network within the budget was found."), "No network within the budget was found."),
        (InvalidInput("budget.ratio", 0.1, "is out of reach"), "budget.ratio 0.1 is out of reach."),
        (
            KeyError("a secret detail"),
            "The job met an error of the service's own (KeyError); its Ray log has the details.",
        ),
    ],
)
def test_a_job_that_fails_says_why(
    database: Database, store: FolderStore, jobs: JobRepository, queued: str, tmp_path: Path, error: Exception, reason: str
) -> None:
    def work(spec: JobSpec, model: Path, data: Path, workdir: Path, networks: Path, log: JobLog) -> None:
        log.running(3)
        raise error

    assert attempt(queued, 1, database, store, tmp_path, work, not_left) == 1
    assert (jobs.get(queued).state, jobs.get(queued).reason) == (State.FAILED, reason)
    assert list((tmp_path / "jobs").iterdir()) == []


def test_a_process_whose_job_was_cancelled_leaves_it_so(
    database: Database, store: FolderStore, jobs: JobRepository, queued: str, tmp_path: Path
) -> None:
    def work(spec: JobSpec, model: Path, data: Path, workdir: Path, networks: Path, log: JobLog) -> None:
        log.running(3)
        jobs.cancel(queued)
        raise RuntimeError("stopped half-way")

    assert attempt(queued, 1, database, store, tmp_path, work, not_left) == 1
    assert jobs.get(queued).state == State.CANCELLING


def test_an_attempt_that_was_replaced_does_no_work(
    database: Database, store: FolderStore, jobs: JobRepository, queued: str, tmp_path: Path
) -> None:
    def work(spec: JobSpec, model: Path, data: Path, workdir: Path, networks: Path, log: JobLog) -> None:
        log.running(3)
        pytest.fail("it went on after it was refused")

    left = tmp_path / "jobs" / queued / "networks"  # by the attempt that goes on
    left.mkdir(parents=True)
    assert attempt(queued, 0, database, store, tmp_path, work, not_left) == 1
    assert jobs.get(queued).state == State.STARTING
    assert list((tmp_path / "jobs" / queued).iterdir()) == [left]


def test_a_process_leaves_when_its_job_does_not_want_it(
    database: Database, store: FolderStore, jobs: JobRepository, queued: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.heartbeat.LOOK_SECONDS", 0.001)
    left = Event()

    def work(spec: JobSpec, model: Path, data: Path, workdir: Path, networks: Path, log: JobLog) -> None:
        log.running(3)
        jobs.pause(queued)
        assert left.wait(60), "while the work goes on and writes nothing"

    assert attempt(queued, 1, database, store, tmp_path, work, left.set) == 0


def test_the_lease_is_kept_while_nothing_is_written(
    database: Database, store: FolderStore, jobs: JobRepository, queued: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.heartbeat.LOOK_SECONDS", 0.001)
    monkeypatch.setattr("service.heartbeat.BEAT_SECONDS", 0.0)

    def work(spec: JobSpec, model: Path, data: Path, workdir: Path, networks: Path, log: JobLog) -> None:
        log.running(3)
        (before,) = jobs.attempts(queued)
        while jobs.attempts(queued)[0].seen_at == before.seen_at:
            pass

    assert attempt(queued, 1, database, store, tmp_path, work, not_left) == 0


def test_what_a_killed_attempt_left_is_cleared_away(
    database: Database, store: FolderStore, jobs: JobRepository, queued: str, tmp_path: Path
) -> None:
    folder = tmp_path / "jobs" / queued
    (folder / "attempt-1").mkdir(parents=True)
    (folder / "networks").mkdir()
    jobs.lost(queued, 1, "It was killed.", "fake")

    def work(spec: JobSpec, model: Path, data: Path, workdir: Path, networks: Path, log: JobLog) -> None:
        assert sorted(path.name for path in folder.iterdir()) == ["attempt-2", "networks"]

    assert attempt(queued, 2, database, store, tmp_path, work, not_left) == 0


@pytest.mark.parametrize("harm", ["changed", "gone"])
def test_a_job_whose_file_is_damaged_says_so(
    database: Database, store: FolderStore, jobs: JobRepository, queued: str, tmp_path: Path, harm: str
) -> None:
    path = store.path(sha256(DATA).hexdigest())
    path.write_bytes(b"other bytes") if harm == "changed" else path.unlink()
    assert attempt(queued, 1, database, store, tmp_path, lambda *_: pytest.fail("it was used"), not_left) == 1
    assert "upload it again" in (jobs.get(queued).reason or "")


def test_a_full_disk_is_the_reason(
    database: Database, store: FolderStore, jobs: JobRepository, queued: str, tmp_path: Path
) -> None:
    def work(spec: JobSpec, model: Path, data: Path, workdir: Path, networks: Path, log: JobLog) -> None:
        log.running(3)
        raise OSError(errno.ENOSPC, "No space left on device", str(workdir))

    assert attempt(queued, 1, database, store, tmp_path, work, not_left) == 1
    job = jobs.get(queued)
    assert (job.state, job.reason) == (
        State.FAILED,
        "The disk of the job's files is full; free some space and submit the job again.",
    )


def test_a_database_that_is_away_for_too_long_does_not_fail_the_job(
    database: Database, store: FolderStore, jobs: JobRepository, queued: str, tmp_path: Path
) -> None:
    def work(spec: JobSpec, model: Path, data: Path, workdir: Path, networks: Path, log: JobLog) -> None:
        log.running(3)
        raise DatabaseAway("gone for an hour")

    assert attempt(queued, 1, database, store, tmp_path, work, not_left) == 1
    assert jobs.get(queued).state == State.RUNNING, "until its dispatcher begins another attempt"


def test_a_process_begins_though_its_database_is_away_for_a_moment(
    database: Database, store: FolderStore, jobs: JobRepository, queued: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.jobs.log._FIRST_WAIT", 0.001)
    left = [True, False, True, True]
    session = database.read

    @contextmanager
    def flaky() -> Iterator[Session]:
        if left and left.pop():
            raise DatabaseAway("gone")
        with session() as found:
            yield found

    monkeypatch.setattr(database, "read", flaky)
    began = []
    attempt(queued, 1, database, store, tmp_path, lambda *_: began.append(1), not_left)
    assert began == [1]


@pytest.mark.parametrize("call", ["verified", "put_file"])
def test_a_job_waits_for_a_store_that_is_away_for_a_moment(
    database: Database,
    store: FolderStore,
    jobs: JobRepository,
    queued: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
) -> None:
    monkeypatch.setattr("service.jobs.log._FIRST_WAIT", 0.001)
    away, ask = [1, 2, 3], getattr(store, call)

    def flaky(argument: object) -> object:
        if away:
            away.pop()
            raise StoreAway("gone")
        return ask(argument)

    def work(spec: JobSpec, model: Path, data: Path, workdir: Path, networks: Path, log: JobLog) -> None:
        log.running(3)
        finish(workdir, log)

    monkeypatch.setattr(store, call, flaky)
    assert attempt(queued, 1, database, store, tmp_path, work, not_left) == 0
    assert away == []
    assert jobs.get(queued).state == State.SUCCEEDED


def test_a_store_that_is_away_for_too_long_does_not_fail_the_job(
    database: Database, store: FolderStore, jobs: JobRepository, queued: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: str) -> Path:
        raise StoreAway("gone for an hour")

    monkeypatch.setattr("service.jobs.log.OUTAGE_SECONDS", 0)
    monkeypatch.setattr(store, "verified", gone)
    assert attempt(queued, 1, database, store, tmp_path, lambda *_: pytest.fail("it began"), not_left) == 1
    assert jobs.get(queued).state == State.STARTING, "until its dispatcher begins another attempt"


def test_a_process_is_not_ended_for_having_ended_its_job(
    database: Database, store: FolderStore, jobs: JobRepository, queued: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.heartbeat.LOOK_SECONDS", 0.001)
    ended, looked, look = Event(), Event(), DatabaseLog.check_wanted

    def seen(log: DatabaseLog) -> None:
        after = ended.is_set()
        look(log)
        if after:
            looked.set()

    def work(spec: JobSpec, model: Path, data: Path, workdir: Path, networks: Path, log: JobLog) -> None:
        log.running(3)
        log.finishing()
        log.succeeded(FIGURES, [Finished(0, FIGURES, [])])
        ended.set()
        assert looked.wait(60)

    monkeypatch.setattr(DatabaseLog, "check_wanted", seen)
    assert attempt(queued, 1, database, store, tmp_path, work, not_left) == 0
