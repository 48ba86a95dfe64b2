"""The command line: what it prints, what it exits with, what it sends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

from service.cli import app
from service.client import progress
from service.client.export import export_model
from tests.service.fake_server import CHECKPOINT, TOKEN, FakeServer, job_json, running

COMMANDS = [
    *("serve", "submit", "watch", "jobs", "job", "trials", "pull"),
    *("stop", "pause", "resume", "cancel", "delete", "db", "backup", "restore", "gc"),
    *("keys", "users", "audit", "models", "datasets"),
    *("inspect", "searchers", "pruners", "demo"),
]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    monkeypatch.setattr(progress, "POLL_SECONDS", 0)
    with running() as fake:
        monkeypatch.setenv("SECATEUR_URL", fake.url)
        monkeypatch.setenv("SECATEUR_TOKEN", TOKEN)
        yield fake


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with something to submit."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.pt2").write_bytes(b"a network")
    (tmp_path / "data.npz").write_bytes(b"images")
    return tmp_path


def secateur(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "80"})


def submit(*arguments: str) -> Result:
    return secateur("submit", "net.pt2", "--data", "data.npz", *arguments)


def sent_job(server: FakeServer) -> dict[str, Any]:
    return dict(json.loads(server.sent("POST", "/jobs")[-1][1]))


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from service.cli import main; main()", *arguments]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SECATEUR_")}
    return subprocess.run(command, capture_output=True, text=True, env=inherited | environment, check=False)


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    check = "import sys; import service.cli; print([m for m in ('torch', 'ray', 'fastapi', 'httpx2') if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
    shown = run("--help")
    assert shown.returncode == 0
    assert all(f"\n  {name} " in shown.stdout for name in COMMANDS)
    assert "secateur submit resnet20.pt2 --data cifar10.npz --budget macs=0.5 --watch\n" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_in_80_columns(command: str) -> None:
    shown = secateur(command, "--help")
    assert shown.exit_code == 0
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert shown.stdout.startswith(f"Usage: root {command}")


def test_submit_sends_the_code_of_a_custom_task(server: FakeServer, files: Path) -> None:
    (files / "task.py").write_text("def metric(outputs, labels):\n    return 1\n")
    options = ["--task", "custom", "--metric", "custom_error", "--code", "task.py"]
    assert submit("--budget", "macs=0.5", *options).exit_code == 0
    code = "def metric(outputs, labels):\n    return 1\n"
    assert sent_job(server)["task"] == {"type": "custom", "metric": "custom_error", "code": code}


def test_a_webhooks_secret_comes_from_the_environment(server: FakeServer, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://example.org/hook"
    assert submit("--budget", "macs=0.5", "--webhook", url).exit_code == 0
    assert sent_job(server)["webhook"] == {"url": url}
    monkeypatch.setenv("SECATEUR_WEBHOOK_SECRET", "whsec_x")
    shown = submit("--budget", "macs=0.5", "--webhook", url)
    assert sent_job(server)["webhook"] == {"url": url, "secret": "whsec_x"}
    assert "whsec_x" not in shown.output


def test_submit_sends_what_was_asked_for_and_nothing_else(server: FakeServer, files: Path) -> None:
    shown = submit("--budget", "macs=0.5")
    assert shown.exit_code == 0
    assert "secateur watch job-1" in shown.stdout
    job = sent_job(server)
    assert set(job) == {"model", "dataset", "budget"}
    assert job["budget"] == {"metric": "macs", "ratio": 0.5}

    options = [
        "--searcher",
        "netadapt",
        "--param",
        "steps=3",
        "--param",
        "mode=fast",
        "--warm-start",
        "job-7",
        "--pruner",
        "l2",
        "--seed",
        "0",
    ]
    options += ["--task", "regression", "--metric", "mae"]
    limits = ["--max-trials", "9", "--max-concurrent", "1", "--max-seconds", "60", "--final-epochs", "2", "--name", "x"]
    assert submit("--budget", "params=120000", *options, *limits).exit_code == 0
    job = sent_job(server)
    assert job["budget"] == {"metric": "params", "max": 120_000}
    assert job["searcher"] == {"name": "netadapt", "params": {"steps": 3, "mode": "fast", "warm_start": "job-7"}}
    assert job["pruner"] == {"name": "l2"}
    assert job["task"] == {"type": "regression", "metric": "mae"}
    assert job["limits"] == {"max_trials": 9, "max_concurrent": 1, "max_seconds": 60}
    assert job["recovery"] == {"final_epochs": 2}
    assert (job["seed"], job["name"]) == (0, "x")


@pytest.mark.parametrize(
    "budget",
    [
        "0.5",
        "macs",
        "macs=",
        "macs=half",
        "macs=0",
        "macs=-1",
        "macs=nan",
        "macs=inf",
        "macs=1",
        "=2",
        "latency_ms=2",
        "macs=2ms",
    ],
)
def test_a_budget_that_is_none_is_refused_before_anything_is_uploaded(server: FakeServer, files: Path, budget: str) -> None:
    shown = submit("--budget", budget)
    assert shown.exit_code == 1
    assert shown.stderr.startswith(f"secateur: --budget '{budget}' ")
    assert shown.stderr.count("\n") == 1
    assert not server.requests


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("latency_ms=0.7", {"metric": "latency_ms", "ratio": 0.7}),
        ("latency_ms=0.7ms", {"metric": "latency_ms", "max": 0.7}),
        ("latency_ms=2.5ms", {"metric": "latency_ms", "max": 2.5}),
        ("size_bytes=1000", {"metric": "size_bytes", "max": 1000}),
    ],
)
def test_a_share_and_a_maximum_are_told_apart(server: FakeServer, files: Path, typed: str, sent: dict[str, Any]) -> None:
    assert submit("--budget", typed).exit_code == 0
    assert sent_job(server)["budget"] == sent


def test_a_parameter_without_a_value_is_refused(server: FakeServer, files: Path) -> None:
    shown = submit("--budget", "macs=0.5", "--param", "steps")
    assert (shown.exit_code, "--param 'steps'" in shown.stderr) == (1, True)


def test_a_file_that_is_missing_is_wrong_usage(server: FakeServer, files: Path) -> None:
    shown = secateur("submit", "nothing.pt2", "--data", "data.npz", "--budget", "macs=0.5")
    assert shown.exit_code == 2
    assert "nothing.pt2" in shown.stderr


def test_what_the_server_refuses_is_shown_as_its_one_sentence(server: FakeServer, files: Path) -> None:
    server.refusal = "budget.ratio 0.001 is out of reach; the least is 0.04."
    shown = submit("--budget", "macs=0.001")
    assert (shown.exit_code, shown.stdout, shown.stderr) == (1, "", f"secateur: {server.refusal}\n")
    shown = submit("--budget", "macs=0.001", "--json")
    assert (shown.exit_code, json.loads(shown.stdout), shown.stderr) == (1, {"error": server.refusal}, "")


def test_dry_run_shows_the_plan_and_makes_no_job(server: FakeServer, files: Path) -> None:
    shown = submit("--budget", "macs=0.5", "--dry-run", "--watch")
    assert "macs: 1,000 now, at most 500 wanted, 10 within reach" in shown.stdout
    assert "at most 9 trials, 2 are known from the earlier job" in shown.stdout
    assert not server.keys


def test_watching_prints_a_line_per_change_and_exits_with_the_outcome(server: FakeServer, files: Path) -> None:
    states = [job_json("queued"), job_json("queued"), job_json("running", 3), job_json("running", 3)]
    server.polls = deque([*states, job_json("succeeded", 10)])
    shown = submit("--budget", "macs=0.5", "--watch")
    assert shown.exit_code == 0
    assert shown.stdout.splitlines() == [
        "digits [half] (job-1), macs ≤ 50 %",
        "queued     0/10 trials, best: none yet",
        "running    3/10 trials, best: score -0.25, top-1 accuracy 0.9100",
        "succeeded  10/10 trials, best: top-1 accuracy 0.9700, 49.9 % of macs",
        "Fetch the network with: secateur pull job-1",
    ]

    server.polls = deque([job_json("failed", 10, reason="Every trial failed.")])
    shown = secateur("watch", "job-1")
    assert shown.exit_code == 1
    assert "failed: Every trial failed." in shown.stdout

    server.polls = deque([job_json("cancelled")])
    assert secateur("watch", "job-1").exit_code == 1


def test_with_json_stdout_is_one_document(server: FakeServer, files: Path) -> None:
    server.polls = deque([job_json("running", 3), job_json("succeeded", 10)])
    shown = submit("--budget", "macs=0.5", "--watch", "--json")
    assert json.loads(shown.stdout)["best"]["macs"] == 499_000
    assert "running" in shown.stderr
    for arguments in (
        ["job", "job-1"],
        ["jobs"],
        ["trials", "job-1"],
        ["searchers"],
        ["pruners"],
        ["cancel", "job-1"],
        ["delete", "job-1"],
    ):
        shown = secateur(*arguments, "--json")
        assert shown.exit_code == 0
        assert json.loads(shown.stdout)
        assert shown.stderr == ""


def test_tables_are_plain_and_fit_80_columns(server: FakeServer) -> None:
    long_id = "job-18c1b5a0c3d2e1f0a1b2c3d4"
    server.polls = deque([job_json("succeeded", 10, job_id=long_id, name="resnet20 on cifar10, half the MACs [v2]")])
    for arguments in (["jobs"], ["job", "job-1"], ["trials", "job-1"], ["searchers"], ["pruners"]):
        shown = secateur(*arguments)
        assert shown.exit_code == 0, shown.stderr
        assert max(map(len, shown.stdout.splitlines())) <= 80
        assert "\x1b" not in shown.stdout
    assert long_id in secateur("jobs").stdout
    job = secateur("job", "job-1").stdout
    assert "half the MACs [v2]" in job
    assert "499,000" in job
    assert "0.499" in job
    assert secateur("trials", "job-1").stdout.count("succeeded") == 5
    assert "steps [3]: How many." in secateur("searchers").stdout


def test_pull_writes_the_file_it_names(server: FakeServer, files: Path) -> None:
    shown = secateur("pull", "job-1")
    assert shown.stdout == "job-1.pt2 (256,000 bytes)\n"
    assert (files / "job-1.pt2").read_bytes() == CHECKPOINT
    assert secateur("pull", "job-1", "--format", "recipe", "--json").exit_code == 0
    assert (files / "job-1.json").exists()
    assert server.requests[-1][1].endswith("?format=recipe")
    assert secateur("pull", "job-1", "-o", "best.pt2").exit_code == 0
    assert (files / "best.pt2").read_bytes() == CHECKPOINT
    shown = secateur("pull", "../job-9")
    assert shown.exit_code == 1
    assert shown.stderr.startswith("secateur: There is nothing at ")


def test_inspect_needs_no_server(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 3))
    path = export_model(model, torch.zeros(2, 1, 8, 8), tmp_path / "net.pt2")
    shown = secateur("inspect", str(path))
    assert shown.exit_code == 0, shown.stderr
    assert "inputs: [batch, 1, 8, 8]" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
    found = json.loads(secateur("inspect", str(path), "--json").stdout)
    assert found["macs"] == 36 * 6 * 9 + 6 * 36 * 3
    assert 6 in [group["width"] for group in found["groups"]]

    path.write_bytes(b"no archive")
    shown = secateur("inspect", str(path))
    assert shown.exit_code == 1
    assert shown.stderr.startswith("secateur: model ")
    assert shown.stderr.count("\n") == 1


def test_serve_refuses_settings_that_cannot_be_used() -> None:
    shown = run("serve", "--ray-address", "head:8265")
    assert (shown.returncode, shown.stderr.count("\n")) == (1, 1)
    assert "http://head:8265" in shown.stderr
    exposed = run("serve", "--host", "0.0.0.0")  # noqa: S104 (refused is what is tested)
    assert exposed.returncode == 1
    assert "SECATEUR_TOKEN" in exposed.stderr


def test_a_server_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    shown = run("jobs", SECATEUR_URL="http://127.0.0.1:9")
    assert shown.returncode == 1
    assert shown.stderr.startswith("secateur: No Secateur server answers at http://127.0.0.1:9")
    assert shown.stderr.count("\n") == 1


def test_interrupting_a_watch_leaves_the_job_and_exits_130(server: FakeServer) -> None:
    """In a process of its own, since the interrupt is a real signal."""
    server.polls = deque([job_json("running", 1)])
    # A suite that runs in the background may have been started with interrupts ignored, which children inherit.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from service.cli import main; main()"
    command = [sys.executable, "-c", code, "watch", "job-1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while "running" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130
    assert errors == "The job goes on; follow it with: secateur watch job-1\n"
    assert not server.sent("POST", "/jobs/job-1/cancel")


def test_the_database_is_upgraded_by_hand(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    first, second = (secateur("db", "upgrade", "--database-url", url) for _ in range(2))
    assert first.output.strip().endswith("it was empty.")
    assert second.output.startswith("The database is up to date, at revision ")


@pytest.mark.parametrize(
    ("command", "becomes"), [("stop", "stopping"), ("pause", "pausing"), ("resume", "queued"), ("cancel", "cancelling")]
)
def test_a_job_is_controlled(server: FakeServer, command: str, becomes: str) -> None:
    shown = secateur(command, "job-1")
    assert (shown.exit_code, shown.stdout) == (0, f"job-1 is {becomes}\n")
    assert len(server.sent("POST", f"/jobs/job-1/{command}")) == 1


def test_a_job_is_deleted(server: FakeServer) -> None:
    assert secateur("delete", "job-1").stdout == "job-1 is deleted\n"
    assert len(server.sent("DELETE", "/jobs/job-1")) == 1
