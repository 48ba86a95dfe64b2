"""The Tune trainable that Ray's dashboard lists: a thin shell around the evaluator."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import torch
from ray import tune

from searchers.tune import PROPOSAL, WIDTHS
from workers.data import Splits
from workers.evaluator import Evaluator
from workers.spec import JobSpec


class PruningTrial(tune.Trainable):
    """One process that evaluates plan after plan; model, data and scores stay loaded between trials."""

    def setup(self, config: dict[str, Any], model: Path, data: Splits, spec: JobSpec) -> None:
        """Loads what every trial needs, once per process."""
        torch.set_num_threads(spec.resources.cpus)
        self._evaluator = Evaluator(model, data, spec)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes up the next plan in the same process."""
        self._proposal: int = new_config[PROPOSAL]
        self._widths: list[int] = new_config[WIDTHS]
        return True

    def step(self) -> dict[str, Any]:
        """The whole trial."""
        start = time.perf_counter()
        outcome = self._evaluator.evaluate(self._widths)
        return {
            "score": outcome.score,
            "metric": outcome.metric,
            "error": outcome.error,
            "evaluate_seconds": time.perf_counter() - start,
            "node": socket.gethostname(),
            "process": os.getpid(),
            "done": True,
        }
