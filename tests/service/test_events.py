"""Events as they happen: no gap, no repeat, and an end with the job's or the service's."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from service.context import Context
from service.jobs.states import State
from tests.service.doubles import TOKEN
from tests.service.test_control import come_to
from tests.service.test_control import job as job  # noqa: PLC0414 - a fixture

pytestmark = pytest.mark.parametrize("kind", ["sqlite"])

Sent = dict[str, Any]


def parsed(text: str) -> list[Sent]:
    """The events of a stream, without comments and what is not ended."""
    blocks = [block for block in text.split("\n\n")[:-1] if block.startswith("id:")]
    fields = [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]
    return [{"id": int(f["id"]), "event": f["event"], "data": json.loads(f["data"])} for f in fields]


def streamed(api: TestClient, job: str, **headers: str) -> httpx2.Response:
    return api.get(f"/jobs/{job}/events", headers={"Accept": "text/event-stream", **headers})


def test_a_stream_of_a_job_that_has_ended_is_all_of_its_events(api: TestClient, context: Context, job: str) -> None:
    come_to(context, job, State.SUCCEEDED)
    page = api.get(f"/jobs/{job}/events").json()["items"]
    answer = streamed(api, job)
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = parsed(answer.text)
    assert [event["data"] for event in found] == page
    assert [(event["id"], event["event"]) for event in found] == [(event["id"], event["type"]) for event in page]
    for seen in range(len(page)):
        rest = parsed(streamed(api, job, **{"Last-Event-ID": str(page[seen]["id"])}).text)
        assert [event["data"] for event in rest] == page[seen + 1 :]
    assert streamed(api, job, **{"Last-Event-ID": str(page[-1]["id"])}).status_code == 204, "an EventSource comes no more"


@pytest.mark.parametrize("cursor", ["abc", "9" * 30, "../1"])
def test_a_cursor_that_is_none_is_refused_before_the_stream_begins(api: TestClient, job: str, cursor: str) -> None:
    refused = streamed(api, job, **{"Last-Event-ID": cursor})
    assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json")
    assert streamed(api, "job-none").status_code == 404


SERVE = """
import sys
from pathlib import Path
from service import server
from tests.service.doubles import FakeInspect, FakeRay, make_settings
create = server.create_app
server.create_app = lambda settings, **more: create(settings, inspect=FakeInspect(), ray=FakeRay(), **more)
server.serve(make_settings(Path(sys.argv[1]), port=int(sys.argv[2]), database_url=sys.argv[3]))
"""


@contextmanager
def serving(folder: Path, database_url: str) -> Iterator[tuple[subprocess.Popen[bytes], httpx2.Client]]:
    """The service in a process of its own, with a Ray in memory; its log is ``folder/log``."""
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", SERVE, str(folder), str(port), database_url], stderr=log)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False, timeout=60) as client:
            while True:
                try:
                    client.get("/livez")
                    break
                except httpx2.TransportError:
                    assert process.poll() is None, (folder / "log").read_text()
            yield process, client
    finally:
        process.kill()
        process.wait()


def test_streams_tell_what_happens_and_end_with_the_service(tmp_path: Path, database_url: str) -> None:
    """Several listeners to one job; then SIGTERM, with all of them still open."""
    with serving(tmp_path / "data", database_url) as (process, client), ExitStack() as stack:
        ids = {"model": client.post("/models", content=b"model").json()["id"]}
        ids["dataset"] = client.post("/datasets", content=b"data").json()["id"]
        job = client.post("/jobs", json={**ids, "budget": {"ratio": 0.5}}).json()["id"]
        wanted = {"Accept": "text/event-stream"}
        streams = [stack.enter_context(client.stream("GET", f"/jobs/{job}/events", headers=wanted)) for _ in range(5)]
        lines = [stream.iter_lines() for stream in streams]
        firsts = [next(line for line in some if line.startswith("data: ")) for some in lines]
        assert [json.loads(first[6:])["data"]["state"] for first in firsts] == ["queued"] * 5
        client.post(f"/jobs/{job}/pause")
        for some in lines:
            states = (json.loads(line[6:])["data"]["state"] for line in some if line.startswith("data: "))
            assert next(state for state in states if state != "starting") in ("pausing", "paused")
        key = client.post("/keys", json={"user": "carol", "scope": "admin"}).json()
        theirs = {**wanted, "Authorization": f"Bearer {key['key']}"}
        with client.stream("GET", f"/jobs/{job}/events", headers=theirs) as stream:
            heard = stream.iter_lines()
            next(line for line in heard if line.startswith("data: "))
            client.delete(f"/keys/{key['id']}")
            list(heard)  # ends, though the job does not, and the other streams go on
        process.send_signal(signal.SIGTERM)
        for some in lines:
            list(some)  # ends, and by itself: a connection that was cut would raise
        lines_of_log = [json.loads(line) for line in (tmp_path / "data" / "log").read_text().splitlines()]
        (made,) = (line for line in lines_of_log if line["event"] == "job_queued")
        assert (made["job"], made["owner"]) == (job, "admin")
        by_request = {line["request_id"]: line for line in lines_of_log if line["event"] == "request"}
        assert by_request[made["request_id"]]["path"] == "/jobs"
        assert process.wait(timeout=60) == -signal.SIGTERM, "which uvicorn raises again when all is done"
