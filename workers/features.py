"""Feature distillation: training pulls what a pruned network's layers take in towards what the dense network's do.

FitNets (Romero et al., ICLR 2015, arXiv 1412.6550) learn one layer of a teacher through a regressor, since widths differ. Here
what stays of a network are the dense one's own channels, so that every layer has its own target and nothing has to be learned
to compare them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from pruners.graph.groups import Coupling, Indices, positions

_FLAT = 1e-6  # of the mean square: a variance below it is float32's rounding, of channels that are constant


class Inputs(NamedTuple):
    """Channels that a pruned layer takes in: the dim that they lie along, and their numbers in the dense network."""

    dim: int
    stay: Indices


_Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


def kept_inputs(dense: fx.GraphModule, coupling: Coupling, keep: Sequence[Indices]) -> dict[str, Inputs]:
    """Of every convolution and linear layer that reads channels of a group.

    Args:
        dense: the network that ``coupling`` was traced on.
        coupling: its groups.
        keep: per prunable group the indices into ``Group.classes`` that stay.
    """
    kept = coupling.kept(keep)
    sources = {member.tensor: member for member in coupling.members if member.dim == 1 and not member.output}
    called = {str(node.target) for node in dense.graph.nodes if node.op == "call_module"}
    return {
        name: Inputs(-1 if isinstance(layer, nn.Linear) else 1, positions(sources[f"{name}.weight"], kept))
        for name, layer in dense.named_modules()
        if isinstance(layer, _Layer)
        and name in called
        and f"{name}.weight" in sources
        and getattr(layer, "groups", 1) == 1  # in groups, a weight's inputs are those of one group
    }


def telling(module: fx.GraphModule, layers: Collection[str]) -> fx.GraphModule:
    """The same network, parts shared, that returns its output and what these layers take in: ``(output, (input, …))``.

    Of a layer that is called several times, the first of them counts.
    """
    graph = fx.Graph()
    values: dict[fx.Node, fx.Node] = {}
    taken: dict[str, fx.Node] = {}
    for node in module.graph.nodes:
        if node.op == "output":
            told = tuple(taken[layer] for layer in layers)
            graph.output((fx.map_arg(node.args[0], values.__getitem__), told))
            continue
        values[node] = graph.node_copy(node, values.__getitem__)
        if node.op == "call_module" and node.target in layers:
            taken.setdefault(str(node.target), values[node.args[0]])
    return fx.GraphModule(module, graph)


def feature_loss(found: Sequence[Tensor], wanted: Sequence[Tensor], inputs: Mapping[str, Inputs]) -> Tensor:
    """The squared distance as a share of the wanted input's variance, in the mean over layers.

    A layer that takes in the same value everywhere has nothing to teach, and counts as 0.

    Args:
        found: by layer what it takes in, channels along the dim that ``inputs`` says.
        wanted: the same of the dense network.
        inputs: of these layers, in this order.
    """
    shares = list[Tensor]()
    for mine, theirs, (dim, stay) in zip(found, wanted, inputs.values(), strict=True):
        target = _channels(theirs, dim, torch.from_numpy(stay).to(theirs.device))
        exact = torch.promote_types(target.dtype, torch.float32)  # var() itself takes 5 to 15 times as long
        power = torch.linalg.vector_norm(target, dtype=exact).square() / target.numel()
        spread = power - target.mean(dtype=exact).square()
        shares.append(functional.mse_loss(mine, target) / torch.where(spread > _FLAT * power, spread, torch.inf))
    return torch.stack(shares).mean()


def _channels(values: Tensor, dim: int, stay: Tensor) -> Tensor:
    """Those that stay, in the same layout; ``index_select`` would copy all of what is channels last."""
    last = values.movedim(dim, -1)
    return last.index_select(-1, stay).movedim(-1, dim) if last.is_contiguous() else values.index_select(dim, stay)
