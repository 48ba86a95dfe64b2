"""A caller's network as something to search over: groups of channels, or of single weights, their cost, and masks for any plan.

The search sees widths alone. What a plan means for the network is decided here: which channels of a group stay, by the weights
as they are when the plan is made, and what has to be zero so that the masked network computes what the smaller one will.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor, nn

from pruners.config import LayerConfig
from pruners.cost import LATENCY, CostModel, Linear, Polynomial, Term
from pruners.criteria.base import Criterion
from pruners.criteria.fpgm import FPGM
from pruners.criteria.l1_filter import L1Filter
from pruners.criteria.l2_filter import L2Filter
from pruners.criteria.lamp import LAMP
from pruners.criteria.random import Random
from pruners.errors import InvalidInput
from pruners.graph.check import traced
from pruners.graph.costs import Forms
from pruners.graph.export import plain_copy
from pruners.graph.groups import Group as Channels
from pruners.importance import choose, group_scores
from pruners.latency_table import LatencyTable
from pruners.library.ranking import kept
from pruners.masking import PARTS, remove_masks, set_masks
from pruners.speedup import as_graph
from searchers.space import Budget, Group, SearchSpace, Widths

WEIGHTS = "weights"
"""The metric that NNI's sparsities are about: weights of the selected layers, biases aside, after removal."""
METRICS = (WEIGHTS, "macs", "params", "size_bytes", LATENCY)

LEVEL = "level"
CRITERIA: Mapping[str, Criterion] = {"l1": L1Filter(), "l2": L2Filter(), "fpgm": FPGM(), "lamp": LAMP(), "random": Random()}
"""By the names that NNI gives them as ``base_algo``, those that need no data; beside them there is ``level``."""

_LEVELS = 1024  # steps from a layer's weights to none with ``level``: finer ones only make a search longer

Inputs = Tensor | tuple[Tensor, ...]
Kept = dict[str, Tensor]
"""By name of a parameter or buffer what of it is kept, bool in its shape."""


class Network(ABC):
    """A network, its groups and their cost.

    Args:
        model: the caller's.
        groups: the variables of a search.
        cost: of their widths.
        metric: what is bounded.

    Attributes:
        names: of the groups.
        dense: the groups' widths in the whole network.
    """

    def __init__(self, model: nn.Module, groups: Sequence[Group], cost: CostModel, metric: str) -> None:
        self.model = model
        self.metric = metric
        self._groups = tuple(groups)
        self._cost = cost
        self.names = tuple(group.name for group in groups)
        self.dense: Widths = tuple(group.width for group in groups)

    def cost(self, widths: Sequence[int]) -> int:
        """What a network of these widths costs."""
        return self._cost(self.metric, widths)

    def limit(self, field: str, given: float, share: float, round_to: int = 1) -> int:
        """The most that a share of the dense network's cost allows.

        Args:
            field: what the caller typed.
            given: the number that they typed.
            share: in 0…1, both excluded.
            round_to: as for ``space``.

        Raises:
            InvalidInput: no plan costs as little; the least share that one does is named.
        """
        dense, least = self.cost(self.dense), self.cost(self.space(self.cost(self.dense) - 1, round_to=round_to).least)
        limit = math.floor(Fraction(repr(float(share))) * dense)
        if limit < least:
            problem = f"is out of reach: of the {dense:,} {self.metric} {least:,} stay at least, a share of {least / dense:.4f}"
            raise InvalidInput(field, given, problem)
        return limit

    def space(self, limit: int, widest: Widths | None = None, round_to: int = 1) -> SearchSpace:
        """All plans that a search may try.

        Args:
            limit: the most that a plan may cost in the end.
            widest: widths to start from, the dense ones if ``None``.
            round_to: widths are multiples of this in the groups whose widest width is one.
        """
        groups = [
            Group(group.name, width, group.divisor, min(group.minimum, width), group.residual)
            for group, width in zip(self._groups, widest or self.dense, strict=True)
        ]
        return SearchSpace(groups, self._cost, Budget(self.metric, limit), round_to)

    @abstractmethod
    def kept(self, widths: Widths) -> Kept:
        """What stays of each parameter and buffer that a plan touches, the weakest by the weights as they are now gone."""

    @abstractmethod
    def sparsity(self, widths: Widths) -> dict[str, float]:
        """By selected layer the share of its output channels, or weights, that a plan removes."""

    def mask(self, stay: Kept) -> None:
        """Silences in the model whatever does not stay: weights and biases by masks, other tensors by zeros in place."""
        parts: dict[str, dict[str, Tensor | None]] = {}
        tensors = _tensors(self.model)
        for name, keep in stay.items():
            module, _, part = name.rpartition(".")
            if part in PARTS and part in self.model.get_submodule(module)._parameters:
                parts.setdefault(module, dict.fromkeys(PARTS))[part] = keep
            else:
                tensors[name].data.mul_(keep.to(tensors[name]))
        for module, masks in parts.items():
            set_masks(self.model.get_submodule(module), masks)


