"""The Tune trainable that Ray's dashboard lists: a thin shell around the evaluator."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from searchers.base import Outcome
from searchers.tune import PROPOSAL, WIDTHS
from workers.background import Background
from workers.data import Splits
from workers.evaluator import Evaluator, Pruned
from workers.spec import JobSpec

REPORT, TRAINED = "report", "trained"
"""Keys of a training trial's results: a line about an epoch; in the end a reference to what was kept and the weights."""


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
        self._training: Background[tuple[Outcome, Pruned | None]] | None = None
        self._start = time.perf_counter()
        return True

    def step(self) -> dict[str, Any]:
        """The whole trial; of one that trains, the next epoch, and behind the last one what came of it."""
        if self._evaluator.schedule is None:
            return self._result(self._evaluator.evaluate(self._widths))
        if self._training is None:
            self._training = Background(lambda report: self._evaluator.evaluate_keeping(self._widths, report))
        report = self._training.report()
        if report is not None:
            return {REPORT: report}
        outcome, pruned = self._training.result()
        trained = None if pruned is None else ray.put((pruned.keep, pruned.network.state_dict()))
        return {**self._result(outcome), TRAINED: trained}

    def _result(self, outcome: Outcome) -> dict[str, Any]:
        return {
            "score": outcome.score,
            "metric": outcome.metric,
            "error": outcome.error,
            "evaluate_seconds": time.perf_counter() - self._start,
            "node": socket.gethostname(),
            "process": os.getpid(),
            "done": True,
        }
