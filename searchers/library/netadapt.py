"""NNI's NetAdapt pruner on this package's machine; see ``searchers.netadapt``."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from pruners.config import ConfigList
from pruners.errors import InvalidInput
from searchers.base import Proposal
from searchers.library.base import SearchPruner, State, called
from searchers.library.network import WEIGHTS, Inputs
from searchers.netadapt import NetAdapt, NetAdaptParams
from searchers.space import Widths


class NetAdaptPruner(SearchPruner):
    """Prunes in rounds, each of which cuts the one group of channels that it costs least to cut, and trains as it goes.

    In every round each group alone is cut as far as the round asks, from the last round's winner, with its weights. Every such
    candidate is trained for a short while and evaluated; the weights of the round's winner carry on. Channels that come back to
    a group have their first weights. The rounds are as many as ``sparsity_per_iteration`` goes into the sparsity, and end
    exactly on it. A round whose trials all fail ends the search with what it has.

    Args:
        model, config_list, evaluator, base_algo, optimize_mode, experiment_data_dir, dummy_input, metric, seed: see
            ``SearchPruner``.
        short_term_fine_tuner: trains the model that it is given in place, a short while.
        sparsity_per_iteration: what a round removes, of the whole.
        choice: what wins a round: ``loss_per_saving``, the least lost per cost saved, or ``score``, the best evaluation, which
            is NNI's and the paper's.

    Raises:
        InvalidInput: an argument that cannot be used, or a network that cannot be exported or read.
    """

    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        short_term_fine_tuner: Callable[[nn.Module], object],
        evaluator: Callable[[nn.Module], float],
        base_algo: str = "l1",
        optimize_mode: str = "maximize",
        experiment_data_dir: str | Path | None = "./",
        sparsity_per_iteration: float = 0.05,
        *,
        dummy_input: Inputs | None = None,
        metric: str = WEIGHTS,
        choice: Literal["loss_per_saving", "score"] = "loss_per_saving",
        seed: int = 0,
    ) -> None:
        if not 0 < sparsity_per_iteration < 1:
            raise InvalidInput("sparsity_per_iteration", sparsity_per_iteration, "must be between 0 and 1, both excluded")
        if choice not in ("loss_per_saving", "score"):
            raise InvalidInput("choice", choice, "must be loss_per_saving or score")
        self._fine_tune = called("short_term_fine_tuner", short_term_fine_tuner)
        super().__init__(
            model, config_list, evaluator, base_algo, optimize_mode, experiment_data_dir, dummy_input, metric, seed
        )
        self._limit = self._asked_limit()
        dense = self.network.cost(self.network.dense)
        self._rounds = max(1, math.ceil((dense - self._limit) / (sparsity_per_iteration * dense) - 1e-9))  # 0.05 is no binary
        self._choice = choice

    def compress(self) -> nn.Module:
        """Searches and trains, and returns the network, which is the same object, masked to the last round's winner."""
        space = self.network.space(self._limit)
        groups = len(space.searchable)
        params = NetAdaptParams(rounds=self._rounds, decay=1.0, winners=1, candidates=groups, choice=self._choice)
        searcher = NetAdapt(space, params, self._seed, self._rounds * groups)
        with self._searching() as dense, tempfile.TemporaryDirectory() as folder:
            states = _States(Path(folder), space.dense, dense)

            def run(proposal: Proposal) -> float:
                self._train(dense, *states.nearest(searcher.base), proposal.widths)
                states.add(proposal.widths, self._state())
                return self._evaluate()

            widths = self._search(searcher, run).widths
            self._set(states.nearest(widths)[1], widths)
        return self._finish(widths, self.history.performance(widths), self._limit)

    def _train(self, dense: State, start: Widths, state: State, widths: Widths) -> None:
        """The network of widths ``start`` in ``state``, masked to ``widths`` and trained a short while."""
        self._restore(state)
        before, after = (self.network.kept(each) for each in (start, widths))
        for name, tensor in self._tensors().items():
            if name in before:
                back = after.get(name, torch.ones_like(before[name])) & ~before[name]
                tensor.data[back.to(tensor.device)] = dense[name][back.to(dense[name].device)]
        self.network.mask(after)
        self._fine_tune(self.model)
        self.network.mask(after)


class _States:
    """The weights of the candidates of one round, on disk, and of what they were cut from."""

    def __init__(self, folder: Path, widths: Widths, state: State) -> None:
        self._folder = folder
        self._base = (widths, state)
        self._files: dict[Widths, Path] = {}

    def add(self, widths: Widths, state: State) -> None:
        """Takes a candidate's weights."""
        self._files[widths] = self._folder / f"{len(self._files)}.pt"
        torch.save(state, self._files[widths])

    def nearest(self, widths: Widths) -> tuple[Widths, State]:
        """The candidate of these widths, or the most alike, with its weights; of another round the others are forgotten."""

        def distance(other: Widths) -> int:
            return sum(abs(a - b) for a, b in zip(widths, other, strict=True))

        found = min([self._base[0], *self._files], key=distance)
        if found != self._base[0]:
            self._base = (found, torch.load(self._files[found], weights_only=True))
            self._files.clear()
        return self._base