class ChannelNetwork(Network):
    """Whole channels, coupled ones together, so that what is masked can be removed.

    Raises:
        InvalidInput: a network that cannot be exported or read, or in which the selected layers have no channel to remove.
    """

    def __init__(
        self, model: nn.Module, layers: Mapping[str, LayerConfig], metric: str, criterion: Criterion, dummy_input: Inputs
    ) -> None:
        plain = plain_copy(model)
        remove_masks(plain)
        self._module = as_graph(plain, (dummy_input,) if isinstance(dummy_input, Tensor) else tuple(dummy_input))
        self.coupling = traced(self._module)
        self._criterion = criterion
        self._layers = tuple(layers)
        self._tensors = _tensors(self._module)
        usable = [self._reason(group, model, layers) is None for group in self.coupling.prunable]
        groups = [
            Group(group.name, group.width, group.divisor, group.minimum if use else group.width, group.residual)
            for group, use in zip(self.coupling.prunable, usable, strict=True)
        ]
        if not any(group.minimum < group.width for group in groups):
            raise InvalidInput("config_list", None, f"selects no channels that can be removed: {self._why_none(model, layers)}")
        super().__init__(model, groups, self._costs(metric, dummy_input), metric)

    def kept(self, widths: Widths) -> Kept:
        with torch.no_grad():
            for name, tensor in _tensors(self.model).items():
                if name in self._tensors and self._tensors[name].shape == tensor.shape:
                    self._tensors[name].copy_(tensor)
        scores = group_scores(self._module, self.coupling, self._criterion)
        stays = self.coupling.kept(choose(self.coupling, scores, widths))
        found: Kept = {}
        for member in self.coupling.members:
            gone = np.flatnonzero((member.classes >= 0) & ~stays[member.classes])
            if len(gone) and not member.tensor.endswith("running_var"):  # zero would be a division by it
                tensor = self._tensors[member.tensor]
                keep = found.setdefault(member.tensor, torch.ones(tensor.shape, dtype=torch.bool))
                keep.index_fill_(member.dim, torch.from_numpy(gone), False)
        return found

    def sparsity(self, widths: Widths) -> dict[str, float]:
        shares = self.coupling.layer_widths(widths)
        return {layer: 1 - shares[layer][0] / shares[layer][1] for layer in self._layers if layer in shares}

    def _costs(self, metric: str, dummy_input: Inputs) -> CostModel:
        if metric == LATENCY:
            if not isinstance(dummy_input, Tensor):
                raise InvalidInput("metric", metric, "is for networks that take one tensor; use macs")
            return LatencyTable(self._module, self.coupling, dummy_input.cpu()).cost()
        if metric != WEIGHTS:
            return self.coupling.cost
        groups = self.coupling.prunable
        forms = Forms(groups, self.coupling.members, self.coupling.factors)
        weights = {id(self._tensors[name]): name for layer in self._layers if (name := f"{layer}.weight") in self._tensors}
        terms = [term for name in weights.values() for term in forms.elements(name, self._tensors[name])]
        return CostModel([group.divisor for group in groups], {WEIGHTS: Polynomial(terms, len(groups))})

    def _reason(self, group: Channels, model: nn.Module, layers: Mapping[str, LayerConfig]) -> str | None:
        """Why the channels of a group stay; ``None`` if they may go."""
        if group.frozen_reason is not None:
            return f"{group.name} {group.frozen_reason}"
        left_out = [layer for layer in group.layers if layer not in layers]
        if left_out:
            return f"{group.name} only loses channels together with {', '.join(left_out)}, which it leaves out"
        tensors = _tensors(model)
        for member in self.coupling.members:
            own = np.isin(self.coupling.factors[member.classes[member.classes >= 0]], group.classes).any()
            if own and (member.tensor not in tensors or tensors[member.tensor].shape != self._tensors[member.tensor].shape):
                return f"{group.name} runs through {member.tensor}, which the model computes from other parameters"
        return None

    def _why_none(self, model: nn.Module, layers: Mapping[str, LayerConfig]) -> str:
        touched = [group for group in self.coupling.groups if set(group.layers) & set(layers)]
        reasons = [self._reason(group, model, layers) or f"{group.name} has one channel" for group in touched]
        return reasons[0] if reasons else "the network puts out what its layers compute"


