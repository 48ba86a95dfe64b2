"""The demo, step by step: train ▸ serve ▸ submit ▸ watch ▸ pull ▸ reload in a fresh process ▸ compare."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from pruners.errors import JobFailed, SecateurError
from pruners.graph.modules import build_module
from pruners.graph.program import read_program
from service.client import Client
from service.client.connection import ServerUnreachable
from service.demo.digits import make_data, train_network

BUDGET = {"metric": "macs", "ratio": 0.5}
RECOVERY = {"final_epochs": 20}
SEARCH = {"max_trials": 60, "max_concurrent": 2}
MOST_LOST = 0.02  # accuracy that the pruned network may lose: what the README promises of this demo
TOLERANCE = 1e-5  # between two processes that run the same network
START_SECONDS = 60  # for the API to answer; it takes about two

# Run with `python -I`: no class, no package of ours, nothing but torch.
_RELOAD = """
import sys, torch
images = torch.load(sys.argv[2], weights_only=True)
outputs = torch.export.load(sys.argv[1]).module()(images)
assert not {"pruners", "workers", "service"} & set(sys.modules)
torch.save(outputs.detach(), sys.argv[3])
"""


def tour() -> None:
    """Runs the demo and prints each step; see ``service.demo.run``."""
    console = Console(highlight=False, soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="secateur-demo-") as name:
        folder = Path(name)
        console.print("1. Training a small ResNet on scikit-learn's handwritten digits …")
        data = make_data(folder / "digits.npz")
        model = train_network(data)
        console.print("2. Starting the service (SQLite, a Ray of its own on this machine) …")
        with serving(folder / "data") as client:
            console.print(f"3. Posting the job to {client.url}: half of the MACs, searched by the default searcher …")
            job = client.submit(
                model,
                torch.tensor(data["x_train"][:2]),
                folder / "digits.npz",
                BUDGET,
                name="digits-half",
                recovery=RECOVERY,
                limits=SEARCH,
            )
            result = job.wait()
            console.print("4. Pulling the best network, and opening it in a fresh process that has torch alone …")
            checkpoint = job.download(folder / "digits-half.pt2")
            difference = _reload(checkpoint, data["x_test"], folder)
        _report(console, result, difference)
        _check(result, difference)


@contextmanager
def serving(data_dir: Path, **settings: str) -> Iterator[Client]:
    """A client of the real thing: ``secateur serve`` in a process of its own, on a free port, its files in ``data_dir``."""
    data_dir.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "service.cli", "serve", "--port", str(port), "--data-dir", str(data_dir)]
    own = {name: value for name, value in os.environ.items() if not name.startswith("SECATEUR_")}
    own |= {f"SECATEUR_{name.upper()}": value for name, value in settings.items()}
    with (data_dir / "service.log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log, env=own) as process:
        try:
            with Client(f"http://127.0.0.1:{port}", _token(data_dir, process)) as client:
                yield client
        except SecateurError:
            sys.stderr.write((data_dir / "service.log").read_text()[-2000:])
            raise
        finally:
            process.send_signal(signal.SIGINT)  # as Ctrl-C does: the service then ends its Ray as well
            process.wait()


def _token(data_dir: Path, process: subprocess.Popen[bytes]) -> str:
    """The token that the service saves when it starts."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if (data_dir / "token").exists():
            return (data_dir / "token").read_text().strip()
        time.sleep(0.1)
    raise ServerUnreachable(f"The service did not start; its log is {(data_dir / 'service.log').read_text()[-500:]!r}.")


def _reload(checkpoint: Path, images: np.ndarray[Any, Any], folder: Path) -> float:
    """Opens the checkpoint in another process; the largest difference from its outputs here, relative to the largest."""
    batch = torch.tensor(images)
    torch.save(batch, folder / "images.pt")
    command = [sys.executable, "-I", "-c", _RELOAD, str(checkpoint), str(folder / "images.pt"), str(folder / "outputs.pt")]
    subprocess.run(command, check=True, cwd=folder)
    there = torch.load(folder / "outputs.pt", weights_only=True)
    with torch.inference_mode():
        here = build_module(read_program(checkpoint))(batch)
    return float((there - here).abs().max() / here.abs().max())


def _report(console: Console, job: dict[str, Any], difference: float) -> None:
    baseline, best = job["baseline"], job["best"]
    rows = [
        (f"{job['metric']['title']} on the test images", "metric", "{:.2%}"),
        ("MACs", "macs", "{:,}"),
        ("parameters", "params", "{:,}"),
        ("latency of one image, ms", "latency_ms", "{:.3f}"),
        ("file, bytes", "size_bytes", "{:,}"),
    ]
    table = Table(title=f"Trial {best['trial']} of {job['counts']['succeeded']} is the best")
    for column in ("", "baseline", "pruned", "ratio"):
        table.add_column(column, justify="left" if column == "" else "right")
    for title, key, form in rows:
        table.add_row(title, form.format(baseline[key]), form.format(best[key]), f"{best[key] / baseline[key]:.3f}")
    console.print(table)
    console.print(f"Reloaded in a fresh process with torch alone: largest relative difference {difference:.1e}.")


def _check(job: dict[str, Any], difference: float) -> None:
    baseline, best = job["baseline"], job["best"]
    if best["macs"] > BUDGET["ratio"] * baseline["macs"]:
        raise JobFailed(f"The pruned network takes {best['macs']} MACs, more than half of {baseline['macs']}.")
    if baseline["metric"] - best["metric"] > MOST_LOST:
        raise JobFailed(f"The pruned network lost more than {MOST_LOST:.0%} accuracy.")
    if not difference <= TOLERANCE:
        raise JobFailed(f"The reloaded network's outputs differ by {difference:.1e}, more than {TOLERANCE}.")
