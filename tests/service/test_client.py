"""The Python client against a server on real sockets: retries, refusals, resumed downloads, a whole submission."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from pruners.errors import InvalidInput, JobFailed, SecateurError
from pruners.graph.modules import build_module
from pruners.graph.program import read_program
from service.client import Client, RequestRefused, ServerUnreachable, display, progress
from service.client.export import export_model
from service.client.job import Job
from tests.service.fake_server import CHECKPOINT, TOKEN, FakeServer, job_json, running


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with running() as fake:
        yield fake


@pytest.fixture
def client(server: FakeServer) -> Iterator[Client]:
    with Client(server.url, TOKEN) as client:
        yield client


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that would have been slept."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


def test_uploads_are_streamed_whole_and_named(client: Client, server: FakeServer, tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(300_000)
    (tmp_path / "net.pt2").write_bytes(content)
    made = client.upload_model(tmp_path / "net.pt2")
    assert made["sha256"] == hashlib.sha256(content).hexdigest()
    assert made["name"] == "net"
    assert client.upload_model(content, name="mine")["id"] == made["id"]
    assert server.sent("POST", "/models")[0][0]["content-length"] == "300000"


def test_a_repeated_upload_sends_the_file_from_its_beginning(
    client: Client, server: FakeServer, tmp_path: Path, waits: list[float]
) -> None:
    (tmp_path / "data.npz").write_bytes(b"0123456789")
    server.faults.append((503, {}))
    client.upload_dataset(tmp_path / "data.npz")
    assert [body for _, body in server.sent("POST", "/datasets")] == [b"0123456789"] * 2


def test_try_later_is_obeyed_and_a_repeated_job_stays_one_job(client: Client, server: FakeServer, waits: list[float]) -> None:
    server.faults.extend([(429, {"Retry-After": "7"}), (503, {}), (502, {})])
    made = client.create_job({"budget": {"metric": "macs", "ratio": 0.5}})
    assert made["id"] == "job-1"
    assert len({headers["idempotency-key"] for headers, _ in server.sent("POST", "/jobs")}) == 1
    assert client.create_job({})["id"] == "job-2"  # another call is another job
    assert waits[0] == 7
    assert 0.5 < waits[1] < waits[2] < 5


def test_what_stays_unavailable_is_reported(client: Client, server: FakeServer, waits: list[float]) -> None:
    server.faults.extend([(503, {})] * 20)
    with pytest.raises(RequestRefused, match="503") as refused:
        client.job("job-1")
    assert refused.value.status == 503
    assert 0 < len(waits) < 10


def test_an_error_that_repetition_does_not_help_is_raised_at_once(
    client: Client, server: FakeServer, waits: list[float]
) -> None:
    server.refusal = "budget.ratio 1.5 should be less than 1."
    with pytest.raises(RequestRefused) as refused:
        client.create_job({"budget": {"ratio": 1.5}})
    assert str(refused.value) == server.refusal
    assert refused.value.problem["status"] == 422
    assert len(server.requests) == 1
    assert not waits


def test_a_server_that_is_not_there_is_named(waits: list[float]) -> None:
    with (
        Client("http://127.0.0.1:9", TOKEN) as client,
        pytest.raises(ServerUnreachable, match=r"127\.0\.0\.1:9.*secateur serve"),
    ):
        client.job("job-1")
    assert waits


@pytest.mark.parametrize("url", ["localhost:8000", "http://", "ftp://host", "http://[::"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="SECATEUR_URL"):
        Client(url)


def test_settings_come_from_the_environment_and_the_saved_token(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECATEUR_URL", server.url)
    monkeypatch.setenv("SECATEUR_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("SECATEUR_TOKEN", raising=False)
    with Client() as client, pytest.raises(RequestRefused, match="token"):
        client.job("job-1")
    (tmp_path / "token").write_text(TOKEN + "\n")
    with Client() as client:
        assert client.job("job-1")["id"] == "job-1"
    monkeypatch.setenv("SECATEUR_TOKEN", "wrong")
    with Client() as client, pytest.raises(RequestRefused, match="token"):
        client.job("job-1")


def test_the_saved_token_is_not_sent_to_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx2

    monkeypatch.setenv("SECATEUR_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("SECATEUR_TOKEN", raising=False)
    (tmp_path / "token").write_text(TOKEN)
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json={"id": "job-1"})

    for url in ("http://secateur.example", "http://127.0.0.1:1"):
        with Client(url, transport=httpx2.MockTransport(answer)) as client:
            client.job("job-1")
    assert ["authorization" in request.headers for request in seen] == [False, True]


def test_lists_follow_the_cursors(client: Client, server: FakeServer) -> None:
    assert [trial["number"] for trial in client.trials("job-1")] == [0, 1, 2, 3, 4]
    assert len(server.sent("GET", "/jobs/job-1/trials")) == 3
    assert [job["id"] for job in client.jobs()] == ["job-1"]
    assert client.searchers()[0]["name"] == "l1"
    assert client.pruners()[0]["name"] == "l1"


def test_an_id_stays_one_segment_of_the_path(client: Client, server: FakeServer) -> None:
    with pytest.raises(RequestRefused):
        client.job("../models?x=1#y")
    assert server.requests[0][1] == "/jobs/..%2Fmodels%3Fx%3D1%23y"


def test_cancel_and_dry_run(client: Client, server: FakeServer) -> None:
    job = Job(client, "job-1")
    shown = [ask()["state"] for ask in (job.cancel, job.stop, job.pause, job.resume)]
    assert shown == ["cancelling", "stopping", "pausing", "queued"]
    client.delete("job-1")
    assert client.create_job({}, dry_run=True)["planned_trials"] == 9
    assert not server.keys


def test_a_download_that_breaks_off_goes_on_where_it_ended(client: Client, server: FakeServer, tmp_path: Path) -> None:
    server.cuts.extend([100_000, 50_000])
    target = client.download("job-1", "pt2", tmp_path / "best.pt2")
    assert target.read_bytes() == CHECKPOINT
    ranges = [headers.get("range") for headers, _ in server.sent("GET", "/jobs/job-1/checkpoint")]
    assert ranges == [None, "bytes=100000-", "bytes=150000-"]
    assert [path.name for path in tmp_path.iterdir()] == ["best.pt2"]


def test_a_line_that_stays_broken_keeps_what_arrived_for_the_next_call(
    client: Client, server: FakeServer, tmp_path: Path
) -> None:
    server.cuts.extend([1000, 0, 0, 0, 0])
    with pytest.raises(SecateurError, match="run it again to go on"):
        client.download("job-1", "pt2", tmp_path / "best.pt2")
    assert not (tmp_path / "best.pt2").exists()
    assert client.download("job-1", "pt2", tmp_path / "best.pt2").read_bytes() == CHECKPOINT
    assert server.sent("GET", "/jobs/job-1/checkpoint")[-1][0]["range"] == "bytes=1000-"


def test_the_beginning_of_another_file_is_not_continued(client: Client, server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / f"best.pt2.{'0' * 64}.part").write_bytes(b"of an older network")
    assert client.download("job-1", "pt2", tmp_path / "best.pt2").read_bytes() == CHECKPOINT
    assert [path.name for path in tmp_path.iterdir()] == ["best.pt2"]


def test_a_download_that_lacks_only_its_name_is_finished(client: Client, server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / f"best.pt2.{server.etag}.part").write_bytes(CHECKPOINT)
    assert client.download("job-1", "pt2", tmp_path / "best.pt2").read_bytes() == CHECKPOINT


def test_a_damaged_download_is_refused_and_not_kept(client: Client, server: FakeServer, tmp_path: Path) -> None:
    server.checkpoint = CHECKPOINT[:-1] + b"!"
    (tmp_path / "best.pt2").write_bytes(b"the one before")
    with pytest.raises(SecateurError, match="sha256"):
        client.download("job-1", "pt2", tmp_path / "best.pt2")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"best.pt2": b"the one before"}


@pytest.mark.parametrize("target", [".", "missing/best.pt2"])
def test_a_target_that_cannot_be_written_is_refused_before_the_download(
    client: Client, server: FakeServer, tmp_path: Path, target: str
) -> None:
    with pytest.raises(InvalidInput, match="output"):
        client.download("job-1", "pt2", tmp_path / target)
    assert not server.requests


def test_submit_exports_uploads_waits_and_reads_back_a_trainable_network(
    client: Client, server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "POLL_SECONDS", 0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).train()
    x = np.zeros((6, 1, 8, 8), np.float32)
    data = {"x_train": torch.from_numpy(x), "y_train": [0, 1, 2, 0, 1, 2], "x_test": x, "y_test": np.zeros(6, int)}

    job = client.submit(model, torch.zeros(1, 1, 8, 8), data, {"metric": "macs", "ratio": 0.5}, name="half", seed=3)

    assert model.training
    (_, arrays), (_, spec) = server.sent("POST", "/datasets")[0], server.sent("POST", "/jobs")[0]
    read = np.load(io.BytesIO(arrays), allow_pickle=False)
    assert read["x_train"].shape == (6, 1, 8, 8)
    assert read["y_train"].tolist() == [0, 1, 2, 0, 1, 2]
    sent = json.loads(spec)
    assert sent["budget"] == {"metric": "macs", "ratio": 0.5}
    assert (sent["name"], sent["seed"]) == ("half", 3)
    assert sent["model"].startswith("model-")
    assert sent["dataset"].startswith("dataset-")

    server.polls = deque([job_json("queued"), job_json("running", 3), job_json("succeeded", 10)])
    assert job.wait()["best"]["macs"] == 499_000

    program = server.sent("POST", "/models")[0][1]
    server.checkpoint, server.etag = program, hashlib.sha256(program).hexdigest()
    network = job.checkpoint()
    inputs = torch.randn(5, 1, 8, 8)  # neither the example's batch nor the one that torch doubles it to
    torch.testing.assert_close(network(inputs), model.eval()(inputs))
    network.train()
    network(inputs).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_wait_raises_with_the_reason_of_a_job_that_failed(
    client: Client, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "POLL_SECONDS", 0)
    job = client.submit(nn.Linear(2, 2), torch.zeros(2, 2), {"x_train": [[0.0, 1.0]]}, {"ratio": 0.5})
    server.polls = deque([job_json("failed", reason="Every trial failed.")])
    with pytest.raises(JobFailed, match=r"Every trial failed\."):
        job.wait()


def test_watching_outlives_a_restart_of_the_server(
    client: Client, server: FakeServer, waits: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    server.polls = deque([job_json("running", 1), job_json("succeeded", 10)])
    answer, lost = client._connection.json, [ServerUnreachable("gone")] * 10

    async def json(method: str, path: str) -> object:
        if len(server.polls) == 1 and lost:
            raise lost.pop()
        return await answer(method, path)

    client._connection.json = json  # type: ignore[method-assign, assignment]
    assert display.watch(client, "job-1")["state"] == "succeeded"
    assert not lost
    assert "1/10 trials" in capsys.readouterr().out


def test_on_a_terminal_progress_is_a_bar(client: Client, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "POLL_SECONDS", 0)
    server.polls = deque([job_json("running", 3), job_json("succeeded", 10)])
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None, markup=False, highlight=False)
    assert display.watch(client, "job-1", console)["state"] == "succeeded"
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "digits [half] (job-1), macs ≤ 50 %" in shown
    assert "10/10 trials" in shown
    assert "ETA" in shown
    assert "best: top-1 accuracy 0.9700, 49.9 % of macs" in shown


def test_a_network_in_channels_last_is_exported_as_any_other(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)).to(
        memory_format=torch.channels_last
    )
    x = torch.randn(2, 3, 8, 8)
    export_model(model, x, tmp_path / "model.pt2")  # a warning would fail here
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last), "the user's own stays as it is"
    assert torch.allclose(build_module(read_program(tmp_path / "model.pt2"))(x), model.eval()(x), atol=1e-6)


class Untraceable(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


def test_a_network_that_cannot_be_exported_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be exported by") as refused:
        export_model(Untraceable(), torch.zeros(2, 2), tmp_path / "model.pt2")
    assert "\n" not in str(refused.value)


def test_data_that_are_no_numbers_are_refused_by_name(client: Client, server: FakeServer) -> None:
    with pytest.raises(InvalidInput, match=r"data\.y_train"):
        client.submit(nn.Linear(2, 2), torch.zeros(2, 2), {"y_train": ["cat", "dog"]}, {"ratio": 0.5})
    assert not server.requests
