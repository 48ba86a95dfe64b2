"""NNI's sensitivity pruner on this package's machine; see ``searchers.sensitivity``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from pruners.config import ConfigList
from pruners.errors import InvalidInput
from searchers.base import Given, Proposal
from searchers.library.base import SearchPruner, State, called
from searchers.library.history import SensitivityRecord, read_probes
from searchers.library.network import WEIGHTS, Inputs
from searchers.sensitivity import Sensitivity, SensitivityParams
from searchers.space import SearchSpace, Widths

_PROBES = 6  # trials for each group in an iteration by default: half of them probe it alone, the others are plans


class SensitivityPruner(SearchPruner):
    """Prunes in iterations: measures what cutting each group of channels alone costs, cuts accordingly, and trains.

    Every iteration analyses the network as the last one left it, on the channels that are left, and takes away
    ``sparsity_per_iter`` of the whole; the last one ends exactly on the sparsity. Within an iteration groups are cut as far as
    the same damage allows, and plans around that one are tried.

    Args:
        model, config_list, base_algo, experiment_data_dir, optimize_mode, dummy_input, metric, seed: see ``SearchPruner``. A
            folder also gets ``sensitivity.json``, ``sensitivity.csv`` and ``sensitivity.svg``, the curves of every iteration.
        finetuner: trains the network in place behind every iteration; ``None`` trains nothing.
        evaluator: see ``compress``.
        sparsity_proportion_calc: of NNI's; refused, as the machine shares out the cut itself.
        sparsity_per_iter: what an iteration removes, of the whole.
        acc_drop_threshold: a group is not probed deeper once the evaluation is worse by more than this.
        checkpoint_dir: NNI's name for ``experiment_data_dir``; give one of the two.
        max_trials: of an iteration; by default six for each group.

    Attributes:
        sensitivities: by group, of the first iteration, the evaluation by the share of the group that was removed.

    Raises:
        InvalidInput: an argument that cannot be used, or a network that cannot be exported or read.
    """

    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        finetuner: Callable[..., object] | None,
        evaluator: Callable[..., float],
        base_algo: str = "l1",
        sparsity_proportion_calc: object = None,
        sparsity_per_iter: float = 0.1,
        acc_drop_threshold: float = 0.05,
        checkpoint_dir: str | Path | None = None,
        experiment_data_dir: str | Path | None = None,
        *,
        optimize_mode: str = "maximize",
        dummy_input: Inputs | None = None,
        metric: str = WEIGHTS,
        max_trials: int | None = None,
        seed: int = 0,
    ) -> None:
        if sparsity_proportion_calc is not None:
            problem = "is not taken: every group is cut as far as the same damage allows, so that the sparsity is met exactly"
            raise InvalidInput("sparsity_proportion_calc", None, problem)
        if not 0 < sparsity_per_iter < 1:
            raise InvalidInput("sparsity_per_iter", sparsity_per_iter, "must be between 0 and 1, both excluded")
        if not acc_drop_threshold > 0:
            raise InvalidInput("acc_drop_threshold", acc_drop_threshold, "must be above 0")
        if checkpoint_dir is not None and experiment_data_dir is not None:
            raise InvalidInput(
                "checkpoint_dir", str(checkpoint_dir), "is another name of experiment_data_dir; give one of the two"
            )
        if max_trials is not None and max_trials < 1:
            raise InvalidInput("max_trials", max_trials, "must be 1 or more")
        folder = experiment_data_dir if checkpoint_dir is None else checkpoint_dir
        super().__init__(model, config_list, evaluator, base_algo, optimize_mode, folder, dummy_input, metric, seed)
        self._fine_tune = None if finetuner is None else called("finetuner", finetuner)
        self._limit = self._asked_limit()
        self._step = sparsity_per_iter * self.network.cost(self.network.dense)
        self._params = SensitivityParams(threshold=acc_drop_threshold)
        self._max_trials = max_trials
        self._records = SensitivityRecord(self.network, None if folder is None else Path(folder))

    @property
    def sensitivities(self) -> dict[str, dict[float, float]]:
        return self._records.first

    def compress(
        self,
        eval_args: Sequence[Any] | None = None,
        eval_kwargs: Mapping[str, Any] | None = None,
        finetune_args: Sequence[Any] | None = None,
        finetune_kwargs: Mapping[str, Any] | None = None,
        resume_sensitivity: str | Path | None = None,
    ) -> nn.Module:
        """Analyses, cuts and trains, and returns the network, which is the same object, masked.

        Args:
            eval_args, eval_kwargs: what the evaluator is called with, as in NNI; with neither, the model alone.
            finetune_args, finetune_kwargs: likewise for the fine-tuner.
            resume_sensitivity: a ``sensitivity.json`` of the same network, whose first analysis is not made again.

        Raises:
            InvalidInput: a file of another network, or an evaluator that gives no number for any plan.
        """
        arguments, options = _call(eval_args, eval_kwargs, self.model)
        known = [] if resume_sensitivity is None else read_probes(Path(resume_sensitivity), self.network)
        widths, performance = self.network.dense, 0.0
        with self._searching():
            for limit in self._limits():
                if self.network.cost(widths) <= limit:
                    continue
                start, space = self._state(), self.network.space(limit, widths)
                widths, performance = self._analyse(start, space, known, arguments, options)
                known, stay = [], self._set(start, widths)
                if self._fine_tune is not None:
                    tuned, tuning = _call(finetune_args, finetune_kwargs, self.model)
                    self._fine_tune(*tuned, **tuning)
                    self.network.mask(stay)
                    performance = self._evaluate(*arguments, **options)
        return self._finish(widths, performance, self._limit)

    def _limits(self) -> list[int]:
        """What the network may cost behind each iteration."""
        dense = self.network.cost(self.network.dense)
        iterations = max(1, math.ceil((dense - self._limit) / self._step - 1e-9))  # 0.1 is no binary fraction
        return [*(dense - math.floor(n * self._step) for n in range(1, iterations)), self._limit]

    def _analyse(
        self,
        start: State,
        space: SearchSpace,
        known: Sequence[tuple[Widths, float]],
        arguments: Sequence[Any],
        options: Mapping[str, Any],
    ) -> tuple[Widths, float]:
        """Searches an iteration's plans, from a state; returns the best one and what the evaluator says of it."""
        searcher = Sensitivity(space, self._params, self._seed, self._max_trials or 1 + _PROBES * len(space.searchable))
        for number, (widths, value) in enumerate(known):
            if space.holds(widths):
                searcher.give(Given(Proposal(number, widths), self._outcome(value)))
        first = len(self.history.trials)
        widths = self._search(searcher, lambda proposal: self._try(start, proposal, *arguments, **options)).widths
        found = {**dict(known), **{trial.widths: trial.performance for trial in self.history.trials[first:]}}
        self._records.add(space.dense, found)
        return widths, found[widths]


def _call(
    arguments: Sequence[Any] | None, options: Mapping[str, Any] | None, model: nn.Module
) -> tuple[list[Any], dict[str, Any]]:
    """What the caller's function is called with."""
    return list(arguments or ([] if options else [model])), dict(options or {})
