"""The Tune trainable that Ray's dashboard lists: a thin shell around the evaluator."""

from __future__ import annotations

import os
import socket
import time
from io import BytesIO
from typing import Any

import ray
from numpy.typing import NDArray
from ray import tune

from searchers.base import Outcome, Training
from searchers.tune import PARENT, PROPOSAL, RACE, TRAINING, WIDTHS
from workers.background import Background
from workers.data import Splits
from workers.device import missing, prepare, unrounded
from workers.evaluator import Findings
from workers.memory import Tidying
from workers.passes import Race
from workers.pruned import Pruned, State
from workers.spec import JobSpec
from workers.weight_evaluator import make_evaluator

REPORT, TRAINED, LOSSES = "report", "trained", "losses"
"""Keys of a trial's results: a line about an epoch; in the end a reference to the ``State`` of a network that was trained, and
the losses by search image if it saw all of them and later trials may race it."""


class PruningTrial(tune.Trainable):
    """One process that evaluates plan after plan; model, data and scores stay loaded between trials."""

    def setup(
        self, config: dict[str, Any], model: NDArray[Any], data: Splits, spec: JobSpec, found: Findings, races: bool = False
    ) -> None:
        """Loads what every trial needs, once per process; ``model`` is the bytes of a file that may lie elsewhere."""
        prepare(spec.resources)
        self._missing = missing(spec.resources)
        if (told := unrounded(spec)) is not None:
            print(told, flush=True)  # noqa: T201  (the actor's log in Ray's dashboard)
        self._evaluator = make_evaluator(BytesIO(model.data), data, spec, found)
        self._races = races
        self._tidy = Tidying()
        self._parent: ray.ObjectRef[State] | None = None
        self._start: Pruned | None = None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes up the next plan in the same process."""
        self._widths: list[int] = new_config[WIDTHS]
        widths = ", ".join(f"{layer} {width}" for layer, width in self._evaluator.plan(self._widths).widths.items())
        print(f"Trial {new_config[PROPOSAL]} keeps of each layer: {widths}", flush=True)  # noqa: T201  (the actor's log in Ray's dashboard)
        self._training: Training | None = new_config[TRAINING]
        self._race: Race | None = new_config[RACE]
        if new_config[PARENT] != self._parent:  # else what is known about it stands
            self._parent = new_config[PARENT]
            self._start = None if self._parent is None else self._evaluator.restored(ray.get(self._parent))
        self._work: Background[tuple[Outcome, Pruned | None]] | None = None
        self._began = time.perf_counter()
        return True

    def step(self) -> dict[str, Any]:
        """The whole trial; of one that trains, the next epoch, and behind the last one what came of it."""
        if self._missing is not None:
            return self._result(Outcome(None, error=self._missing), None)
        if self._evaluator.schedule is None and self._training is None:
            return self._result(*self._evaluator.evaluate_keeping(self._widths, self._start, race=self._race))
        if self._work is None:
            self._work = Background(
                lambda report: self._evaluator.evaluate_keeping(self._widths, self._start, self._training, report, self._race)
            )
        report = self._work.report()
        return self._result(*self._work.result()) if report is None else {REPORT: report}

    def _result(self, outcome: Outcome, pruned: Pruned | None) -> dict[str, Any]:
        result = {
            # One without a step of training in it is soon cut again.
            TRAINED: ray.put(pruned.state()) if pruned is not None and pruned.steps else None,
            LOSSES: pruned.losses if pruned is not None and self._races else None,
            "score": outcome.score,
            "metric": outcome.metric,
            "error": outcome.error,
            "drop": outcome.drop,
            "evaluate_seconds": time.perf_counter() - self._began,
            "node": socket.gethostname(),
            "process": os.getpid(),
            "done": True,
        }
        self._tidy()
        return result
