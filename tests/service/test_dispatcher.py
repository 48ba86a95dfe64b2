"""The dispatcher against Ray's Jobs API in memory, one round at a time."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Barrier

import httpx2
import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.database import Database, now
from service.database.tables import Attempt
from service.dispatcher import Dispatcher, LocalRay, RemoteRay
from service.heartbeat import LEASE_SECONDS
from service.jobs.repository import MOST_LOSSES, JobRepository
from service.jobs.states import State, locked, move
from service.ray_jobs import RayJobs, RayUnavailable
from tests.service.doubles import TOKEN, FakeInspect, FakeRay, a_job, make_settings


@pytest.fixture
def jobs(database: Database) -> JobRepository:
    return JobRepository(database)


def rounds(
    database: Database, ray: FakeRay, count: int = 1, most: int = 1, meanwhile: Callable[[int], None] = lambda _: None
) -> None:
    """Runs so many rounds of a new dispatcher, as after a restart, 11 s apart; ``meanwhile`` happens before each."""

    async def run() -> None:
        moment = 0.0
        dispatcher = Dispatcher(database, ray, most, clock=lambda: moment)
        async with await ray.connect() as client:
            for number in range(count):
                meanwhile(number)
                await dispatcher.round(client)
                moment += 11

    asyncio.run(run())


def another(database: Database, like: str) -> str:
    """One more queued job for the same model and data."""
    first = JobRepository(database).get(like)
    _, _, job = a_job(model_id=first.model_id, dataset_id=first.dataset_id)
    return JobRepository(database).add(job).id


def test_a_queued_job_is_submitted_once(database: Database, jobs: JobRepository, ray: FakeRay, queued: str) -> None:
    rounds(database, ray, count=3)
    assert jobs.get(queued).state == State.STARTING
    assert ray.submitted == {
        f"{queued}-1": {
            "entrypoint": f"run {queued} 1",
            "submission_id": f"{queued}-1",
            "runtime_env": {"env_vars": {"SECATEUR_DATA_DIR": "/data"}},
            "metadata": {"name": "half", "job_id": queued},
        }
    }


def test_jobs_run_first_in_first_out_and_not_too_many(
    database: Database, jobs: JobRepository, ray: FakeRay, queued: str
) -> None:
    order = [queued] + [another(database, queued) for _ in range(3)]
    rounds(database, ray, count=2, most=2)
    assert list(ray.submitted) == [f"{job}-1" for job in order[:2]]
    jobs.cancel(order[0])
    jobs.lost(order[0], 1, "It ended.", ray.name)
    rounds(database, ray, count=2, most=2)
    assert list(ray.submitted) == [f"{job}-1" for job in order[:3]]


def come_to(database: Database, job: str, *states: State) -> None:
    with database.write() as session:
        for state in states:
            move(session, locked(session, job), state)


@pytest.mark.parametrize("status", ["FAILED", "STOPPED", "SUCCEEDED"])
@pytest.mark.parametrize(
    "states", [(), (State.RUNNING,), (State.RUNNING, State.FINISHING)], ids=lambda states: str(len(states))
)
def test_a_job_whose_process_ended_without_a_word_starts_again(
    database: Database, jobs: JobRepository, ray: FakeRay, queued: str, status: str, states: tuple[State, ...]
) -> None:
    rounds(database, ray)
    come_to(database, queued, *states)
    ray.statuses[f"{queued}-1"] = status
    rounds(database, ray, count=2)
    job = jobs.get(queued)
    assert (job.state, job.attempt) == (State.STARTING, 2)
    assert list(ray.submitted) == [f"{queued}-1", f"{queued}-2"]
    assert job.reason is not None
    assert "ended without a result" in job.reason
    assert job.reason.endswith("Attempt 2 goes on from what is on record.")
    assert "secret" not in job.reason, "the process's log is not the job's reason"
    come_to(database, queued, State.RUNNING)
    assert jobs.get(queued).reason is None


def test_a_running_job_that_ray_has_lost_starts_again(
    database: Database, jobs: JobRepository, ray: FakeRay, queued: str
) -> None:
    rounds(database, ray)
    come_to(database, queued, State.RUNNING)
    ray.statuses.clear()
    rounds(database, ray)
    assert jobs.get(queued).state == State.STARTING
    assert "Ray no longer knows" in (jobs.get(queued).reason or "")
    assert ray.statuses == {f"{queued}-2": "RUNNING"}


def test_a_job_that_kills_its_process_every_time_fails(
    database: Database, jobs: JobRepository, ray: FakeRay, queued: str
) -> None:
    for number in range(1, MOST_LOSSES + 1):
        rounds(database, ray)
        assert jobs.get(queued).attempt == number
        come_to(database, queued, State.RUNNING)
        ray.statuses[f"{queued}-{number}"] = "FAILED"
    rounds(database, ray)
    job = jobs.get(queued)
    assert job.state == State.FAILED
    assert (job.reason or "").endswith(f"It was the last of {MOST_LOSSES} in a row without a new result.")
    assert list(ray.submitted) == [f"{queued}-{number}" for number in range(1, MOST_LOSSES + 1)]


def test_a_job_that_was_not_submitted_before_a_crash_is(
    database: Database, jobs: JobRepository, ray: FakeRay, queued: str
) -> None:
    jobs.start(queued, ray.name, most=9)  # and the API dies before it calls Ray
    rounds(database, ray)
    assert list(ray.submitted) == [f"{queued}-1"]
    assert jobs.get(queued).state == State.STARTING


def silence(database: Database, job: str, number: int, seconds: float, process: str | None = "here 1 a") -> None:
    """The attempt's process was last heard of so long ago."""
    with database.write() as session:
        attempt = session.get_one(Attempt, (job, number))
        attempt.seen_at, attempt.process = now(session) - timedelta(seconds=seconds), process


