"""Pruners of whole output channels of convolutions and linear layers, each by one criterion.

A layer of ``n`` channels loses the ``floor(sparsity · n)`` with the lowest scores, of equals those with the higher index, and
their biases with them. Activations are seen before any BatchNorm, as NNI sees them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from pruners.calibration import Calibration, calibrate
from pruners.config import ConfigList
from pruners.criteria.apoz import ActivationAPoZRank
from pruners.criteria.base import LAYERS, Calibrated, Criterion, as_rows
from pruners.criteria.fpgm import FPGM
from pruners.criteria.l1_filter import L1Filter
from pruners.criteria.l2_filter import L2Filter
from pruners.criteria.mean_activation import ActivationMeanRank
from pruners.criteria.random import Random
from pruners.criteria.taylorfo import TaylorFOWeight
from pruners.errors import InvalidInput
from pruners.hooks import Watching
from pruners.library.base import Pruner
from pruners.library.dependency import coupled_sets, kept_together
from pruners.library.ranking import kept, share
from pruners.masking import Masks, channel_masks

Inputs = Tensor | tuple[Tensor, ...]


class FilterPruner(Pruner):
    """Masks whole output channels.

    Args:
        model: the network; it is masked itself, not a copy.
        config_list: see ``pruners.config``.
        optimizer: what trains the network; masked weights then stay zero behind each of its steps.
        dependency_aware: whether layers whose channels can only be removed together mask the same ones; see
            ``pruners.library.dependency``.
        dummy_input: an example ``[batch, …]``, or a tuple of them, which finding those layers takes; of no use otherwise.

    Raises:
        InvalidInput: a ``config_list`` that cannot be used, ``dependency_aware`` without an example, or with it a network that
            cannot be exported or read.
    """

    supported = LAYERS
    criterion: Criterion
    """Scores the channels of one layer."""

    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        optimizer: Optimizer | None = None,
        dependency_aware: bool = False,
        dummy_input: Inputs | None = None,
    ) -> None:
        if dependency_aware and dummy_input is None:
            raise InvalidInput("dummy_input", None, "is missing; dependency_aware=True needs an example batch of inputs")
        super().__init__(model, config_list, optimizer)
        self._sets = None
        if dependency_aware and dummy_input is not None:
            channels = {name: len(as_rows(layer, layer.get_parameter("weight"))) for name, layer in self.layers.items()}
            self._sets = coupled_sets(model, dummy_input, channels)

    def mask_to(self, sparsity: Mapping[str, float]) -> None:
        self._mask(sparsity, {})

    def _mask(self, sparsity: Mapping[str, float], statistics: Mapping[str, Tensor]) -> None:
        scores = {name: self.criterion.scores(layer, statistics.get(name)) for name, layer in self.layers.items()}
        before = {name: self._channels_before(name) for name in self.layers}
        stay: dict[str, Tensor] = {}
        if self._sets is None:
            for name, each in scores.items():
                stay[name] = kept(each, math.floor(share(sparsity[name], len(each))), before[name])
        else:
            for coupled in self._sets:
                stay.update(kept_together(coupled, scores, sparsity, before))
        for name, keep in stay.items():
            self._set(name, channel_masks(self.layers[name], keep))

    def _channels_before(self, name: str) -> Tensor | None:
        weights = self._before(name)
        return None if weights is None else as_rows(self.layers[name], weights).any(1).cpu()


class CalibratedPruner(FilterPruner):
    """Masks whole output channels by what data shows.

    Without ``calibration``, ``compress`` sets masks of ones and watches the caller's own passes. The first forward pass after
    ``statistics_batch_num`` batches, or the first look at ``masks``, sets the real ones; where several processes train
    together, every one of them must then come by. A copy of the network that is made before keeps the masks of ones.

    Args:
        model: the network; it is masked itself, not a copy.
        config_list: see ``pruners.config``.
        optimizer: what trains the network; masked weights then stay zero behind each of its steps.
        statistics_batch_num: how many batches to watch.
        calibration: batches ``[(inputs, targets), …]`` to look at instead, all of them, at once; a list or a ``DataLoader``.
        loss: of the outputs and the targets of ``calibration``, where gradients are needed.
        options: ``dependency_aware`` and ``dummy_input``, as for ``FilterPruner``.

    Raises:
        InvalidInput: as for ``FilterPruner``, or fewer batches than one.
    """

    criterion: Calibrated

    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        optimizer: Optimizer | None = None,
        statistics_batch_num: int = 1,
        calibration: Iterable[tuple[Tensor, Tensor]] | None = None,
        loss: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy,
        **options: Any,
    ) -> None:
        if statistics_batch_num < 1:
            raise InvalidInput("statistics_batch_num", statistics_batch_num, "must be 1 or more")
        super().__init__(model, config_list, optimizer, **options)
        self._batches = statistics_batch_num
        self._data = calibration
        self._loss = loss
        self._watch: Calibration | None = None
        self._wanted: Mapping[str, float] = {}
        self._handle: RemovableHandle | None = None

    def mask_to(self, sparsity: Mapping[str, float]) -> None:
        """As ``Pruner.mask_to``; without ``calibration`` as soon as the next batches have passed."""
        self._stop_watching()
        if self._data is not None:
            self._mask(sparsity, calibrate(self.model, self.layers, self.criterion, self._data, self._loss))
            return
        for name, layer in self.layers.items():
            if self._before(name) is None:
                self._set(name, channel_masks(layer, torch.ones(len(as_rows(layer, layer.get_parameter("weight"))))))
        self._wanted = dict(sparsity)
        self._watch = Calibration(self.layers, self.criterion, self._batches)
        self._handle = self.model.register_forward_pre_hook(Watching(lambda *_: self._settle()))

    @property
    def masks(self) -> Masks:
        self._settle()
        return super().masks

    def _settle(self) -> None:
        """Sets the masks that were asked for, once the batches have passed."""
        if self._watch is not None and self._watch.complete:
            statistics = self._watch.statistics()
            self._stop_watching()
            self._mask(self._wanted, statistics)

    def _stop_watching(self) -> None:
        if self._watch is not None and self._handle is not None:
            self._watch.close()
            self._handle.remove()
            self._watch = self._handle = None

    def _require_masks(self) -> None:
        super()._require_masks()
        if self._watch is not None:
            problem = f"have not all passed; run {self._batches} through the network first, or give calibration=[(x, y), …]"
            raise InvalidInput("statistics_batch_num", self._batches, problem)


class L1FilterPruner(FilterPruner):
    """Channels whose filters have the smallest Σ|w| go."""

    criterion = L1Filter()


class L2FilterPruner(FilterPruner):
    """Channels whose filters have the smallest √Σw² go."""

    criterion = L2Filter()


class FPGMPruner(FilterPruner):
    """Channels whose filters are nearest to all the others, in sum, go."""

    criterion = FPGM()


class RandomFilterPruner(FilterPruner):
    """Any channels go: the control for all others.

    Args:
        model, config_list, optimizer: as for ``FilterPruner``.
        seed: of the order in which channels go; the same seed gives the same order.
        options: ``dependency_aware`` and ``dummy_input``, as for ``FilterPruner``.
    """

    def __init__(
        self, model: nn.Module, config_list: ConfigList, optimizer: Optimizer | None = None, seed: int = 0, **options: Any
    ) -> None:
        super().__init__(model, config_list, optimizer, **options)
        self.criterion = Random(seed)


class ActivationAPoZRankFilterPruner(CalibratedPruner):
    """Channels that are zero after ReLU most often go."""

    criterion = ActivationAPoZRank()


class ActivationMeanRankFilterPruner(CalibratedPruner):
    """Channels with the smallest mean after ReLU go."""

    criterion = ActivationMeanRank()


class TaylorFOWeightFilterPruner(CalibratedPruner):
    """Channels with the smallest mean over batches of Σ(gradient · w)² go."""

    criterion = TaylorFOWeight()
