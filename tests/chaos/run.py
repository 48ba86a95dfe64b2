"""Processes of a running service are killed at random moments, and nothing may be lost: ``make chaos``.

    python -m tests.chaos.run --kills 200 --seed 0 --report chaos.json

A service of its own runs one job after the other, each by a deterministic searcher. At random moments, all drawn from the
seed, ``kill -9`` hits the API (which is started again), the job's process, one of its trials, the raylet or Ray's head.
Each job must end as an uninterrupted run of the same job did: the same trials, each told once with the same score, and the
same winner. A job that loses ten processes in a row without a new result fails by design, so after five kills in a row the next
one waits for a result. Several runs, one after the other on one report, add up.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pruners.errors import SecateurError
from service.client import Client
from service.heartbeat import LEASE_SECONDS
from service.texts import ENDED
from tests.digits import digits

TARGETS = ("api", "job", "worker", "raylet", "head")

# Of each the whole search is a function of its seed, whichever trial ends first: the annealing's because it runs alone.
SEARCHES: dict[str, dict[str, Any]] = {
    "netadapt": {"searcher": {"name": "netadapt", "params": {"rounds": 12}}},
    "random": {"searcher": {"name": "random"}},
    "sensitivity": {"searcher": {"name": "sensitivity"}},
    "simulated_annealing": {"searcher": {"name": "simulated_annealing"}, "limits": {"max_concurrent": 1}},
}

START_SECONDS = 120.0  # for the API to answer on a busy machine
MOST_IN_A_ROW = 5  # kills without a result of the job between them
JOB_SECONDS = 1800.0  # after which a job counts as lost; each kill costs it half a minute at most


@dataclass
class Report:
    """What came of a run; ``longest_silence`` is from the last kill or the job's last event to its next event, in seconds."""

    seed: int
    kills: dict[str, int] = field(default_factory=dict)
    jobs: int = 0
    jobs_lost: int = 0
    trials: int = 0
    trials_lost_or_doubled: int = 0
    other_plans: int = 0
    longest_silence: float = 0.0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