def test_a_process_that_is_silent_beyond_its_lease_is_replaced(
    database: Database, jobs: JobRepository, ray: FakeRay, queued: str
) -> None:
    rounds(database, ray)
    come_to(database, queued, State.RUNNING)
    silence(database, queued, 1, LEASE_SECONDS - 1)
    rounds(database, ray, count=3)
    assert jobs.get(queued).attempt == 1
    silence(database, queued, 1, LEASE_SECONDS + 1)
    rounds(database, ray, count=2)
    assert ray.stopped == [f"{queued}-1"], "it may be alive"
    assert jobs.get(queued).attempt == 2
    assert (jobs.get(queued).reason or "").startswith("Its process was not heard of any more.")
    assert ray.statuses[f"{queued}-2"] == "RUNNING"


def test_behind_an_outage_a_process_has_time_to_be_heard(
    database: Database, jobs: JobRepository, ray: FakeRay, queued: str
) -> None:
    rounds(database, ray)
    come_to(database, queued, State.RUNNING)
    rounds(database, ray, count=4, meanwhile=lambda number: silence(database, queued, 1, 1 if number % 2 else 600))
    assert jobs.get(queued).attempt == 1


def test_an_attempt_on_another_ray_is_left_alone_until_its_lease_is_over(
    database: Database, jobs: JobRepository, ray: FakeRay, queued: str
) -> None:
    other = FakeRay("other")
    rounds(database, ray)
    come_to(database, queued, State.RUNNING)
    silence(database, queued, 1, 1)
    rounds(database, other, count=3, most=3)
    assert (jobs.get(queued).attempt, other.submitted) == (1, {})
    silence(database, queued, 1, LEASE_SECONDS + 1)
    rounds(database, other, count=2)
    assert jobs.get(queued).attempt == 2
    assert list(other.submitted) == [f"{queued}-2"]
    rounds(database, ray)
    assert list(ray.submitted) == [f"{queued}-1"], "the first one does not take it back"


@pytest.mark.parametrize("services", [2, 3])
def test_several_services_on_one_ray_start_each_job_once(
    database: Database, jobs: JobRepository, ray: FakeRay, queued: str, services: int
) -> None:
    every = [queued] + [another(database, queued) for _ in range(4)]

    async def together() -> None:
        dispatchers = [Dispatcher(database, ray, 10) for _ in range(services)]
        async with await ray.connect() as client:
            for _ in range(3):
                await asyncio.gather(*(dispatcher.round(client) for dispatcher in dispatchers))

    asyncio.run(together())
    assert sorted(ray.submitted) == [f"{job}-1" for job in every]
    assert {jobs.get(job).attempt for job in every} == {1}


