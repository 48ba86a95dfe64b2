"""Real removal: a new, smaller network that holds only the channels that stay.

Parameters and buffers lose the positions of removed channels, modules learn their new sizes, and numbers baked into the
graph (pads, views, splits) are rewritten. The network it is made from is left as it was; nothing is shared with it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from pruners.graph.groups import Coupling, Indices, Member, positions


def shrink(module: fx.GraphModule, coupling: Coupling, keep: Sequence[Indices]) -> fx.GraphModule:
    """The network without the channels that are not kept.

    Args:
        module: the network that ``coupling`` was traced on.
        coupling: its groups.
        keep: per prunable group the indices into ``Group.classes`` that stay.

    Raises:
        InvalidInput: ``keep`` empties a group or names channels that do not exist.
    """
    kept = coupling.kept(keep)
    tensors = _tensors(module)
    members: dict[str, list[Member]] = {}
    for member in coupling.members:
        members.setdefault(member.tensor, []).append(member)
    cut: dict[int, Tensor] = {}  # by the dense tensor, so that tied weights stay tied
    for name, tensor in tensors.items():
        if id(tensor) not in cut:
            cut[id(tensor)] = _cut(tensor, members.get(name, []), kept)
    counts = {
        (resize.node, resize.attribute, resize.position): int(np.where(resize.classes >= 0, kept[resize.classes], True).sum())
        for resize in coupling.resizes
    }
    root = _clone(module, cut)
    for (path, attribute, _), count in counts.items():
        if attribute is not None:
            setattr(root.get_submodule(path), attribute, count)
    for part in root.modules():
        fit(part)
    small = fx.GraphModule(root, _rewritten(module.graph, counts))
    small.meta = dict(module.meta)
    return small.train(module.training)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return dict([*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)])


def _cut(tensor: Tensor, members: list[Member], kept: NDArray[np.bool_]) -> Tensor:
    small = tensor.detach()
    for member in members:
        stay = positions(member, kept)
        if len(stay) != small.shape[member.dim]:
            small = small.index_select(member.dim, torch.from_numpy(stay).to(small.device))
    small = small.clone() if small.data_ptr() == tensor.data_ptr() else small
    return nn.Parameter(small, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else small


def _clone(module: nn.Module, cut: dict[int, Tensor]) -> nn.Module:
    """A tree of modules like this one, with the cut tensors in place of its own."""
    clone = nn.Module() if isinstance(module, fx.GraphModule) else copy.copy(module)
    clone.__dict__["_parameters"] = {
        name: None if value is None else cut[id(value)] for name, value in module._parameters.items()
    }
    clone.__dict__["_buffers"] = {name: None if value is None else cut[id(value)] for name, value in module._buffers.items()}
    # As a deep copy's: whoever watches the one by a hook does not watch the other.
    clone.__dict__.update({name: value.copy() for name, value in vars(clone).items() if name.endswith("_hooks")})
    clone.__dict__["_modules"] = {name: child and _clone(child, cut) for name, child in module._modules.items()}
    return clone


def fit(part: nn.Module) -> None:
    """A module's declared sizes follow its tensors."""
    if isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        part.out_channels = part.weight.shape[0]
        part.in_channels = part.weight.shape[1] * part.groups
    elif isinstance(part, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        part.in_channels = part.weight.shape[0]
        part.out_channels = part.weight.shape[1] * part.groups
    elif isinstance(part, nn.Linear):
        part.out_features, part.in_features = part.weight.shape
    elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) and part.running_mean is not None:
        part.num_features = part.running_mean.shape[0]


def _rewritten(graph: fx.Graph, counts: dict[tuple[str, str | None, tuple[int, ...]], int]) -> fx.Graph:
    changes: dict[str, list[tuple[tuple[int, ...], int]]] = {}
    for (name, attribute, position), count in counts.items():
        if attribute is None:
            changes.setdefault(name, []).append((position, count))
    small = fx.Graph()
    values: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        copied = small.node_copy(node, lambda source: values[source])
        values[node] = copied
        for position, count in changes.get(node.name, ()):
            args = list(copied.args)
            if len(position) == 1:
                args[position[0]] = count
            else:
                inner = list(args[position[0]])  # type: ignore[arg-type]  # a list, since a position inside it was recorded
                inner[position[1]] = count
                args[position[0]] = inner
            copied.args = tuple(args)
    return small
