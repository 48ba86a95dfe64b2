"""Trials that sleep instead of evaluating. Their processes import neither torch nor Secateur, so that many fit on a machine."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

from ray import tune

_POLL = 0.1


class SleepingTrial(tune.Trainable):
    """Takes its time and finds nothing.

    The first trial of each process begins once all are there: starting them takes minutes where there are many.
    """

    def setup(self, config: dict[str, Any], seconds: float, workers: int, folder: Path, heavy: bool) -> None:
        if heavy:  # as a worker of a job has it
            import torch  # noqa: F401

        self._seconds = seconds
        (folder / str(os.getpid())).touch()
        while len(list(folder.iterdir())) < workers:
            time.sleep(_POLL)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        return True

    def step(self) -> dict[str, Any]:
        return slept_through(self._seconds)


class Sleeper:
    """The same without Tune."""

    def step(self, seconds: float) -> dict[str, Any]:
        """A trial."""
        return slept_through(seconds)


def slept_through(seconds: float) -> dict[str, Any]:
    """What a trial returns that takes so long and finds nothing."""
    began = time.time()
    time.sleep(seconds)
    figures = {"score": 0.0, "metric": 0.0, "error": None, "trained": None, "losses": None, "done": True}
    return {**figures, **clocked(began), "node": socket.gethostname(), "process": os.getpid()}


def clocked(began: float) -> dict[str, float]:
    """When a trial ran, its seconds, and the memory that no other process shares, as Linux counts it."""
    private = 0
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_"):
            private += 1024 * int(line.split()[1])
    ended = time.time()
    return {"began": began, "ended": ended, "evaluate_seconds": ended - began, "private_bytes": private}