def test_an_attempt_that_was_claimed_is_not_submitted_again(
    database: Database, jobs: JobRepository, ray: FakeRay, queued: str
) -> None:
    """Its head died before it was running: the process may live on, and would have the same fencing token."""
    rounds(database, ray)
    silence(database, queued, 1, 0)
    ray.statuses.clear()
    rounds(database, ray)
    assert jobs.get(queued).attempt == 2


def test_a_paused_job_goes_on_after_a_restart_of_everything(
    database: Database, jobs: JobRepository, ray: FakeRay, queued: str
) -> None:
    rounds(database, ray)
    come_to(database, queued, State.RUNNING)
    assert jobs.pause(queued).state == State.PAUSING
    rounds(database, ray, count=2)
    assert ray.stopped == [f"{queued}-1"]
    job = jobs.get(queued)
    assert (job.state, job.reason, job.losses) == (State.PAUSED, "Paused on request; resume it to go on.", 0)
    waiting = another(database, queued)
    new = FakeRay("new")
    rounds(database, new)
    assert list(new.submitted) == [f"{waiting}-1"], "a paused job takes no place"
    jobs.resume(queued)
    jobs.cancel(waiting)
    rounds(database, new, count=3)
    assert list(new.submitted) == [f"{waiting}-1", f"{queued}-2"]


def test_submitting_what_ray_knows_is_no_error(ray: FakeRay) -> None:
    async def twice() -> None:
        async with await ray.connect() as client:
            await client.submit("job-1", "x", {}, {})
            await client.submit("job-1", "x", {}, {})

    asyncio.run(twice())
    assert list(ray.submitted) == ["job-1"]


def test_a_job_that_ray_refuses_fails_with_its_reason(
    database: Database, jobs: JobRepository, ray: FakeRay, queued: str
) -> None:
    ray.refusal = "ValueError: no such runtime environment"
    rounds(database, ray)
    assert jobs.get(queued).state == State.FAILED
    assert jobs.get(queued).reason == "Ray refused the job: ValueError: no such runtime environment"


def test_a_cancelled_job_is_stopped_and_then_cancelled(
    database: Database, jobs: JobRepository, ray: FakeRay, queued: str
) -> None:
    rounds(database, ray)
    assert jobs.cancel(queued).state == State.CANCELLING
    rounds(database, ray)
    assert ray.stopped == [f"{queued}-1"]
    rounds(database, ray)
    assert jobs.get(queued).state == State.CANCELLED
    assert jobs.get(queued).reason == "Cancelled on request."


def test_a_cancelled_job_that_ray_does_not_know_is_cancelled(
    database: Database, jobs: JobRepository, ray: FakeRay, queued: str
) -> None:
    jobs.start(queued, "fake", most=9)
    jobs.cancel(queued)
    rounds(database, ray)
    assert jobs.get(queued).state == State.CANCELLED
    assert ray.submitted == {}


def test_an_end_that_comes_late_does_not_touch_a_newer_attempt(database: Database, jobs: JobRepository, queued: str) -> None:
    jobs.start(queued, "fake", most=9)
    assert jobs.lost(queued, 0, "An older attempt.", "fake") is None
    jobs.refused(queued, 0, "An older attempt.")
    assert (jobs.get(queued).state, jobs.get(queued).attempt) == (State.STARTING, 1)


def test_while_ray_is_away_jobs_wait(database: Database, jobs: JobRepository, ray: FakeRay, queued: str) -> None:
    ray.down = True
    with pytest.raises(RayUnavailable, match=r"Ray does not answer at http://ray\.test"):
        rounds(database, ray)
    assert jobs.get(queued).state == State.QUEUED