class WeightNetwork(Network):
    """Single weights of each selected layer, the smallest first. Zeros in place make no network smaller."""

    def __init__(self, model: nn.Module, layers: Mapping[str, LayerConfig]) -> None:
        self._layers = tuple(layers)
        sizes = [model.get_submodule(layer).get_parameter("weight").numel() for layer in layers]
        divisors = [_step(size) for size in sizes]
        groups = [Group(*of) for of in zip(layers, sizes, divisors, divisors, strict=True)]
        terms = [Term(divisor, Linear(0, {group: 1})) for group, divisor in enumerate(divisors)]
        super().__init__(model, groups, CostModel(divisors, {WEIGHTS: Polynomial(terms, len(sizes))}), WEIGHTS)

    def kept(self, widths: Widths) -> Kept:
        found: Kept = {}
        for layer, width in zip(self._layers, widths, strict=True):
            weight = self.model.get_submodule(layer).get_parameter("weight").detach()
            if width < weight.numel():
                found[f"{layer}.weight"] = kept(weight.abs(), weight.numel() - width)
        return found

    def sparsity(self, widths: Widths) -> dict[str, float]:
        return {layer: 1 - w / dense for layer, w, dense in zip(self._layers, widths, self.dense, strict=True)}


def network_of(
    model: nn.Module, layers: Mapping[str, LayerConfig], base_algo: str, metric: str, dummy_input: Inputs | None
) -> Network:
    """The network as the algorithm prunes it.

    Args:
        model: the caller's.
        layers: what ``config_list`` selects.
        base_algo: ``level``, or one of ``CRITERIA``.
        metric: one of ``METRICS``; ``level`` takes ``weights`` alone.
        dummy_input: an example; needed for channels.

    Raises:
        InvalidInput: one of these cannot be used, or not with the others.
    """
    if base_algo not in (LEVEL, *CRITERIA):
        known = ", ".join((LEVEL, *CRITERIA))
        raise InvalidInput("base_algo", base_algo, f"is not one that searches run; use one of {known}, which need no data")
    if metric not in METRICS:
        raise InvalidInput("metric", metric, f"is unknown; use one of {', '.join(METRICS)}")
    if base_algo == LEVEL:
        if metric != WEIGHTS:
            raise InvalidInput("metric", metric, "is not lowered by base_algo level, which zeroes single weights; use weights")
        return WeightNetwork(model, layers)
    if dummy_input is None:
        problem = (
            f"is missing; base_algo {base_algo} removes channels, and which go together is found on an example batch of inputs"
        )
        raise InvalidInput("dummy_input", None, problem)
    return ChannelNetwork(model, layers, metric, CRITERIA[base_algo], dummy_input)


def _step(size: int) -> int:
    """Weights that go together: the fewest that divide the size into no more than ``_LEVELS`` steps."""
    return next(step for step in range(-(-size // _LEVELS), size + 1) if size % step == 0)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters(remove_duplicate=False)), **dict(module.named_buffers(remove_duplicate=False))}
