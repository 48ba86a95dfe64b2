"""The job's process: what it hands to the workers, and how each kind of end is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from pruners.errors import InvalidInput, JobFailed
from service.database import Database
from service.jobs.repository import JobRepository
from service.jobs.states import State
from service.run_job import attempt
from service.store import Store
from workers.log import Artefact, JobLog, Measurement
from workers.spec import JobSpec

FIGURES = Measurement(metric=0.9, macs=10, params=10, size_bytes=10, latency_ms=1.0, budget_ratio=1.0)


@pytest.fixture
def jobs(database: Database, queued: str) -> JobRepository:
    jobs = JobRepository(database)
    jobs.start(queued)
    return jobs


def test_a_job_that_works_succeeds(database: Database, store: Store, jobs: JobRepository, queued: str, tmp_path: Path) -> None:
    def work(spec: JobSpec, model: Path, data: Path, workdir: Path, networks: Path, log: JobLog) -> None:
        assert spec.budget.ratio == 0.5
        assert (model, data) == (store.path("a" * 64), store.path("b" * 64))
        assert list(workdir.iterdir()) == []
        networks.mkdir()
        log.running(3)
        (workdir / "net").write_bytes(b"net")
        log.finishing()
        log.succeeded(0, FIGURES, FIGURES, [Artefact("pt2", workdir / "net")])

    assert attempt(queued, 1, database, store, tmp_path, work) == 0
    assert jobs.get(queued).state == State.SUCCEEDED
    (kept,) = jobs.checkpoints(queued)
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
    database: Database, store: Store, jobs: JobRepository, queued: str, tmp_path: Path, error: Exception, reason: str
) -> None:
    def work(spec: JobSpec, model: Path, data: Path, workdir: Path, networks: Path, log: JobLog) -> None:
        log.running(3)
        raise error

    assert attempt(queued, 1, database, store, tmp_path, work) == 1
    assert (jobs.get(queued).state, jobs.get(queued).reason) == (State.FAILED, reason)
    assert list((tmp_path / "jobs").iterdir()) == []


def test_a_process_whose_job_was_cancelled_leaves_it_so(
    database: Database, store: Store, jobs: JobRepository, queued: str, tmp_path: Path
) -> None:
    def work(spec: JobSpec, model: Path, data: Path, workdir: Path, networks: Path, log: JobLog) -> None:
        log.running(3)
        jobs.cancel(queued)
        raise RuntimeError("stopped half-way")

    assert attempt(queued, 1, database, store, tmp_path, work) == 1
    assert jobs.get(queued).state == State.CANCELLING


def test_an_attempt_that_was_replaced_does_no_work(
    database: Database, store: Store, jobs: JobRepository, queued: str, tmp_path: Path
) -> None:
    def work(spec: JobSpec, model: Path, data: Path, workdir: Path, networks: Path, log: JobLog) -> None:
        log.running(3)
        pytest.fail("it went on after it was refused")

    left = tmp_path / "jobs" / queued / "networks"  # by the attempt that goes on
    left.mkdir(parents=True)
    assert attempt(queued, 0, database, store, tmp_path, work) == 1
    assert jobs.get(queued).state == State.STARTING
    assert list((tmp_path / "jobs" / queued).iterdir()) == [left]