class Service:
    """``secateur serve`` on a data folder, whose processes can be killed."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.data = folder / "data"
        self.data.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.api = self._serve()
        self.client = self._connect()

    def ensure(self) -> None:
        """Starts the API again if it was killed."""
        if self.api.poll() is not None:
            self.api = self._serve()

    def restart(self) -> None:
        """The same, and waits until it answers."""
        self.ensure()
        self._connect().close()

    def kill(self, target: str, rng: random.Random) -> bool:
        """Kills one process of that kind, as ``kill -9`` does; whether there was one."""
        found = [self.api.pid] if target == "api" else self.processes(target)
        if not found:
            return False
        with suppress(ProcessLookupError):
            os.kill(rng.choice(sorted(found)), signal.SIGKILL)
            if target == "api":
                self.api.wait()
            return True
        return False

    def close(self) -> None:
        self.client.close()
        self.restart()
        self.api.send_signal(signal.SIGINT)
        self.api.wait()

    def _serve(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "service.cli", "serve", "--port", str(self.port), "--data-dir", str(self.data)]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SECATEUR_")}
        with (self.data / "service.log").open("a") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env={**clean, **self._environment})

    def _connect(self) -> Client:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with suppress(OSError, SecateurError):
                client = Client(f"http://127.0.0.1:{self.port}", (self.data / "token").read_text().strip())
                next(client.jobs(), None)
                return client
            time.sleep(0.2)
        raise TimeoutError((self.data / "service.log").read_text()[-2000:])

    def processes(self, target: str) -> list[int]:
        """Those of a kind, of our Ray alone: whatever it starts inherits the path of its token."""
        mark = {
            "job": b"\0service.run_job\0",
            "worker": b"ray::PruningTrial",
            "raylet": b"/raylet/raylet\0",
            "head": b"/gcs/gcs_server\0",
        }[target]
        token = f"RAY_AUTH_TOKEN_PATH={self.data / 'ray.token'}\0".encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                command = (process / "cmdline").read_bytes()
                shell = command.startswith((b"/bin/sh", b"sh\0"))
                if mark in command and not shell and token in (process / "environ").read_bytes():
                    found.append(int(process.name))
        return found


@contextmanager
def serving(folder: Path, environment: Mapping[str, str] = MappingProxyType({})) -> Iterator[Service]:
    """A service for a while."""
    service = Service(folder, environment)
    try:
        yield service
    finally:
        service.close()


def submit(client: Client, files: tuple[Path, Path], search: dict[str, Any], trials: int) -> str:
    """Creates a job; its id."""
    made = client.create_job(
        {
            "model": client.upload_model(files[0])["id"],
            "dataset": client.upload_dataset(files[1])["id"],
            "budget": {"metric": "macs", "ratio": 0.5},
            **search,
            "limits": {"max_trials": trials, **search.get("limits", {})},
            "resources": {"reuse": False},  # every run evaluates all of its trials
        }
    )
    return str(made["id"])


def outcome(client: Client, job_id: str) -> dict[str, Any]:
    """What a run found, whatever happened to it."""
    job, trials = client.job(job_id), list(client.trials(job_id))
    told = Counter(
        event["data"]["number"]
        for event in client.events(job_id)
        if event["type"] == "trial" and event["data"]["state"] in ("succeeded", "failed")
    )
    return {
        "state": job["state"],
        "reason": job["reason"],
        "best": job["best"] and job["best"]["trial"],
        "trials": [(trial["proposal"]["widths"], trial["outcome"] and trial["outcome"]["score"]) for trial in trials],
        "told": dict(told),
    }


def disturb(
    service: Service,
    job_id: str,
    rng: random.Random,
    pause: Callable[[], float],
    targets: deque[str],
    report: Report,
    until: float = math.inf,
) -> None:
    """Kills until the job has ended, takes what was hit off the targets, and waits for its end.

    No more is killed once the monotonic clock says ``until``.
    """
    began = seen = time.monotonic()
    events, at = 0, time.monotonic() + pause()
    in_a_row, results = 0, 0
    while time.monotonic() - began < JOB_SECONDS:
        service.ensure()
        with suppress(SecateurError):
            job = service.client.job(job_id)
            count = sum(1 for _ in service.client.events(job_id))
            if count != events:
                events, seen = count, time.monotonic()
            if job["state"] in ENDED:
                return
            if job["progress"]["finished"] > results:
                in_a_row, results = 0, job["progress"]["finished"]
        report.longest_silence = max(report.longest_silence, round(time.monotonic() - seen, 1))
        if targets and at <= time.monotonic() < until and in_a_row < MOST_IN_A_ROW:
            if service.kill(targets[0], rng):
                report.kills[targets[0]] = report.kills.get(targets[0], 0) + 1
                seen, in_a_row = time.monotonic(), in_a_row + 1
                targets.popleft()
            at = time.monotonic() + pause()
        time.sleep(0.3)
    report.faults.append(f"{job_id} did not end in {JOB_SECONDS:.0f} s")


def judge(name: str, found: dict[str, Any], whole: dict[str, Any], report: Report) -> None:
    """Compares a disturbed run with an undisturbed one."""
    report.jobs += 1
    report.trials += len(found["trials"])
    if found["state"] != "succeeded":
        report.jobs_lost += 1
        report.faults.append(f"{name} is {found['state']}: {found['reason']}")
        return
    wrong = sum(count != 1 for count in found["told"].values()) + abs(len(found["told"]) - len(whole["told"]))
    report.trials_lost_or_doubled += wrong
    if found["trials"] != whole["trials"] or found["best"] != whole["best"]:
        report.other_plans += 1
        report.faults.append(f"{name} found trial {found['best']}, undisturbed it finds trial {whole['best']}")


def chaos(
    folder: Path,
    seed: int,
    targets: Sequence[str],
    searches: Sequence[str],
    trials: int,
    gap: tuple[float, float],
    seconds: float,
) -> Report:
    """Runs jobs until every target was hit, or the time is up.

    Args:
        folder: empty.
        seed: of the moments.
        targets: what to kill, in this order.
        searches: keys of ``SEARCHES``, in turns.
        trials: of each job.
        gap: seconds from one kill to the next, at least and at most.
        seconds: after which no more is killed.
    """
    rng, began, left = random.Random(seed), time.monotonic(), deque(targets)
    report = Report(seed)
    files = digits(folder)
    with serving(folder) as service:
        wholes: dict[str, dict[str, Any]] = {}
        while left and time.monotonic() < began + seconds and len(report.faults) < 5:
            name = searches[report.jobs % len(searches)]
            if name not in wholes:
                job = submit(service.client, files, SEARCHES[name], trials)
                disturb(service, job, rng, lambda: 0.0, deque(), Report(seed))
                wholes[name] = outcome(service.client, job)
            job = submit(service.client, files, SEARCHES[name], trials)
            disturb(service, job, rng, lambda: rng.uniform(*gap), left, report, began + seconds)
            service.restart()
            judge(name, outcome(service.client, job), wholes[name], report)
            report.seconds = round(time.monotonic() - began)
            sys.stderr.write(f"{json.dumps(asdict(report))}\n")
    return report


def main() -> int:
    """The command line; fails if anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.run", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=150, help="of each job")
    parser.add_argument("--gap", type=float, nargs=2, default=(2.0, 20.0), help="seconds between two kills, least and most")
    parser.add_argument("--seconds", type=float, default=3 * 3600.0, help="after which no more is killed")
    parser.add_argument("--report", type=Path, help="a JSON line is added to this file")
    parsed = parser.parse_args()
    rng = random.Random(f"targets {parsed.seed}")
    targets = [rng.choice(TARGETS) for _ in range(parsed.kills)]
    with tempfile.TemporaryDirectory(prefix="secateur-chaos-") as folder:
        report = chaos(Path(folder), parsed.seed, targets, list(SEARCHES), parsed.trials, tuple(parsed.gap), parsed.seconds)
    line = json.dumps(asdict(report))
    if parsed.report is not None:
        with parsed.report.open("a") as file:
            file.write(line + "\n")
    sys.stdout.write(line + "\n")
    return int(bool(report.faults) or report.trials_lost_or_doubled > 0 or report.longest_silence > 2 * LEASE_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