def call(client: RayJobs, what: Callable[[RayJobs], Awaitable[object]]) -> None:
    async def run() -> None:
        async with client:
            await what(client)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx2.Response(401), "refuses our token; set SECATEUR_RAY_AUTH_TOKEN"),
        (httpx2.Response(503, text="Traceback …\nNo available agent"), "503 to GET /api/jobs/j: No available agent"),
    ],
)
def test_what_is_wrong_with_ray_is_said_in_a_sentence(answer: httpx2.Response, said: str) -> None:
    client = RayJobs("http://ray.test", None, httpx2.MockTransport(lambda _: answer))
    with pytest.raises(RayUnavailable, match=said):
        call(client, lambda ray: ray.find("j"))


def test_the_local_jobs_find_the_same_data_and_no_secret(tmp_path: Path) -> None:
    ray = LocalRay(make_settings(tmp_path))
    assert ray.environment() == {
        "SECATEUR_DATA_DIR": str(tmp_path),
        "SECATEUR_STORE": str(tmp_path / "store"),
        "SECATEUR_DATABASE_URL": f"sqlite:///{tmp_path / 'secateur.db'}",
    }
    _, _, job = a_job(id="job-1", attempt=3)
    assert ray.command(job) == f"{shlex.quote(sys.executable)} -m service.run_job job-1 --attempt 3 --name half"
    with_password = make_settings(tmp_path, database_url="postgresql+psycopg://user:secret@host/db")
    assert "secret" not in str(LocalRay(with_password).environment())


def test_a_remote_cluster_uses_its_own_python_and_settings() -> None:
    ray = RemoteRay("http://head:8265", None)
    _, _, job = a_job(id="job-1", attempt=1)
    assert ray.environment() == {}
    assert ray.command(job) == "python -m service.run_job job-1 --attempt 1 --name half"
    job.name = "it's; rm -rf /"
    assert shlex.split(ray.command(job))[-2:] == ["--name", "it's; rm -rf /"]


def test_a_job_leads_to_its_page_in_rays_dashboard_once_it_has_one(database: Database) -> None:
    _, _, waiting = a_job(id="job-1", attempt=0)
    _, _, begun = a_job(id="job-1", attempt=2)
    for ray, url in (
        (RemoteRay("http://head:8265", None), "http://head:8265/#/jobs/job-1-2"),
        (RemoteRay("http://head:8265", None, "https://ray.example.org"), "https://ray.example.org/#/jobs/job-1-2"),
    ):
        dispatcher = Dispatcher(database, ray, 1)
        assert dispatcher.dashboard(begun) == url
        assert dispatcher.dashboard(waiting) is None


@pytest.mark.parametrize("live", [True, False])
def test_the_service_submits_on_its_own_and_says_at_the_end_whether_ray_is_needed(tmp_path: Path, live: bool) -> None:
    ray = FakeRay()
    app = create_app(make_settings(tmp_path / "data"), inspect=FakeInspect(), ray=ray)
    with TestClient(app, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        files = {"model": b"model", "data": b"data"}
        if live:
            job = client.post("/jobs", files=files, data={"job": '{"budget": {"ratio": 0.5}}'}).json()["id"]
            while client.get(f"/jobs/{job}").json()["state"] == "queued":
                pass
            assert client.get("/readyz").json()["ready"] is True
    assert ray.closed_with is live


def test_no_more_jobs_run_than_may_however_many_services_start_them(database: Database, queued: str) -> None:
    jobs = JobRepository(database)
    first = jobs.get(queued)
    for _ in range(7):
        jobs.add(a_job(model_id=first.model_id, dataset_id=first.dataset_id)[2])
    waiting = [job.id for job in jobs.queued(8)]
    services = [Database(database.engine.url.render_as_string(hide_password=False)) for _ in range(4)]
    at_once = Barrier(len(services))

    def serve(service: Database) -> list[str]:
        at_once.wait()
        started = [JobRepository(service).start(job, "fake", most=3) for job in waiting]
        return [job.id for job in started if job is not None]

    with ThreadPoolExecutor(len(services)) as pool:
        started = [job for some in pool.map(serve, services) for job in some]
    assert sorted(started) == [job.id for job, _, _ in jobs.live()]
    assert len(started) == 3
    for service in services:
        service.close()
