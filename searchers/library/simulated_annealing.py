"""NNI's simulated annealing pruner on this package's machine; see ``searchers.simulated_annealing``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from pruners.config import ConfigList
from pruners.errors import InvalidInput
from searchers.library.base import SearchPruner
from searchers.library.network import WEIGHTS, Inputs
from searchers.simulated_annealing import FIRST, SimulatedAnnealing, SimulatedAnnealingParams


class SimulatedAnnealingPruner(SearchPruner):
    """Anneals how much each group of channels keeps, at the overall sparsity that was asked for.

    The temperature is taken from the spread of the first scores, so that no scale of the evaluator makes a walk of it that
    takes everything; what is left of NNI's temperatures is how often the search cools: log(stop / start) / log(rate) times,
    with a trial of each of ``chains`` walks every time, after eight first plans. It always ends.

    Args:
        model, config_list, evaluator, base_algo, optimize_mode, experiment_data_dir, dummy_input, metric, seed: see
            ``SearchPruner``.
        cool_down_rate: what each cooling multiplies the temperature by.
        start_temperature: above ``stop_temperature``.
        stop_temperature: above 0.
        perturbation_magnitude: the share of a group's channels that a move changes at most, at first.
        chains: walks side by side.

    Raises:
        InvalidInput: an argument that cannot be used, or a network that cannot be exported or read.
    """

    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        evaluator: Callable[[nn.Module], float],
        base_algo: str = "l1",
        cool_down_rate: float = 0.9,
        optimize_mode: str = "maximize",
        start_temperature: float = 100,
        stop_temperature: float = 20,
        perturbation_magnitude: float = 0.35,
        experiment_data_dir: str | Path | None = "./",
        *,
        dummy_input: Inputs | None = None,
        metric: str = WEIGHTS,
        chains: int = 2,
        seed: int = 0,
    ) -> None:
        self._walks = walks(cool_down_rate, start_temperature, stop_temperature, perturbation_magnitude, chains)
        super().__init__(
            model, config_list, evaluator, base_algo, optimize_mode, experiment_data_dir, dummy_input, metric, seed
        )
        self._limit = self._asked_limit()

    def compress(self) -> nn.Module:
        """Searches, and returns the network, which is the same object, masked to the best plan."""
        searcher = SimulatedAnnealing(self.network.space(self._limit), self._walks.params, self._seed, self._walks.trials)
        with self._searching() as dense:
            widths = self._search(searcher, lambda proposal: self._try(dense, proposal)).widths
            self._set(dense, widths)
        return self._finish(widths, self.history.performance(widths), self._limit)


@dataclass(frozen=True)
class Walks:
    """How to anneal: the machine's parameters, and the trials that the cooling takes."""

    params: SimulatedAnnealingParams
    trials: int


def walks(
    cool_down_rate: float, start_temperature: float, stop_temperature: float, perturbation_magnitude: float, chains: int
) -> Walks:
    """NNI's arguments as the machine takes them; raises ``InvalidInput`` about the first that cannot be used."""
    if not 0 < cool_down_rate < 1:
        raise InvalidInput("cool_down_rate", cool_down_rate, "must be between 0 and 1, both excluded, or it never cools")
    if not 0 < stop_temperature < start_temperature:
        problem = f"must be above 0 and below start_temperature, which is {start_temperature:g}"
        raise InvalidInput("stop_temperature", stop_temperature, problem)
    if not 0 < perturbation_magnitude <= 1:
        raise InvalidInput("perturbation_magnitude", perturbation_magnitude, "must be above 0 and at most 1")
    if chains < 1:
        raise InvalidInput("chains", chains, "must be 1 or more")
    coolings = math.ceil(math.log(stop_temperature / start_temperature) / math.log(cool_down_rate))
    return Walks(SimulatedAnnealingParams(chains=chains, largest_move=perturbation_magnitude), FIRST + coolings * chains)
