"""What tests of the pruners share: a network of every layer type, data, and a look at what masks silence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from pruners import (
    ActivationAPoZRankFilterPruner,
    ActivationMeanRankFilterPruner,
    FPGMPruner,
    L1FilterPruner,
    L2FilterPruner,
    RandomFilterPruner,
    TaylorFOWeightFilterPruner,
)
from pruners.graph.groups import Coupling, Indices
from pruners.graph.shrink import shrink

BY_WEIGHT = [L1FilterPruner, L2FilterPruner, FPGMPruner, RandomFilterPruner]
BY_DATA = [ActivationAPoZRankFilterPruner, ActivationMeanRankFilterPruner, TaylorFOWeightFilterPruner]

TOLERANCE = 1e-5  # relative: float32 sums of a few thousand terms in another order


class Every(nn.Module):
    """One layer of each type that is pruned, a lambda, and a module that no tool knows."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Conv1d(3, 7, 3, padding=1)
        self.line_up = nn.ConvTranspose1d(7, 10, 3, padding=1)
        self.plane = nn.Conv2d(1, 9, 3, padding=1, bias=False)
        self.plane_up = nn.ConvTranspose2d(9, 6, 3, padding=1, groups=3)
        self.space = nn.Conv3d(1, 5, 3, padding=1)
        self.space_up = nn.ConvTranspose3d(5, 4, 3, padding=1)
        self.fc = nn.Linear(4, 11)
        self.act = lambda x: F.relu(x) + 0.1

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.line_up(self.act(self.line(x))))
        x = self.act(self.plane_up(self.act(self.plane(x.unsqueeze(1)))))
        x = self.act(self.space_up(self.act(self.space(x.unsqueeze(1)))))
        return self.fc(x.mean((2, 3, 4)))


CHANNELS = {"line": 7, "line_up": 10, "plane": 9, "plane_up": 6, "space": 5, "space_up": 4, "fc": 11}


def batches(shape: tuple[int, ...] = (3, 8), count: int = 2) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(4, *shape, generator=generator), torch.randint(10, (4,), generator=generator)) for _ in range(count)]


def make(
    pruner: type, model: nn.Module, config: list[dict[str, object]], shape: tuple[int, ...] = (3, 8), **more: object
) -> object:
    if pruner in BY_DATA:
        more["calibration"] = batches(shape)
    return pruner(model, config, **more)


def gone(pruner: object, name: str) -> list[int]:
    """The channels that a mask silences, checked against the weights and the bias."""
    layer, masks = pruner.layers[name], pruner.masks[name]  # type: ignore[attr-defined]
    dim = 1 if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d) else 0
    groups = layer.groups if dim else 1

    def silent(tensor: Tensor) -> Tensor:
        rows = tensor.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1) if dim else tensor
        return (rows.flatten(1) == 0).all(1)

    assert torch.equal(silent(masks["weight"]), silent(layer.weight.detach()))
    assert bool(((masks["weight"] == 0) | (masks["weight"] == 1)).all())
    if layer.bias is None:
        assert masks["bias"] is None
    else:
        assert torch.equal(masks["bias"] == 0, silent(masks["weight"]))
        assert bool((layer.bias[masks["bias"] == 0] == 0).all())
    return silent(masks["weight"]).nonzero().flatten().tolist()


def relative(first: Tensor, second: Tensor) -> float:
    return float((first - second).detach().abs().max() / second.detach().abs().max())


def shrunk_in_two_steps(module: fx.GraphModule, coupling: Coupling, keep: Sequence[Indices]) -> fx.GraphModule:
    """What is left of a network that first loses every second channel that is to go, and then the others."""
    gone = [np.setdiff1d(np.arange(len(group.classes)), kept) for group, kept in zip(coupling.prunable, keep, strict=True)]
    first = [np.sort(np.concatenate([kept, lost[::2]])) for kept, lost in zip(keep, gone, strict=True)]
    then = [np.searchsorted(wide, kept) for wide, kept in zip(first, keep, strict=True)]
    return shrink(shrink(module, coupling, first), coupling.shrunk(first), then)
