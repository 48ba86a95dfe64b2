"""The running job's log on the tables: order of the record, fencing, and what the API shows of it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from searchers.base import Asked, Outcome, Proposal, Told, Training
from service.app import create_app
from service.context import Context
from service.database import Database, DatabaseAway
from service.database.tables import ADMIN, Attempt
from service.dispatcher import Dispatcher
from service.jobs import shown, summary
from service.jobs.log import DatabaseLog, NotWanted, patiently
from service.jobs.repository import JobRepository
from service.jobs.states import State, locked, move
from service.jobs.views import trial_view
from service.problems import NotFound
from service.store import FolderStore
from tests.service.doubles import TOKEN, FakeInspect, FakeRay, make_settings
from workers.card import Card
from workers.log import Artefact, Finished, JobLog, Measurement, Plan, Worker
from workers.spec import JobSpec

DENSE = Measurement(
    metric=0.98, macs=160_000, params=2_000, size_bytes=40_000, latency_ms=1.0, latency_spread_ms=0.1, budget_ratio=1.0
)
BEST = Measurement(
    metric=0.97, macs=40_000, params=900, size_bytes=20_000, latency_ms=0.5, latency_spread_ms=0.1, budget_ratio=0.25
)
WORKER = Worker("node-1", 4711)


def plan(macs: int = 1000) -> Plan:
    return Plan(widths={"conv1": 8}, sparsity={"conv1": 0.5}, macs=macs, params=500, size_bytes=2040)


def started(database: Database, job_id: str) -> int:
    job = JobRepository(database).start(job_id, "fake", most=9)
    assert job is not None
    return job.attempt


@pytest.fixture
def log(database: Database, store: FolderStore, queued: str) -> DatabaseLog:
    log = DatabaseLog(database, store, queued, started(database, queued))
    log.running(20)
    return log


@pytest.mark.parametrize("ticks", [None, 0.0, 0.3], ids=["each at once", "all in the end", "together"])
@pytest.mark.parametrize("seed", range(3))
def test_the_record_keeps_the_order_of_asks_and_tells(log: DatabaseLog, seed: int, ticks: float | None) -> None:
    with nullcontext() if ticks is None else log.together():
        expected = happening(log, random.Random(seed), ticks or 0.0)
    assert list(log.record()) == expected  # floats too: replay compares for equality


def happening(log: DatabaseLog, rng: random.Random, ticks: float) -> list[Asked | Told]:
    """Thirty trials, and a tick behind a call with this probability."""
    expected: list[Asked | Told] = []
    pending: list[int] = []
    for number in range(30):
        parent = rng.choice([None, *range(number)])
        training = rng.choice([None, Training("admm", (("rho", rng.random()), ("epochs", 2))), Training("agp", retrain=3)])
        proposal = Proposal(number, (rng.randint(1, 16), 2), f"round {number}: ⊕", parent, training)
        log.asked(proposal, plan())
        expected.append(Asked(proposal))
        pending.append(number)
        while pending and rng.random() < 0.5:
            told = pending.pop(rng.randrange(len(pending)))
            log.started(told)
            failed = rng.random() < 0.2
            outcome = Outcome(None, None, "It died.") if failed else Outcome(-rng.random() / 3, rng.random())
            log.told(told, outcome, None if failed else 0.1, None if failed else WORKER)
            expected.append(Told(told, outcome))
            if rng.random() < ticks:
                log.tick()
                log.tick()
                assert list(log.record()) == expected
    return expected


def test_what_comes_close_together_is_written_at_the_first_quiet_tick(
    log: DatabaseLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (Proposal(number, (1,)) for number in range(3))
    with log.together():
        log.asked(first, plan())
        log.tick()
        log.asked(second, plan())
        log.tick()
        assert log.record() == []
        log.tick()
        assert list(log.record()) == [Asked(first), Asked(second)]
        monkeypatch.setattr("service.jobs.log._HELD_SECONDS", -1.0)  # it waited for too long: nothing is ever quiet
        log.asked(third, plan())
        log.tick()
        assert list(log.record()) == [Asked(first), Asked(second), Asked(third)]


def test_other_calls_write_what_waits_before_them(log: DatabaseLog, database: Database, queued: str) -> None:
    with log.together():
        log.asked(Proposal(0, (1,)), plan())
        log.started(0)
        log.finishing()
        events, _ = JobRepository(database).events(queued, 500, None)
    assert [event.data["state"] for event in events][-3:] == ["pending", "running", "finishing"]


def test_a_process_that_dies_loses_the_last_moment_alone(log: DatabaseLog) -> None:
    first = Proposal(0, (1,))

    def die() -> None:
        with log.together():
            log.asked(first, plan())
            log.settle()
            log.told(0, Outcome(0.5), 1.0, WORKER)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        die()
    assert list(log.record()) == [Asked(first)]
    log.told(0, Outcome(0.5), 1.0, WORKER)  # by the next attempt, say
    assert list(log.record()) == [Asked(first), Told(0, Outcome(0.5))]


def test_moments_are_those_of_the_calls(
    log: DatabaseLog, database: Database, queued: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr("service.jobs.log.time.monotonic", lambda: clock[0])
    with log.together():
        log.asked(Proposal(0, (1,)), plan())
        log.started(0)
        clock[0] += 7
        log.told(0, Outcome(0.5), 7.0, WORKER)
        clock[0] += 5
    trial = JobRepository(database).trial(queued, 0)
    assert trial.started_at is not None
    assert trial.finished_at is not None
    assert (trial.finished_at - trial.started_at).total_seconds() == pytest.approx(7, abs=1)


def test_another_process_reads_the_same_record(log: DatabaseLog, database: Database, store: FolderStore, queued: str) -> None:
    log.asked(Proposal(0, (3, 4), "first"), plan())
    assert list(DatabaseLog(database, store, queued, 2).record()) == [Asked(Proposal(0, (3, 4), "first"))]


WRITES: list[Callable[[JobLog], Any]] = [
    lambda log: log.asked(Proposal(1, (1,)), plan()),
    lambda log: log.started(0),
    lambda log: log.told(0, Outcome(0.5), 1.0, WORKER),
    lambda log: log.finishing(),
    lambda log: log.progress("epoch 1"),
    lambda log: log.succeeded(DENSE, [Finished(0, BEST, [])]),
    lambda log: log.failed("no"),  # type: ignore[attr-defined]
]


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("why", ["older attempt", "cancelling", "failed"])
def test_a_process_that_is_not_wanted_changes_nothing(
    log: DatabaseLog, database: Database, queued: str, write: Callable[[JobLog], Any], why: str
) -> None:
    log.asked(Proposal(0, (1,)), plan())
    with database.write() as session:
        job = locked(session, queued)
        if why == "older attempt":
            job.attempt += 1
        else:
            move(session, job, State(why))
    before = snapshot(database, queued)
    with pytest.raises(NotWanted):
        write(log)
    assert snapshot(database, queued) == before
    with pytest.raises(NotWanted):
        together(log, write)
    assert snapshot(database, queued) == before


def together(log: DatabaseLog, *calls: Callable[[DatabaseLog], Any]) -> None:
    """The calls, written in the end."""
    with log.together():
        for call in calls:
            call(log)


def test_an_attempt_belongs_to_the_process_that_claimed_it(
    log: DatabaseLog, database: Database, store: FolderStore, queued: str
) -> None:
    """A head that died may have started a process for an attempt that was then submitted again to its successor."""
    log.claim("here", 1)
    other = DatabaseLog(database, store, queued, 1)
    with pytest.raises(NotWanted, match="belongs to another process, here 1 "):
        other.claim("there", 2)
    for write in WRITES:
        with pytest.raises(NotWanted, match="belongs to another process"):
            write(other)
    log.progress("mine")


class Flaky(Database):
    """Loses the connection at each transaction's end, once, behind its commit or before it."""

    def __init__(self, url: str, committed: bool) -> None:
        super().__init__(url)
        self.committed = committed
        self.lose = True

    @contextmanager
    def write(self) -> Iterator[Session]:
        lost, self.lose = self.lose, not self.lose
        with super().write() as session:
            yield session
            if lost and not self.committed:
                raise DatabaseAway("gone")
        if lost:
            raise DatabaseAway("gone")


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("committed", [True, False])
def test_a_write_whose_connection_is_lost_is_made_once(
    database_url: str,
    database: Database,
    store: FolderStore,
    queued: str,
    committed: bool,
    together: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.jobs.log.time.sleep", lambda _: None)
    number = started(database, queued)
    flaky = Flaky(database_url, committed)
    log = DatabaseLog(flaky, store, queued, number)
    log.claim("here", 1)
    log.running(20)
    with log.together() if together else nullcontext():
        log.asked(Proposal(0, (1,)), plan())
        log.started(0)
        log.lost(0, "Its worker was lost.")
        log.started(0)
        log.told(0, Outcome(0.5), 1.0, WORKER)
        log.progress("epoch 1")
    log.finishing()
    log.succeeded(DENSE, [Finished(0, BEST, [])])
    flaky.close()
    events, _ = JobRepository(database).events(queued, 500, None)
    assert [event.data.get("state") or event.data["message"] for event in events] == [
        *("starting", "running", "pending", "running", "pending", "running", "succeeded", "epoch 1", "finishing", "succeeded")
    ]
    trial = JobRepository(database).trial(queued, 0)
    assert (trial.attempts, len(trial.losses), trial.told_sequence) == (2, 1, 2)
    (attempt,) = JobRepository(database).attempts(queued)
    assert attempt.ended_at is not None


def test_an_outage_of_an_hour_ends_the_process(log: DatabaseLog, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = count(step=600)
    monkeypatch.setattr("service.jobs.log.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("service.jobs.log.time.sleep", lambda _: None)

    def away() -> None:
        raise DatabaseAway("gone")

    with pytest.raises(DatabaseAway):
        patiently(away)


def test_a_pausing_job_hears_what_is_finished_and_no_more(log: DatabaseLog, database: Database, queued: str) -> None:
    log.asked(Proposal(0, (1,)), plan())
    log.started(0)
    JobRepository(database).pause(queued)
    log.told(0, Outcome(0.5), 1.0, WORKER)
    for write in (WRITES[0], *WRITES[3:5], WRITES[6]):
        with pytest.raises(NotWanted):
            write(log)
    assert JobRepository(database).trial(queued, 0).state == "succeeded"


def test_a_pausing_job_keeps_what_happened_before_its_process_heard_of_it(
    log: DatabaseLog, database: Database, queued: str
) -> None:
    first, second = Proposal(0, (1,)), Proposal(1, (2,))
    log.asked(first, plan())
    with pytest.raises(NotWanted, match="is pausing"):
        together(
            log,
            lambda log: log.told(0, Outcome(0.5), 1.0, WORKER),
            lambda _: JobRepository(database).pause(queued),
            lambda log: log.asked(second, plan()),
        )
    assert list(log.record()) == [Asked(first), Told(0, Outcome(0.5)), Asked(second)]


def test_the_time_of_earlier_attempts_is_that_in_which_they_worked(
    log: DatabaseLog, database: Database, store: FolderStore, queued: str
) -> None:
    jobs = JobRepository(database)
    for number, (began, seen) in enumerate([(0, 100), (1000, 1040)], start=1):
        with database.write() as session:
            attempt = session.get_one(Attempt, (queued, number))
            attempt.searching_at, attempt.seen_at = (datetime.fromtimestamp(at, UTC) for at in (began, seen))
        jobs.lost(queued, number, "It was lost.", "fake")
    assert DatabaseLog(database, store, queued, 3).seconds_before() == pytest.approx(140)
    assert log.seconds_before() == 0


def test_lost_workers_are_told_of(log: DatabaseLog, database: Database, queued: str) -> None:
    log.asked(Proposal(0, (1,)), plan())
    log.started(0)
    log.lost(0, "Its worker was lost.")
    assert log.losses_before() == {0: 1}
    shown = trial_view(JobRepository(database).trial(queued, 0))
    assert (shown.state, shown.losses[0].attempt, shown.losses[0].reason) == ("pending", 1, "Its worker was lost.")


def snapshot(database: Database, job_id: str) -> list[Any]:
    jobs = JobRepository(database)
    job = jobs.get(job_id)
    events, _ = jobs.events(job_id, 500, None)
    trials, _ = jobs.trials(job_id, 500, None)
    return [job.state, job.sequence, job.best, len(events), [(t.number, t.state, t.told_sequence) for t in trials]]


def test_what_is_remembered_of_a_job_does_not_grow_while_it_is_watched(database: Database, log: DatabaseLog) -> None:
    jobs, places = JobRepository(database), set()
    for number in range(5):
        log.asked(Proposal(number, (1,)), plan())
        log.told(number, Outcome(0.1 * number), 1.0, WORKER)
        (job,) = jobs.page(1, None)[0]
        _, seen = jobs.get_with_summary(job.id)
        assert [trial.number for trial in seen.front] == [number]
        places.add(len(summary._remembered))
    assert len(places) == 1


def test_a_job_that_is_watched_is_shown_as_it_is_by_now_and_to_its_owner_alone(
    database: Database, log: DatabaseLog, queued: str
) -> None:
    dispatcher = Dispatcher(database, FakeRay(), 1)
    seen = []

    def look() -> None:
        seen.append(shown.shown(database.of(ADMIN), queued, dispatcher))
        assert shown.shown(database, queued, dispatcher) == seen[-1]
        shown._remembered.clear()
        assert shown.shown(database, queued, dispatcher) == seen[-1]
        with pytest.raises(NotFound):
            shown.shown(database.of("bob"), queued, dispatcher)

    look()
    log.asked(Proposal(0, (1,)), plan())
    look()
    log.started(0)
    look()
    log.told(0, Outcome(0.5), 1.0, WORKER)
    look()
    JobRepository(database).pause(queued)
    look()
    assert len(set(seen)) == len(seen)


def test_what_was_told_since_somebody_looked_adds_up_to_what_all_trials_do(database: Database, log: DatabaseLog) -> None:
    jobs, draw = JobRepository(database), np.random.default_rng(0)
    costs = draw.integers(75, 85, 40)  # around the limit; few of them and few scores, so that many are equal
    for number, cost in enumerate(costs):
        log.asked(Proposal(number, (number,)), plan(1000 * int(cost)))
    seen = []
    for number in map(int, draw.permutation(40)):
        score = None if number % 7 == 0 else float(costs[number] + draw.integers(4))
        log.told(number, Outcome(score, error="failed" if score is None else None), 1.0, WORKER)
        (job,) = jobs.page(1, None)[0]
        _, added = jobs.get_with_summary(job.id)
        summary._remembered.clear()
        _, anew = jobs.get_with_summary(job.id)
        assert added == anew
        seen.append(added)
    assert any(one.best is not None for one in seen)
    assert max(len(one.front) for one in seen) > 2


def test_a_trial_is_told_once_and_only_if_asked(log: DatabaseLog) -> None:
    log.asked(Proposal(0, (1,)), plan())
    log.told(0, Outcome(0.5), 1.0, WORKER)
    with pytest.raises(ValueError, match="told already"):
        log.told(0, Outcome(0.6), 1.0, WORKER)
    with pytest.raises(ValueError, match="never asked"):
        log.started(1)


@pytest.mark.parametrize("figure", [float("nan"), float("inf"), float("-inf")])
def test_a_figure_that_is_no_number_is_refused(log: DatabaseLog, figure: float) -> None:
    log.asked(Proposal(0, (1,)), plan())
    with pytest.raises(ValueError, match="trial 0"):
        log.told(0, Outcome(figure), 1.0, WORKER)


class Ended:
    """An API with one job whose log the test writes."""

    def __init__(self, client: TestClient, log: DatabaseLog, job: str, files: dict[str, bytes]) -> None:
        self.client, self.log, self.job, self.files = client, log, job, files

    def another(self, spec: str) -> tuple[str, DatabaseLog]:
        """One more job that runs, and its log."""
        files = {"model": b"model", "data": b"data"}
        job = self.client.post("/jobs", files=files, data={"job": spec}).json()["id"]
        context: Context = self.client.app.state.context  # type: ignore[attr-defined]
        return job, DatabaseLog(context.database, context.store, job, started(context.database, job))


@pytest.fixture
def finished(tmp_path: Path, database_url: str) -> Any:
    ray = FakeRay()
    ray.down = True
    app = create_app(make_settings(tmp_path / "data", database_url=database_url), inspect=FakeInspect(), ray=ray)
    with TestClient(app, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        files = {"model": b"model", "data": b"data"}
        body = '{"name": "my net!", "budget": {"metric": "macs", "max": 50000}}'
        job = client.post("/jobs", files=files, data={"job": body}).json()["id"]
        context: Context = app.state.context
        log = DatabaseLog(context.database, context.store, job, started(context.database, job))
        log.running(5)
        scores = [(90_000, -0.1), (49_000, -0.2), (40_000, -0.25), (45_000, -0.3)]
        for number, (macs, score) in enumerate(scores):
            log.asked(Proposal(number, (8, 16), f"trial {number}"), plan(macs))
            log.started(number)
            log.told(number, Outcome(score, 0.9 + score / 10), 0.5, WORKER)
        log.asked(Proposal(4, (1, 1), "last", parent=2, training=Training("admm", (("epochs", 2),))), plan(10))
        log.started(4)
        contents = {"pt2": b"p" * 1000, "safetensors": b"s", "recipe": b"{}"}
        for form, content in contents.items():
            (tmp_path / form).write_bytes(content)
        yield Ended(client, log, job, contents)


def succeed(finished: Ended, folder: Path) -> dict[str, Any]:
    finished.log.told(4, Outcome(None, None, "The network has no classes left."), None, None)
    finished.log.finishing()
    artefacts = [Artefact(form, folder / form) for form in finished.files]
    finished.log.succeeded(DENSE, [Finished(2, BEST, artefacts)])
    job: dict[str, Any] = finished.client.get(f"/jobs/{finished.job}").json()
    return job


def test_progress_while_running(finished: Ended) -> None:
    job = finished.client.get(f"/jobs/{finished.job}").json()
    assert job["state"] == "running"
    assert job["progress"] == {
        "planned": 5,
        "finished": 4,
        "succeeded": 4,
        "failed": 0,
        "running": 1,
        "best_trial": 1,  # trial 0 scores higher but is over the budget
        "best_score": -0.2,
        "best_metric": pytest.approx(0.88),
        "message": None,
    }
    assert job["counts"] == {"pending": 0, "running": 1, "succeeded": 4, "failed": 0}
    assert [point["trial"] for point in job["pareto"]] == [2, 1, 0]  # 3 costs more than 2 and scores less


def test_a_job_knows_how_many_share_its_cluster(finished: Ended) -> None:
    assert finished.log.jobs() == 1
    _, other = finished.another('{"budget": {"ratio": 0.5}}')
    assert finished.log.jobs() == other.jobs() == 2
    other.failed("It is of no use.")
    finished.client.post("/jobs", files={"model": b"model", "data": b"data"}, data={"job": '{"budget": {"ratio": 0.5}}'})
    assert finished.log.jobs() == 1, "nor does one count that waits"


def test_a_job_shows_what_it_said_last(finished: Ended) -> None:
    finished.log.progress("epoch 1")
    finished.log.progress("epoch 2")
    (listed,) = finished.client.get("/jobs").json()["items"]
    one = finished.client.get(f"/jobs/{finished.job}").json()
    assert listed["progress"]["message"] == one["progress"]["message"] == "epoch 2"


def test_progress_under_a_budget_of_bytes(finished: Ended) -> None:
    """Each trial takes 2040 bytes here."""
    job, log = finished.another('{"budget": {"metric": "size_bytes", "max": 5000}}')
    log.running(5)
    log.asked(Proposal(0, (8, 16)), plan(10**9))
    log.told(0, Outcome(-0.1, 0.9), 0.5, WORKER)
    shown = finished.client.get(f"/jobs/{job}").json()
    assert shown["progress"]["best_trial"] == 0
    assert [(point["trial"], point["size_bytes"]) for point in shown["pareto"]] == [(0, 2040)]


def test_progress_under_a_budget_of_weights(finished: Ended) -> None:
    """Whose cost no column holds: the weights that stay are in the plan."""
    spec = '{"budget": {"metric": "sparsity", "ratio": 0.5}, "pruner": {"name": "level"}, "searcher": {"name": "fixed"}}'
    job, log = finished.another(spec)
    log.running(4)
    for number, (weights, score) in enumerate([(2600, -0.01), (1000, -0.2), (1000, -0.1), (1200, -0.3)]):
        log.asked(Proposal(number, (8, 16)), replace(plan(), widths={"conv1": weights}))
        log.told(number, Outcome(score, 0.9), 0.5, WORKER)
    shown = finished.client.get(f"/jobs/{job}").json()
    assert shown["progress"]["best_trial"] == 2, "trial 0 keeps more than half of the weights"
    assert [point["trial"] for point in shown["pareto"]] == [2, 0]


def test_a_finished_job_shows_best_and_baseline(finished: Ended, tmp_path: Path) -> None:
    job = succeed(finished, tmp_path)
    assert job["state"] == "succeeded"
    assert job["best"] == {
        "trial": 2,
        "metric": 0.97,
        "macs": 40_000,
        "params": 900,
        "size_bytes": 20_000,
        "latency_ms": 0.5,
        "latency_spread_ms": 0.1,
        "budget_ratio": 0.25,
        "max_drop": None,
    }
    assert (job["baseline"]["trial"], job["baseline"]["macs"], job["baseline"]["budget_ratio"]) == (None, 160_000, 1.0)
    assert job["started_at"] < job["finished_at"]
    refused = finished.client.post(f"/jobs/{finished.job}/cancel")
    assert refused.status_code == 409
    assert "is succeeded and cannot become cancelling" in refused.json()["detail"]


def test_a_budget_of_milliseconds_is_known_once_it_is_timed(finished: Ended) -> None:
    """Until then no trial counts as within it; a later attempt finds the times."""
    job, log = finished.another('{"budget": {"metric": "latency_ms", "ratio": 0.5}}')
    assert log.times() is None
    assert finished.client.get(f"/jobs/{job}").json()["progress"]["best_trial"] is None
    log.timed([0.25, 0.5], 2_000_000, {})
    log.running(3)
    for number, (latency, score) in enumerate([(2_500_000, -0.1), (1_900_000, -0.3), (1_500_000, -0.4)]):
        log.asked(Proposal(number, (8, 16)), replace(plan(), latency_ns=latency))
        log.told(number, Outcome(score, 0.9), 0.5, WORKER)
    assert log.times() == [0.25, 0.5]
    shown = finished.client.get(f"/jobs/{job}").json()
    assert shown["progress"]["best_trial"] == 1, "trial 0 takes longer than 2 ms"
    assert [(point["trial"], point["latency_ms"]) for point in shown["pareto"]] == [(2, 1.5), (1, 1.9), (0, 2.5)]
    assert finished.client.get(f"/jobs/{job}/trials/1").json()["outcome"]["latency_ms"] == 1.9


def test_trials_show_proposal_and_outcome(finished: Ended, tmp_path: Path) -> None:
    succeed(finished, tmp_path)
    path = f"/jobs/{finished.job}/trials"
    first, last = finished.client.get(f"{path}/0").json(), finished.client.get(f"{path}/4").json()
    costs = {"macs": 90_000, "params": 500, "size_bytes": 2040}
    assert first["proposal"] == {"widths": {"conv1": 8}, "sparsity": {"conv1": 0.5}, **costs}
    assert first["outcome"] == {
        "score": -0.1,
        "metric": pytest.approx(0.89),
        **costs,
        "latency_ms": None,
        "error": None,
        "drop": None,
    }
    assert (first["parent"], first["training"]) == (None, None)
    assert (last["parent"], last["training"]) == (2, {"schedule": "admm", "params": {"epochs": 2}, "retrain": 0})
    assert (first["worker"], first["evaluate_seconds"], first["attempts"]) == ({"node": "node-1", "pid": 4711}, 0.5, 1)
    assert (last["state"], last["worker"], last["outcome"]["error"]) == (
        "failed",
        None,
        "The network has no classes left.",
    )
    page = finished.client.get(path, params={"limit": 3}).json()
    rest = finished.client.get(path, params={"limit": 3, "after": page["next"]}).json()
    assert [trial["number"] for trial in page["items"] + rest["items"]] == [0, 1, 2, 3, 4]
    assert rest["next"] is None
    assert finished.client.get(path, params={"after": "9" * 18}).json()["items"] == []
    for bad in ("9" * 25, "-1", "x"):
        assert finished.client.get(path, params={"after": bad}).status_code == 422


def test_events_resume_after_the_last_seen(finished: Ended, tmp_path: Path) -> None:
    path = f"/jobs/{finished.job}/events"
    before = finished.client.get(path).json()["items"]
    succeed(finished, tmp_path)
    new = finished.client.get(path, params={"after": before[-1]["id"]}).json()["items"]
    assert [(event["type"], event["data"].get("state")) for event in new] == [
        ("trial", "failed"),
        ("state", "finishing"),
        ("state", "succeeded"),
    ]


@pytest.mark.parametrize(("form", "extension"), [("pt2", "pt2"), ("safetensors", "safetensors"), ("recipe", "json")])
def test_a_checkpoint_is_pulled_whole(finished: Ended, tmp_path: Path, form: str, extension: str) -> None:
    succeed(finished, tmp_path)
    pulled = finished.client.get(f"/jobs/{finished.job}/checkpoint", params={"format": form})
    assert pulled.content == finished.files[form]
    assert pulled.headers["etag"] == f'"{hashlib.sha256(pulled.content).hexdigest()}"'
    assert pulled.headers["content-disposition"] == f'attachment; filename="{finished.job}.{extension}"'
    (kept,) = finished.client.get(f"/jobs/{finished.job}/checkpoints").json()["items"]
    assert (kept["trial"], kept["metric"]) == (2, 0.97)
    (file,) = (file for file in kept["files"] if file["format"] == form)
    assert finished.client.get(file["href"]).content == pulled.content
    assert (f'"{file["sha256"]}"', file["size"]) == (pulled.headers["etag"], len(pulled.content))


def test_a_card_says_how_the_network_was_made(finished: Ended, tmp_path: Path) -> None:
    succeed(finished, tmp_path)
    pulled = finished.client.get(f"/jobs/{finished.job}/checkpoint", params={"format": "card"})
    assert pulled.headers["content-type"] == "application/json"
    assert pulled.headers["content-disposition"] == f'attachment; filename="{finished.job}.card.json"'
    card = Card.model_validate_json(pulled.content)
    assert card.job == {"id": finished.job, "name": "my net!"}
    job = finished.client.get(f"/jobs/{finished.job}").json()
    assert card.spec == JobSpec.model_validate(job["spec"])
    for part, kind in ((card.model, "model"), (card.dataset, "dataset")):
        upload = finished.client.get(f"/{kind}s/{job[kind]}").json()
        assert (part.name, part.sha256) == (upload["name"], upload["sha256"])
    assert [(step.trial, step.widths, step.training) for step in card.steps] == [(2, [8, 16], None)]
    assert (card.layers, card.tuned) == ({"conv1": 8}, 0)
    assert (card.figures["metric"], card.baseline["metric"]) == (BEST.metric, DENSE.metric)
    assert card.search == {"trials": {"succeeded": 4, "failed": 1}, "seconds": 2.0}
    assert card.environment["torch"] == version("torch")
    assert {form: file.sha256 for form, file in card.files.items()} == {
        form: hashlib.sha256(content).hexdigest() for form, content in finished.files.items()
    }


def test_every_network_that_was_kept_is_listed_and_pulled(finished: Ended, tmp_path: Path) -> None:
    """The best one first; the other one was cut from what trial 2 left, and its int8 form has a metric of its own."""
    finished.log.told(4, Outcome(-0.4, 0.8), 1.0, WORKER)
    finished.log.finishing()
    (tmp_path / "other").write_bytes(b"smaller")
    best = Finished(2, BEST, [Artefact("pt2", tmp_path / "pt2")], tuned=3)
    other = replace(BEST, macs=10_000, metric=0.8, max_drop=0.125)
    forms = [Artefact("pt2", tmp_path / "other"), Artefact("int8", tmp_path / "recipe", 0.79)]
    finished.log.succeeded(DENSE, [best, Finished(4, other, forms)])
    first, second = finished.client.get(f"/jobs/{finished.job}/checkpoints").json()["items"]
    assert (first["trial"], first["max_drop"]) == (2, None)
    assert (second["trial"], second["macs"], second["max_drop"]) == (4, 10_000, 0.125)
    assert {file["format"]: file["metric"] for file in second["files"]} == {"pt2": None, "int8": 0.79, "card": None}
    contents = {file["format"]: finished.client.get(file["href"]).content for file in second["files"]}
    assert contents["pt2"] == b"smaller"
    card = Card.model_validate_json(contents["card"])
    assert [step.trial for step in card.steps] == [2, 4]
    assert card.steps[1].training is not None
    assert card.steps[1].training.training == Training("admm", (("epochs", 2),))
    assert (card.tuned, card.files["int8"].metric) == (0, 0.79)
    assert finished.client.get(f"/jobs/{finished.job}/checkpoint").content == finished.files["pt2"]
    missing = finished.client.get(f"/jobs/{finished.job}/checkpoint", params={"trial": 3})
    assert (missing.status_code, "no pt2 checkpoint of trial 3" in missing.json()["detail"]) == (409, True)


def test_a_drop_is_kept_and_the_smallest_network_without_too_much_of_it_leads(finished: Ended) -> None:
    with finished.client.app.state.context.database.write() as session:  # type: ignore[attr-defined]
        job = locked(session, finished.job)
        job.spec = {
            **job.spec,
            "budget": {"metric": "macs", "ratio": None, "max": None},
            "constraint": {"max_metric_drop": 0.01},
        }
    for number, (macs, drop) in enumerate([(80_000, 0.0), (20_000, 0.009), (10_000, 0.02)], 5):
        finished.log.asked(Proposal(number, (number, 8)), plan(macs))
        finished.log.told(number, Outcome(-1.0, 0.9, drop=drop), 0.5, WORKER)
    progress = finished.client.get(f"/jobs/{finished.job}").json()["progress"]
    assert progress["best_trial"] == 6
    assert finished.client.get(f"/jobs/{finished.job}/trials/7").json()["outcome"]["drop"] == 0.02
    told = [entry for entry in finished.log.record() if isinstance(entry, Told)]
    assert told[-1].outcome.drop == 0.02


def test_a_broken_download_is_resumed(finished: Ended, tmp_path: Path) -> None:
    succeed(finished, tmp_path)
    path = f"/jobs/{finished.job}/checkpoint"
    etag = finished.client.get(path).headers["etag"]
    rest = finished.client.get(path, headers={"Range": "bytes=900-", "If-Range": etag})
    assert (rest.status_code, rest.content) == (206, finished.files["pt2"][900:])
    parts, size = [], len(finished.files["pt2"])
    for part in range(16):  # cut at every sixteenth
        ends = (size * part // 16, size * (part + 1) // 16 - 1)
        answer = finished.client.get(path, headers={"Range": f"bytes={ends[0]}-{ends[1]}", "If-Range": etag})
        assert (answer.status_code, answer.headers["etag"]) == (206, etag)
        parts.append(answer.content)
    assert f'"{hashlib.sha256(b"".join(parts)).hexdigest()}"' == etag
    changed = finished.client.get(path, headers={"Range": "bytes=900-", "If-Range": '"other"'})
    assert (changed.status_code, len(changed.content)) == (200, 1000)


@pytest.mark.parametrize("value", ["bytes=5000-", "lines=1-2", "bytes=9-1"])
def test_a_bad_range_is_a_problem_document(finished: Ended, tmp_path: Path, value: str) -> None:
    succeed(finished, tmp_path)
    refused = finished.client.get(f"/jobs/{finished.job}/checkpoint", headers={"Range": value})
    assert refused.status_code == 416
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["detail"].startswith(f"Range '{value}' does not fit")
