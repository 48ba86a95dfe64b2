"""Latency of any widths, looked up: layers measured one by one, their sum scaled to what whole networks take.

Each layer is timed at a grid of widths and interpolated linearly in between. A sum of layers is not a network's latency:
norms, activations and additions are not in it, a layer on its own finds its data in the cache, and calling operators takes
its time whatever their widths. So whole shrunk networks are timed too, and

    latency = overhead + scale · sum of layers

is fitted to them. How far off predictions still are is measured likewise, and worth reading before use.

As a cost of a search, a latency has to rise with every width. Measured times do not quite: what a wider layer takes less is
noise, or a faster kernel, and the narrower one is taken to be as slow.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from pruners.cost import LATENCY, NANOSECONDS, CostModel, Polynomial, Term
from pruners.graph.costs import Forms, Width
from pruners.graph.groups import Coupling
from pruners.graph.shapes import BATCH, infer_shapes
from pruners.graph.shrink import fit, shrink
from pruners.latency import Latency, measure_latency

GRID = (0.0, 0.25, 0.5, 1.0)  # shares of a weight's two widths; all points of a layer together hold it three times over
CALIBRATION = (1.0, 0.75, 0.5, 0.25)  # keep fractions of the whole networks, the same in every group ...
_MIXED, _LEAST = 4, 0.2  # ... and this many with fractions that differ, drawn from the least to 1

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

Measure = Callable[[Sequence[tuple[nn.Module, Tensor]]], Sequence[Latency]]
"""Times networks on their inputs, as ``pruners.latency.measure_latency`` does."""


@dataclass(frozen=True)
class LayerKey:
    """All that a layer's latency depends on; layers of one key are measured once.

    ``kernel``, ``stride``, ``padding`` and ``dilation`` are the module's own, ``None`` in linear layers; ``input_size`` are
    the input's dims besides the channels, batch first; ``inputs`` and ``outputs`` are channels.
    """

    device: str
    dtype: str
    type: str
    kernel: Any
    stride: Any
    padding: Any
    dilation: Any
    groups: int
    input_size: tuple[int, ...]
    inputs: int
    outputs: int


class LatencyTable:
    """Predicts a network's latency from its layers, for the device on which they were measured.

    Args:
        module: a network, on that device.
        coupling: its groups.
        example: the input ``[batch, …]`` that latencies are for, on the same device.
        measure: takes the times.

    Attributes:
        entries: milliseconds of every layer and width that was measured.
        scale: what the sum of a network's layers is multiplied by.
        overhead: milliseconds that do not depend on the widths.
        error: the median relative error over whole networks, each predicted by what fits the others.
    """

    def __init__(self, module: fx.GraphModule, coupling: Coupling, example: Tensor, measure: Measure = measure_latency) -> None:
        self.entries: dict[LayerKey, float] = {}
        self._coupling = coupling
        self._divisors = np.array([group.divisor for group in coupling.prunable], dtype=np.int64)
        layers = _layers(module, coupling, example)
        self._grid = _Grid(layers, [self._times(layer, measure) for layer in layers], len(coupling.prunable))
        self._module, self._example, self._measure = module, example, measure
        self.calibrate(self._plans())

    def calibrate(self, plans: Sequence[Sequence[int]]) -> None:
        """Fits scale and overhead to whole networks, three or more of different latencies, which are measured.

        A search that has a limit is foretold best by the dense network and by plans at the limit.
        """
        widths = np.array(plans, dtype=np.int64)
        cuts = [[np.arange(classes) for classes in plan] for plan in (widths // self._divisors).tolist()]
        networks = [(shrink(self._module, self._coupling, keep), self._example) for keep in cuts]
        whole = np.array([latency.median_ms for latency in self._measure(networks)])
        sums = self._sum(widths)
        errors: list[float] = []
        for place, (total, actual) in enumerate(zip(sums, whole, strict=True)):
            scale, overhead = _fit(np.delete(sums, place), np.delete(whole, place))
            errors.append(abs((overhead + scale * total) / actual - 1))
        self.scale, self.overhead = _fit(sums, whole)
        self.error = statistics.median(errors)

    def predict(self, widths: Sequence[int]) -> float:
        """Milliseconds of one forward pass at these widths of the prunable groups."""
        return float(self.overhead + self.scale * self._sum(np.asarray(widths, dtype=np.int64)))

    def cost(self) -> CostModel:
        """The network's costs with one more, ``LATENCY`` as it is foretold now, that a search can be bounded by."""
        scale, overhead = self.scale, self.overhead
        return LatencyCost(self._coupling.cost, lambda widths: overhead + scale * self._sum(widths))

    def _sum(self, widths: Integers) -> Floats:
        return self._grid(widths // self._divisors)

    def _times(self, layer: _Layer, measure: Measure) -> Floats:
        """Milliseconds at the layer's grid, those not yet known measured in turns."""
        parts = [[layer.cut(first, second) for second in layer.axes[1]] for first in layer.axes[0]]
        new = {key: part for row in parts for part in row if (key := layer.key(part)) not in self.entries}
        latencies = measure([(part, layer.example(part)) for part in new.values()]) if new else []
        self.entries |= {key: latency.median_ms for key, latency in zip(new, latencies, strict=True)}
        return np.array([[self.entries[layer.key(part)] for part in row] for row in parts])

    def _plans(self) -> list[list[int]]:
        """The widths of the whole networks to measure."""
        groups = self._coupling.prunable
        random = np.random.default_rng(0)
        shares = [[share] * len(groups) for share in CALIBRATION]
        shares += [random.uniform(_LEAST, 1, len(groups)).tolist() for _ in range(_MIXED)]
        return [
            [max(1, round(share * len(group.classes))) * group.divisor for share, group in zip(plan, groups, strict=True)]
            for plan in shares
        ]


@dataclass(frozen=True)
class _Layer:
    """One run of a convolution or linear layer, cut by the first two dims of its weight, whatever they stand for.

    Attributes:
        module: the dense layer.
        input: its input's shape for the example.
        dim: of the input, that holds the channels.
        widths: the two widths by the numbers of classes that the groups keep.
        axes: per width the values that are measured, ascending.
    """

    module: Any
    input: torch.Size
    dim: int
    widths: tuple[Width, Width]
    axes: tuple[list[int], list[int]]

    def cut(self, first: int, second: int) -> Any:
        """The layer with these widths; a depthwise one has as many groups as channels again."""
        part = copy.copy(self.module)
        part._parameters = dict(part._parameters)
        part.weight = nn.Parameter(self.module.weight.detach()[:first, :second].contiguous(), requires_grad=False)
        if _depthwise(part):
            part.groups = first * self.module.groups // self.module.weight.shape[0]
        fit(part)
        if part.bias is not None:
            part.bias = nn.Parameter(self.module.bias.detach()[: _channels(part)[1]].clone(), requires_grad=False)
        return part

    def example(self, part: nn.Module) -> Tensor:
        """An input for a cut layer."""
        shape = [_channels(part)[0] if dim == self.dim else size for dim, size in enumerate(self.input)]
        weight = self.module.weight
        return torch.ones(shape, dtype=weight.dtype, device=weight.device)

    def key(self, part: nn.Module) -> LayerKey:
        """What a cut layer's latency depends on."""
        inputs, outputs = _channels(part)
        return LayerKey(
            device=str(self.module.weight.device),
            dtype=str(self.module.weight.dtype).removeprefix("torch."),
            type=type(part).__name__,
            kernel=getattr(part, "kernel_size", None),
            stride=getattr(part, "stride", None),
            padding=getattr(part, "padding", None),
            dilation=getattr(part, "dilation", None),
            groups=getattr(part, "groups", 1),
            input_size=tuple(size for dim, size in enumerate(self.input) if dim != self.dim),
            inputs=inputs,
            outputs=outputs,
        )


class _Grid:
    """The times of all layers, interpolated for many plans at once.

    Args:
        layers: of the network.
        times: milliseconds of each, by its two axes.
        groups: of the network that vary.
    """

    def __init__(self, layers: Sequence[_Layer], times: Sequence[Floats], groups: int) -> None:
        points = max(2, *(len(axis) for layer in layers for axis in layer.axes))
        self._widths = [[Polynomial(layer.widths[side], groups) for layer in layers] for side in (0, 1)]
        self._axes = [np.array([_longer(layer.axes[side], points) for layer in layers], dtype=np.float64) for side in (0, 1)]
        rising = [np.maximum.accumulate(np.maximum.accumulate(each, 0), 1) for each in times]
        self._times = np.stack([np.pad(each, [(0, points - size) for size in each.shape], "edge") for each in rising])

    def __call__(self, classes: Integers) -> Floats:
        """The sum over all layers ``[...]`` at ``classes`` ``[..., groups]``, linear in both widths between measured ones."""
        (row, down), (column, right) = (self._place(side, classes) for side in (0, 1))
        layer = np.arange(len(self._times))
        above, below = (
            (1 - right) * self._times[layer, row + more, column] + right * self._times[layer, row + more, column + 1]
            for more in (0, 1)
        )
        total: Floats = ((1 - down) * above + down * below).sum(-1)
        return total

    def _place(self, side: int, classes: Integers) -> tuple[Integers, Floats]:
        """By layer the point of an axis below a width, and how much of the way to the next the width is."""
        axes, layer = self._axes[side], np.arange(len(self._times))
        width = np.stack([polynomial(classes) for polynomial in self._widths[side]], -1)
        width = width.clip(axes[:, 0], None)
        point = (width[..., None] >= axes[:, 1:-1]).sum(-1)
        share = (width - axes[layer, point]) / (axes[layer, point + 1] - axes[layer, point])
        return point, share


class LatencyCost(CostModel):
    """A network's costs and its nanoseconds, which have no gradient.

    Args:
        cost: all but the nanoseconds.
        milliseconds: of many plans ``[..., groups]`` at once.
    """

    def __init__(self, cost: CostModel, milliseconds: Callable[[Integers], Floats]) -> None:
        super().__init__(cost._divisors.tolist(), cost._metrics)
        self._milliseconds = milliseconds

    def foretells(self, metric: str) -> bool:
        return metric == LATENCY or super().foretells(metric)

    def batch(self, metric: str, widths: Integers) -> Integers:
        if metric != LATENCY:
            return super().batch(metric, widths)
        return np.rint(NANOSECONDS * self._milliseconds(widths)).astype(np.int64)


def _layers(module: fx.GraphModule, coupling: Coupling, example: Tensor) -> list[_Layer]:
    forms = Forms(coupling.prunable, coupling.members, coupling.factors)
    shapes = infer_shapes(module).values
    layers: list[_Layer] = []
    for node in module.graph.nodes:
        if node.op != "call_module" or node.target not in coupling.layers:
            continue
        part: Any = module.get_submodule(node.target)
        shape = shapes[node.args[0]]
        first, second = (forms.width(f"{node.target}.weight", dim) or [Term(1)] for dim in (0, 1))
        groups = getattr(part, "groups", 1)
        step = part.weight.shape[0] // groups if _depthwise(part) else groups
        layers.append(
            _Layer(
                part,
                torch.Size([shape[0] * len(example) // BATCH, *shape[1:]]),
                len(shape) - (1 if isinstance(part, nn.Linear) else part.weight.dim() - 1),
                (first, second),
                (_axis(part.weight.shape[0], first, step), _axis(part.weight.shape[1], second, 1)),
            )
        )
    return layers


def _fit(sums: NDArray[np.float64], whole: NDArray[np.float64]) -> tuple[float, float]:
    """Scale and overhead with the least squared relative error."""
    system = np.stack([sums / whole, 1 / whole], axis=1)
    scale, overhead = np.linalg.lstsq(system, np.ones(len(whole)))[0]
    return max(0.0, float(scale)), float(overhead)


def _longer(axis: Sequence[int], points: int) -> list[int]:
    """An axis of so many points; widths never come to those that are added."""
    return [*axis, *range(axis[-1] + 1, axis[-1] + 1 + points - len(axis))]


def _axis(dense: int, width: Width, step: int) -> list[int]:
    """The values of a width that are measured, multiples of ``step``."""
    if not any(form.per_group for term in width for form in term.factors):
        return [dense]
    return sorted({max(step, round(share * dense / step) * step) for share in GRID})


def _channels(part: Any) -> tuple[int, int]:
    """Input and output channels."""
    if isinstance(part, nn.Linear):
        return part.in_features, part.out_features
    return part.in_channels, part.out_channels


def _depthwise(part: Any) -> bool:
    return getattr(part, "groups", 1) > 1 and part.in_channels == part.groups
