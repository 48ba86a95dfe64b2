"""Cancel, pause, resume, stop and delete over HTTP: what each does in every state, and that asking twice changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from searchers.base import Outcome, Proposal
from service.context import Context
from service.jobs.log import DatabaseLog
from service.jobs.repository import JobRepository
from service.jobs.states import LIVE, State
from tests.service.test_log import BEST, DENSE, plan
from workers.log import Finished


@pytest.fixture
def job(api: TestClient, job_json: dict[str, Any]) -> str:
    """The id of a queued job."""
    made: str = api.post("/jobs", json=job_json).json()["id"]
    return made


def log_of(context: Context, job: str) -> DatabaseLog:
    return DatabaseLog(context.database, context.store, job, JobRepository(context.database).get(job).attempt)


def come_to(context: Context, job: str, state: State) -> None:
    """A queued job in that state, with a trial on record if it ever ran."""
    jobs = JobRepository(context.database)
    if state == State.QUEUED:
        return
    if state == State.PAUSED:
        jobs.pause(job)
        return
    jobs.start(job, "fake", most=9)
    if state == State.STARTING:
        return
    log = log_of(context, job)
    log.running(3)
    log.asked(Proposal(0, (8, 8)), plan())
    log.told(0, Outcome(-0.1, 0.9), 0.1, None)
    ways: dict[State, Callable[[], object]] = {
        State.RUNNING: lambda: None,
        State.PAUSING: lambda: jobs.pause(job),
        State.STOPPING: lambda: jobs.stop(job),
        State.CANCELLING: lambda: jobs.cancel(job),
        State.FINISHING: log.finishing,
        State.FAILED: lambda: log.failed("It cannot be."),
        State.SUCCEEDED: lambda: (log.finishing(), log.succeeded(DENSE, [Finished(0, BEST, [])])),
        State.CANCELLED: lambda: (jobs.cancel(job), jobs.lost(job, 1, "", "fake")),
    }
    ways[state]()


# By call, what a job in each state becomes; what is missing is refused.
BECOMES = {
    "cancel": {
        **dict.fromkeys(LIVE | {State.CANCELLING}, State.CANCELLING),
        **dict.fromkeys((State.QUEUED, State.PAUSED, State.CANCELLED), State.CANCELLED),
    },
    "pause": {
        **dict.fromkeys((State.STARTING, State.RUNNING, State.STOPPING, State.FINISHING, State.PAUSING), State.PAUSING),
        **dict.fromkeys((State.QUEUED, State.PAUSED), State.PAUSED),
    },
    "resume": {
        State.PAUSED: State.QUEUED,
        **{state: state for state in (State.QUEUED, State.STARTING, State.RUNNING, State.STOPPING, State.FINISHING)},
    },
    "stop": {
        State.RUNNING: State.STOPPING,
        State.STOPPING: State.STOPPING,
        State.FINISHING: State.FINISHING,
    },
}


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("call", list(BECOMES))
@pytest.mark.parametrize("kind", ["sqlite"])
def test_every_call_in_every_state(api: TestClient, context: Context, job: str, call: str, state: State) -> None:
    come_to(context, job, state)
    wanted = BECOMES[call].get(state)
    before = JobRepository(context.database).events(job, 500, None)[0]
    first, second = (api.post(f"/jobs/{job}/{call}") for _ in range(2))
    if wanted is None:
        assert (first.status_code, second.status_code) == (409, 409)
        assert f"{job} is {state}" in first.json()["detail"]
        assert api.get(f"/jobs/{job}").json()["state"] == state
    else:
        assert (first.status_code, second.status_code) == (202, 202), first.json()
        assert first.json()["state"] == second.json()["state"] == wanted
    after = JobRepository(context.database).events(job, 500, None)[0]
    assert len(after) - len(before) == (wanted not in (None, state)), "one event for one move"


def test_a_stopped_job_ends_with_the_best_and_may_be_asked_again(api: TestClient, context: Context, job: str) -> None:
    come_to(context, job, State.RUNNING)
    log = log_of(context, job)
    assert not log.stopping()
    api.post(f"/jobs/{job}/stop")
    assert log.stopping()
    log.asked(Proposal(1, (8, 8)), plan())  # was on its way
    log.told(1, Outcome(-0.2, 0.9), 0.1, None)
    log.finishing()
    log.succeeded(DENSE, [Finished(0, BEST, [])])
    again = api.post(f"/jobs/{job}/stop")
    assert (again.status_code, again.json()["state"]) == (202, "succeeded")
    assert again.json()["best"]["trial"] == 0
    assert again.json()["reason"] == "Stopped on request; the best network so far is kept."


def test_a_stop_outlives_the_process(api: TestClient, context: Context, job: str) -> None:
    come_to(context, job, State.STOPPING)
    jobs = JobRepository(context.database)
    again = jobs.lost(job, 1, "It was killed.", "fake")
    assert again is not None
    log = log_of(context, job)
    log.running(3)
    assert jobs.get(job).state == State.STOPPING
    assert log.stopping()


def test_a_paused_job_with_results_can_be_stopped(api: TestClient, context: Context, job: str) -> None:
    come_to(context, job, State.PAUSING)
    JobRepository(context.database).lost(job, 1, "", "fake")
    stopped = api.post(f"/jobs/{job}/stop").json()
    assert (stopped["state"], stopped["reason"]) == ("queued", "Stopped on request; the best network so far is kept.")
    JobRepository(context.database).start(job, "fake", most=9)
    log_of(context, job).running(3)
    assert api.get(f"/jobs/{job}").json()["state"] == "stopping"


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("kind", ["sqlite"])
def test_a_job_is_deleted_once_it_has_ended(api: TestClient, context: Context, job: str, state: State) -> None:
    come_to(context, job, state)
    gone = api.delete(f"/jobs/{job}")
    if state in (State.SUCCEEDED, State.FAILED, State.CANCELLED):
        assert (gone.status_code, gone.content) == (204, b"")
        assert api.get(f"/jobs/{job}").status_code == 404
        assert api.delete(f"/jobs/{job}").status_code == 404
    else:
        assert gone.status_code == 409
        assert "cancel it before it is deleted" in gone.json()["detail"]
