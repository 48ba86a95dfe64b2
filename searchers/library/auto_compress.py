"""NNI's AutoCompress: rounds of annealing, ADMM towards what it found, and real removal.

Liu et al., AutoCompress: An Automatic DNN Structured Pruning Framework for Ultra-High Compression Rates, AAAI 2020,
arXiv 1907.03141.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pruners.config import ConfigList
from pruners.errors import InvalidInput
from pruners.masking import masks_of, remove_masks
from pruners.schedules.admm import ADMMPruner
from pruners.speedup import ModelSpeedup
from searchers.library.base import SearchPruner, called
from searchers.library.history import History
from searchers.library.network import WEIGHTS, Inputs, network_of
from searchers.library.simulated_annealing import walks
from searchers.simulated_annealing import SimulatedAnnealing
from searchers.space import Widths


class AutoCompressPruner(SearchPruner):
    """Prunes in rounds, each of which searches, trains and removes; the next begins with the smaller network.

    Every round leaves the same share of what the last one left, (1 − sparsity)^(1/rounds), and the last one ends exactly on the
    sparsity. In each, simulated annealing finds what every group of channels keeps; ADMM trains the network towards that; then
    the weakest channels, by what ADMM left of them, are removed. The paper's purification is not done.

    Args:
        model: the network; it is copied, not changed.
        config_list, evaluator, optimize_mode, experiment_data_dir, dummy_input, metric, seed: see ``SearchPruner``. The folder
            gets one for each round.
        trainer: trains one epoch; see ``pruners.ADMMPruner``.
        num_iterations: rounds.
        base_algo: ``l1`` or ``l2``, which both the search and ADMM know.
        cool_down_rate, start_temperature, stop_temperature, perturbation_magnitude, chains: see ``SimulatedAnnealingPruner``.
        admm_num_iterations, admm_training_epochs, row, criterion, dual_step: ``num_iterations``, ``epochs``, ``rho``,
            ``criterion`` and ``dual_step`` of ``pruners.ADMMPruner``; ``row`` is NNI's spelling.

    Attributes:
        model: after ``compress`` the smaller network.
        history: the trials of the last round.

    Raises:
        InvalidInput: an argument that cannot be used, or a network that cannot be exported or read.
    """

    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        trainer: Callable[..., object],
        evaluator: Callable[[nn.Module], float],
        dummy_input: Inputs,
        num_iterations: int = 3,
        base_algo: str = "l1",
        cool_down_rate: float = 0.9,
        admm_num_iterations: int = 30,
        admm_training_epochs: int = 5,
        optimize_mode: str = "maximize",
        start_temperature: float = 100,
        stop_temperature: float = 20,
        perturbation_magnitude: float = 0.35,
        row: float = 1e-4,
        criterion: Callable[..., Tensor] | None = None,
        experiment_data_dir: str | Path | None = "./",
        *,
        dual_step: float = 1.0,
        metric: str = WEIGHTS,
        chains: int = 2,
        seed: int = 0,
    ) -> None:
        if base_algo not in ("l1", "l2"):
            raise InvalidInput("base_algo", base_algo, "must be l1 or l2: whole channels, as ADMM projects them")
        for field, value in {
            "num_iterations": num_iterations,
            "admm_num_iterations": admm_num_iterations,
            "admm_training_epochs": admm_training_epochs,
        }.items():
            if value < 1:
                raise InvalidInput(field, value, "must be 1 or more")
        self._walks = walks(cool_down_rate, start_temperature, stop_temperature, perturbation_magnitude, chains)
        super().__init__(
            copy.deepcopy(model), config_list, evaluator, base_algo, optimize_mode, None, dummy_input, metric, seed
        )
        self._trainer = called("trainer", trainer)
        self._folder = None if experiment_data_dir is None else Path(experiment_data_dir)
        self._dummy_input, self._base_algo, self._rounds = dummy_input, base_algo, num_iterations
        self._limit = self._asked_limit()
        self._admm: dict[str, Any] = {
            "num_iterations": admm_num_iterations,
            "epochs": admm_training_epochs,
            "rho": row,
            "criterion": criterion,
            "dual_step": dual_step,
            "base_algo": base_algo,
            "dependency_aware": True,
            "dummy_input": dummy_input,
        }
        self._compressed = False

    def compress(self) -> nn.Module:
        """Runs the rounds; returns the smaller network, channels removed for real, in eval mode."""
        for number, limit in enumerate(self._limits(), 1):
            if number > 1:
                self.network = network_of(self.model, self.config, self._base_algo, self.network.metric, self._dummy_input)
            if self.network.cost(self.network.dense) <= limit:
                continue
            folder = None if self._folder is None else self._folder / f"round_{number}"
            self.history = History(self.network, folder)
            widths = self._anneal(limit)
            self._train_towards(widths)
            self._remove(widths, limit)
        self._compressed = True
        return self.model

    def _limits(self) -> list[int]:
        """What the network may cost behind each round."""
        dense = self.network.cost(self.network.dense)
        shares = ((self._limit / dense) ** (number / self._rounds) for number in range(1, self._rounds))
        return [*(max(self._limit, math.floor(share * dense)) for share in shares), self._limit]

    def _anneal(self, limit: int) -> Widths:
        """The best plan for the network as it is, which stays so."""
        searcher = SimulatedAnnealing(self.network.space(limit), self._walks.params, self._seed, self._walks.trials)
        with self._searching() as before:
            widths = self._search(searcher, lambda proposal: self._try(before, proposal)).widths
            self._restore(before)
        return widths

    def _train_towards(self, widths: Widths) -> None:
        """Trains until cutting the channels that go costs little."""
        shares = {layer: share for layer, share in self.network.sparsity(widths).items() if share}
        config_list = [{"sparsity": share, "op_names": [layer]} for layer, share in shares.items()]
        ADMMPruner(self.model, config_list, self._trainer, **self._admm).compress()
        remove_masks(self.model)  # zeros stay, so that these channels are the first to go

    def _remove(self, widths: Widths, limit: int) -> None:
        self.network.mask(self.network.kept(widths))
        masks = masks_of(self.model)
        self.history.finish(widths, self._evaluate(), limit, masks)
        self.model = ModelSpeedup(self.model, self._dummy_input, masks).speedup_model()

    def _require_masks(self) -> None:
        if not self._compressed:
            raise InvalidInput("model", None, "is not compressed yet; call compress() first")
