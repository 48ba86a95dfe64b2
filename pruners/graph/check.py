"""The self-check of tracing: on this very network, does removing channels do what silencing them does?

Tracing has a rule for each operator it follows, and a wrong rule would damage every network that a search tries. So half of
every prunable group is taken away at once, by masking and by removal, and the two networks' outputs are compared. Where they
differ the groups are sorted out by halving, and those at fault are frozen: a group either is right or stays whole.

Groups that a LayerNorm or GroupNorm averages over take no part, since masked and removed channels differ there by nature.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from pruners.graph.groups import Coupling, Group, Indices
from pruners.graph.shapes import BATCH
from pruners.graph.shrink import shrink
from pruners.graph.silence import silence
from pruners.graph.trace import trace

TOLERANCE = 1e-4  # relative: right rules stay under 1e-5 in float32 on every network tried, wrong ones give 0.01 and more
_ROUNDINGS = 8  # in half precision the tolerance is this many times the dtype's own relative error


def traced(module: fx.GraphModule) -> Coupling:
    """The coupled channels of a network, every prunable group checked or frozen; see ``pruners.graph.trace.trace``.

    Raises:
        InvalidInput: the network does not run on its own declared inputs.
    """
    coupling = trace(module)
    check = _Check(module, coupling)
    check.sort_out([group for group in coupling.prunable if not group.crosses_norm])
    return coupling.frozen(check.failed) if check.failed else coupling


def relative_difference(first: nn.Module, second: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """The largest difference of two networks' outputs over the largest output."""
    with torch.inference_mode():
        return _difference(first(*inputs), second(*inputs))


class _Check:
    def __init__(self, module: fx.GraphModule, coupling: Coupling) -> None:
        self._module = module
        self._coupling = coupling
        self._inputs = tuple(_random(value.example(BATCH)) for value in module.meta["inputs"])
        self._passed: set[str] = set()
        self.failed: dict[str, str] = {}

    def sort_out(self, groups: Sequence[Group]) -> None:
        """Puts each group among those that passed, all of which pass together, or those that failed."""
        if not groups:
            return
        problem = self._problem({*self._passed, *(group.name for group in groups)})
        if problem is None:
            self._passed |= {group.name for group in groups}
        elif len(groups) == 1:
            self.failed[groups[0].name] = f"failed the self-check: {problem}"
        else:
            middle = len(groups) // 2
            self.sort_out(groups[:middle])
            self.sort_out(groups[middle:])

    def _problem(self, names: set[str]) -> str | None:
        """What is wrong if half of each of these groups goes."""
        keep = [_half(group) if group.name in names else np.arange(len(group.classes)) for group in self._coupling.prunable]
        with torch.inference_mode():
            expected = silence(self._module, self._coupling, keep)(*self._inputs)
            try:
                found = shrink(self._module, self._coupling, keep)(*self._inputs)
                difference = _difference(found, expected)
            except (
                RuntimeError,
                ValueError,
                IndexError,
                TypeError,
            ) as error:  # whatever sizes that do not fit make torch raise
                return f"the network does not run without half of it ({type(error).__name__})"
        if difference <= _tolerance(expected):
            return None
        return f"masked and removed differ by {difference:.1e} relative"


def _half(group: Group) -> Indices:
    """At random, since a wrong order may not show in a regular choice; the same every time."""
    count = len(group.classes)
    return np.sort(np.random.default_rng(count).permutation(count)[: (count + 1) // 2])


def _random(example: Tensor) -> Tensor:
    """Values in 0…1, as images have them; integer inputs stay the zeros that every network can look up."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(example.shape, generator=generator).to(example.dtype) if example.is_floating_point() else example


def _difference(found: object, expected: object) -> float:
    """The largest one over all outputs; NaN if either holds one."""
    pairs = zip(_tensors(found), _tensors(expected), strict=True)
    ratios = [float((a - b).abs().max() / b.abs().max().clamp_min(1e-12)) for a, b in pairs if b.numel()]
    return math.nan if any(math.isnan(ratio) for ratio in ratios) else max(ratios, default=0.0)


def _tolerance(outputs: object) -> float:
    return max(TOLERANCE, *(_ROUNDINGS * torch.finfo(output.dtype).eps for output in _tensors(outputs)))


def _tensors(outputs: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
