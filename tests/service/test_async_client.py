"""The client for asyncio: it does what the other one does, since both run the same code, and blocks no loop meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pruners.errors import JobFailed, SecateurError
from service.client import AsyncClient, AsyncJob, Client, Job, RequestRefused, ServerUnreachable, progress
from service.client import upload as uploading
from service.client.line import run
from tests.service.fake_server import CHECKPOINT, TOKEN, FakeServer, job_json, running


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with running() as fake:
        yield fake


def tried(server: FakeServer, work: Callable[[AsyncClient], Coroutine[Any, Any, Any]]) -> Any:
    async def with_client() -> Any:
        async with AsyncClient(server.url, TOKEN) as client:
            return await work(client)

    return asyncio.run(with_client())


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that would have been slept."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return slept


def public(kind: type) -> dict[str, list[str]]:
    """Methods by name, with the names of their parameters."""
    found = inspect.getmembers(kind, inspect.isfunction)
    return {name: list(inspect.signature(method).parameters) for name, method in found if not name.startswith("_")}


def test_both_clients_have_the_same_methods() -> None:
    assert public(Client) == public(AsyncClient)
    assert public(Job) == public(AsyncJob)


def test_calls_lists_and_uploads(server: FakeServer, tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(600_000)
    (tmp_path / "net.pt2").write_bytes(content)

    async def work(client: AsyncClient) -> None:
        made = await client.upload_model(tmp_path / "net.pt2")
        assert (made["sha256"], made["name"]) == (hashlib.sha256(content).hexdigest(), "net")
        assert (await client.upload_model(content, name="mine"))["id"] == made["id"]
        assert [trial["number"] async for trial in client.trials("job-1")] == [0, 1, 2, 3, 4]
        assert (await client.searchers())[0]["name"] == "l1"
        job = AsyncJob(client, "job-1")
        assert [(await ask())["state"] for ask in (job.cancel, job.stop)] == ["cancelling", "stopping"]
        await client.delete("job-1")
        with pytest.raises(RequestRefused, match="There is nothing at"):
            await client.job("../x")

    tried(server, work)
    (headers, body), *_ = server.sent("POST", "/models")
    assert body == content
    assert (headers["content-length"], "transfer-encoding" in headers) == ("600000", False)


def test_try_later_is_obeyed_and_a_file_is_sent_again_from_its_beginning(
    server: FakeServer, tmp_path: Path, waits: list[float]
) -> None:
    (tmp_path / "data.npz").write_bytes(b"0123456789")
    server.faults.extend([(429, {"Retry-After": "7"}), (503, {})])
    tried(server, lambda client: client._upload("/datasets", tmp_path / "data.npz", None))
    assert [body for _, body in server.sent("POST", "/datasets")] == [b"0123456789"] * 3
    assert waits[0] == 7


def test_a_server_that_is_not_there_is_named(waits: list[float]) -> None:
    async def ask() -> None:
        async with AsyncClient("http://127.0.0.1:9", TOKEN) as client:
            await client.job("job-1")

    with pytest.raises(ServerUnreachable, match="secateur serve"):
        asyncio.run(ask())
    assert waits


def test_a_download_that_breaks_off_goes_on_where_it_ended(server: FakeServer, tmp_path: Path) -> None:
    server.cuts.extend([100_000, 50_000])

    async def work(client: AsyncClient) -> Path:
        return await client.download("job-1", "pt2", tmp_path / "best.pt2")

    assert tried(server, work).read_bytes() == CHECKPOINT
    assert [headers.get("range") for headers, _ in server.sent("GET", "/jobs/job-1/checkpoint")][1:] == [
        "bytes=100000-",
        "bytes=150000-",
    ]


def test_jobs_are_submitted_and_waited_for_together(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "POLL_SECONDS", 0)
    server.polls = deque([job_json("queued"), job_json("running", 3), job_json("succeeded", 10)])
    data = {"x_train": np.zeros((4, 2), np.float32), "x_test": np.zeros((4, 2), np.float32)}

    async def work(client: AsyncClient) -> None:
        job = await client.submit(nn.Linear(2, 2), torch.zeros(2, 2), data, {"ratio": 0.5})
        assert repr(job) == "AsyncJob('job-1')"
        both = await asyncio.gather(job.wait(show=False), AsyncJob(client, "job-1").wait(show=False))
        assert [ended["best"]["macs"] for ended in both] == [499_000] * 2
        program = server.sent("POST", "/models")[0][1]
        server.checkpoint, server.etag = program, hashlib.sha256(program).hexdigest()
        assert (await job.checkpoint())(torch.zeros(3, 2)).shape == (3, 2)
        server.polls = deque([job_json("failed", reason="Every trial failed.")])
        with pytest.raises(JobFailed, match="Every trial failed"):
            await job.wait()

    tried(server, work)
    assert "failed: Every trial failed." in capsys.readouterr().out
    assert "running" not in capsys.readouterr().out, "show=False shows nothing"


def test_the_loop_goes_on_while_the_client_reads_and_waits(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something else has its turn between the parts of a large file."""
    monkeypatch.setattr(uploading, "PART_BYTES", 10)
    (tmp_path / "net.pt2").write_bytes(b"0123456789" * 3)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def work(client: AsyncClient) -> None:
        counting = asyncio.create_task(count())
        with pytest.raises(SecateurError):  # the fake server takes no parts
            await client.upload_model(tmp_path / "net.pt2")
        counting.cancel()

    tried(server, work)
    assert turns > 3


def test_a_coroutine_that_really_waits_is_none_for_the_blocking_client() -> None:
    with pytest.raises(RuntimeError, match="suspended"):
        run(asyncio.sleep(0))


def test_the_blocking_client_works_inside_a_running_loop(server: FakeServer) -> None:
    """As in a notebook."""

    async def cell() -> str:
        with Client(server.url, TOKEN) as client:
            return str(client.job("job-1")["id"])

    assert asyncio.run(cell()) == "job-1"
