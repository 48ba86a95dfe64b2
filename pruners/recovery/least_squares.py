"""Least squares: what a layer loses with some of its inputs, the weights of the others make up for as well as they can.

He, Zhang and Sun, Channel Pruning for Accelerating Very Deep Neural Networks, ICCV 2017, arXiv 1707.06168, and the
reconstruction of AMC (arXiv 1802.03494), for layers of any kernel. A layer computes Y = XW, where a row of X holds what the
kernel covers at one position (one patch), and of the columns k are kept and r removed. The weights that come closest to Y are

    argmin ‖X_k W' − Y‖²  =  W_k + (X_kᵀX_k)⁻¹ X_kᵀX_r W_r

so all there is to know about the data is XᵀX. It is gathered once for a network and serves every cut of it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from pruners.graph.groups import Coupling, Indices, Member, positions

Moments = Mapping[str, NDArray[np.float32]]
"""By layer XᵀX, ``[groups, columns, columns]``; a group's columns are its input channels times the kernel."""

_RIDGE = 1e-6  # of the mean of XᵀX's diagonal, added to it: inputs that are always alike have no single solution

_MOST_COLUMNS = 4608  # 512 channels of 3 × 3: XᵀX takes 85 MB, and solving a cut to half of them a second of one core

_Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


def input_moments(module: fx.GraphModule, coupling: Coupling, images: Sequence[Tensor], rows_per_column: int = 8) -> Moments:
    """XᵀX of every convolution and linear layer whose input channels can be removed.

    Transposed convolutions are left out, depthwise ones have nothing to make up for (a channel goes with its only input), and
    so are layers that share their weight with another, and the few that are too wide (VGG's first linear layer: 25,088 columns
    would take 2.5 GB).

    Args:
        module: the network that ``coupling`` was traced on, in eval mode.
        coupling: its groups.
        images: batches ``[n, …]``.
        rows_per_column: so many positions of each image are looked at, drawn at random but always the same, or all if there are
            fewer. With too few, noise is fitted.
    """
    density = rows_per_column / sum(len(batch) for batch in images)
    sums: dict[str, Tensor] = {}
    hooks = [_watch(name, layer, sums, density) for name, layer in _layers(module, coupling).items()]
    try:
        with torch.inference_mode():
            for batch in images:
                module(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: moment.float().numpy() for name, moment in sums.items()}


def reconstruct(
    small: fx.GraphModule, module: fx.GraphModule, coupling: Coupling, keep: Sequence[Indices], moments: Moments
) -> None:
    """Replaces the weights of layers that lost inputs, in place; biases and all other layers stay.

    Args:
        small: what ``shrink`` made of the other three.
        module: the network that was cut.
        coupling: its groups.
        keep: per prunable group the indices into ``Group.classes`` that stayed.
        moments: of ``module``.
    """
    kept = coupling.kept(keep)
    stay = {(member.tensor, member.dim): positions(member, kept) for member in coupling.members}
    for name, moment in moments.items():
        weight = module.get_submodule(name).get_parameter("weight").detach()
        inputs = stay[f"{name}.weight", 1]
        if len(inputs) == weight.shape[1]:
            continue
        outputs = stay.get((f"{name}.weight", 0), np.arange(len(weight)))
        solved = _solve(weight, moment, torch.from_numpy(inputs), torch.from_numpy(outputs))
        with torch.no_grad():
            small.get_submodule(name).get_parameter("weight").copy_(solved)


def _solve(weight: Tensor, sums: NDArray[np.float32], inputs: Tensor, outputs: Tensor) -> Tensor:
    """The best weight ``[outputs, inputs, …]`` in place of ``[out, in / groups, …]``."""
    wide, moment, groups = weight.double(), torch.tensor(sums, dtype=torch.float64), len(sums)
    columns = torch.arange(moment.shape[1]).view(weight.shape[1], -1)
    left = columns[inputs].flatten()
    gone = torch.from_numpy(np.setdiff1d(columns.numpy(), left.numpy()))
    filters = wide.flatten(1).view(groups, -1, moment.shape[1]).mT  # [groups, columns, filters of the group]
    gram = moment[:, left][:, :, left]
    ridge = _RIDGE * gram.diagonal(dim1=1, dim2=2).mean(1).clamp_min(torch.finfo(torch.float64).tiny)
    gram = gram + ridge[:, None, None] * torch.eye(len(left), dtype=torch.float64)
    solved = filters[:, left] + torch.linalg.solve(gram, moment[:, left][:, :, gone] @ filters[:, gone])
    found: Tensor = solved.mT.flatten(0, 1)[outputs]
    return found.view(len(outputs), len(inputs), *weight.shape[2:]).to(weight.dtype)


def _layers(module: fx.GraphModule, coupling: Coupling) -> dict[str, _Layer]:
    """Layers with a weight of their own whose second dim holds input channels that can go."""
    sources: dict[str, Member] = {m.tensor: m for m in coupling.members if m.dim == 1 and not m.output}
    shared = Counter(id(parameter) for _, parameter in module.named_parameters(remove_duplicate=False))
    return {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, _Layer)
        and (source := sources.get(f"{name}.weight")) is not None
        and (source.classes >= 0).any()
        and shared[id(layer.weight)] == 1
        and layer.weight[0].numel() <= _MOST_COLUMNS
    }


def _watch(name: str, layer: _Layer, sums: dict[str, Tensor], density: float) -> RemovableHandle:
    def look(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        rows = _patches(layer, args[0], density).double()
        moment = rows.mT @ rows
        sums[name] = sums[name] + moment if name in sums else moment

    return layer.register_forward_pre_hook(look)


def _patches(layer: _Layer, x: Tensor, density: float) -> Tensor:
    """Some rows of X, ``[groups, rows, columns]``; ``density`` is the positions of an image for each column."""
    columns = layer.weight[0].numel()
    wanted = math.ceil(density * columns)
    if isinstance(layer, nn.Linear):
        flat = x.reshape(len(x), -1, x.shape[-1])
        return flat[:, _drawn(flat.shape[1], wanted)].reshape(1, -1, columns)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = functional.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    for dim, (size, stride, dilation) in enumerate(zip(layer.kernel_size, layer.stride, layer.dilation, strict=True), 2):
        x = x.unfold(dim, dilation * (size - 1) + 1, stride)[..., ::dilation]  # a view
    space = layer.weight.dim() - 2
    places = np.unravel_index(_drawn(x.shape[2 : 2 + space].numel(), wanted).numpy(), x.shape[2 : 2 + space])
    index: tuple[Any, ...] = (slice(None), slice(None), *map(torch.from_numpy, places))
    x = x[index]  # [n, channels, positions, *kernel]
    n, channels, count = x.shape[:3]
    x = x.reshape(n, layer.groups, channels // layer.groups, count, -1)
    return x.permute(1, 0, 3, 2, 4).reshape(layer.groups, n * count, columns)


def _drawn(count: int, wanted: int) -> Tensor:
    """So many positions of all there are, at random, the same every time."""
    if wanted >= count:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(count))[:wanted]
