"""The database goes away in the middle of a job and comes back: calls are told to try again, nothing that was found is lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient

from searchers.base import Outcome, Proposal
from service.app import create_app
from service.context import Context
from service.jobs.log import DatabaseLog
from service.jobs.repository import JobRepository
from tests.postgres import Postgres, postgres
from tests.service.doubles import TOKEN, FakeInspect, FakeRay, make_settings
from tests.service.test_log import plan

TRIALS = 60


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A server that may be stopped; the shared one may not."""
    with postgres(max_connections=20) as server:
        yield server


@pytest.fixture
def client(server: Postgres, tmp_path: Path) -> Iterator[TestClient]:
    ray = FakeRay()
    ray.down = True
    settings = make_settings(tmp_path / "data", database_url=server.url(server.database()))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with TestClient(
        create_app(settings, inspect=FakeInspect(), ray=ray), headers=headers, raise_server_exceptions=False
    ) as api:
        yield api


def stopped(server: Postgres, call: Callable[[], None]) -> None:
    server.stop()
    call()
    server.start()


def terminated(server: Postgres, call: Callable[[], None]) -> None:
    for _ in range(5):
        with server.connect() as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name <> 'test'")
        call()


def exhausted(server: Postgres, call: Callable[[], None]) -> None:
    with ExitStack() as taken:
        admin = taken.enter_context(server.connect())
        for _ in range(3):  # whose connections end, others take their slots
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name <> 'test'")
            with suppress(psycopg.OperationalError):
                while True:
                    taken.enter_context(server.connect())
            call()


@pytest.mark.parametrize("happens", [stopped, terminated, exhausted], ids=lambda function: function.__name__)
def test_a_job_outlasts_its_database(
    server: Postgres,
    client: TestClient,
    happens: Callable[[Postgres, Callable[[], None]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.jobs.log._LONGEST_WAIT", 0.05)
    files = {"model": b"model", "data": b"data"}
    job = client.post("/jobs", files=files, data={"job": '{"budget": {"ratio": 0.5}}'}).json()["id"]
    context: Context = client.app.state.context  # type: ignore[attr-defined]
    jobs = JobRepository(context.database)
    jobs.start(job, "fake", most=9)
    half, statuses, late = Event(), [], []

    def work() -> None:
        log = DatabaseLog(context.database, context.store, job, 1)
        log.claim("here", 1)
        log.running(TRIALS)
        for number in range(TRIALS):
            log.asked(Proposal(number, (1,)), plan())
            log.started(number)
            log.told(number, Outcome(-float(number)), 0.1, None)
            if number == TRIALS // 3:
                half.set()

    def call() -> None:
        form: dict[str, Any] = {"files": files, "data": {"job": json.dumps({"budget": {"ratio": 0.5}})}}
        for answer in (
            client.get(f"/jobs/{job}"),
            client.get("/jobs"),
            client.get(f"/jobs/{job}/events"),
            client.post("/jobs", **form),
            client.post(f"/jobs/{job}/resume"),
            client.get("/readyz"),
        ):
            statuses.append(answer.status_code)
            if answer.status_code == 503 and "ready" not in answer.json():
                late.append((answer.headers["retry-after"], answer.json()["title"]))

    with ThreadPoolExecutor(1) as pool:
        process: Future[None] = pool.submit(work)
        assert half.wait(60)
        happens(server, call)
        process.result(60)
    assert set(statuses) <= {200, 202, 503}, statuses
    assert happens is terminated or 503 in statuses[:-1]
    assert set(late) <= {("5", "Temporarily unavailable")}
    assert client.get(f"/jobs/{job}").json()["counts"] == {"pending": 0, "running": 0, "succeeded": TRIALS, "failed": 0}
    events = [event for after in (None, "400") for event in jobs.events(job, 400, after)[0]]
    told = [event.data["number"] for event in events if event.data.get("state") == "succeeded"]
    assert sorted(set(told)) == list(range(TRIALS))
    assert {trial.attempts for trial in jobs.trials(job, 500, None)[0]} == {1}


def test_fifty_equal_requests_at_once_make_one_job_and_later_ones_none(
    api: TestClient, job_json: dict[str, Any], tmp_path: Path, database_url: str
) -> None:
    def post(body: dict[str, Any], to: TestClient = api) -> tuple[int, Any]:
        answer = to.post("/jobs", json=body, headers={"Idempotency-Key": "one"})
        return answer.status_code, answer.json()

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(post, [job_json] * 50))
    assert {status for status, _ in answers} == {202}
    (made,) = {body["id"] for _, body in answers}
    assert [job["id"] for job in api.get("/jobs").json()["items"]] == [made]
    ray = FakeRay()
    ray.down = True
    restarted = create_app(make_settings(tmp_path / "data", database_url=database_url), inspect=FakeInspect(), ray=ray)
    with TestClient(restarted, headers={"Authorization": f"Bearer {TOKEN}"}) as again:
        for client in (api, again):
            assert post(job_json, client)[1]["id"] == made
            status, refusal = post({**job_json, "seed": 1}, client)
            assert status == 422
            assert "from a different request" in refusal["detail"]
