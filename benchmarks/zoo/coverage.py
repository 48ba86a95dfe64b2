"""How much of a network pruning can reach: the share of convolution and linear parameters in prunable groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from pruners.graph.groups import Coupling

_LAYERS = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip


@dataclass(frozen=True)
class Coverage:
    """Elements of convolution and linear weights.

    Attributes:
        covered: per weight, how many an input or output channel of which can be removed.
        total: per weight, how many there are.
    """

    covered: dict[str, int]
    total: dict[str, int]

    @property
    def share(self) -> float:
        """Covered elements among all, 0…1."""
        return sum(self.covered.values()) / sum(self.total.values())

    def gaps(self, count: int) -> list[tuple[str, float]]:
        """The weights with the most elements out of reach, and their part of all elements in the network."""
        missing = {name: (self.total[name] - self.covered[name]) / sum(self.total.values()) for name in self.total}
        worst = sorted(missing, key=lambda name: -missing[name])[:count]
        return [(name, missing[name]) for name in worst if missing[name] > 0]


def coverage(model: nn.Module, coupling: Coupling, names: Mapping[str, str]) -> Coverage:
    """What ``coupling`` reaches of the network that was exported.

    Args:
        model: the user's own.
        coupling: of what was read from its file.
        names: the user's name of each tensor that is called otherwise there.

    An element counts if the channel it belongs to along any dim of its weight is in a prunable group, so the output layer
    counts by its inputs alone. The weights are those of the user's model, whatever became of them in the exported graph.
    """
    prunable = np.zeros(coupling.classes, dtype=np.bool_)
    for group in coupling.prunable:
        prunable[group.classes] = True
    prunable = prunable[coupling.factors].any(axis=1)
    fixed: dict[str, dict[int, float]] = {}  # per tensor and dim, the part of the positions that must stay
    for member in coupling.members:
        loose = np.where(member.classes >= 0, prunable[member.classes], False) if coupling.classes else np.zeros(1)
        fixed.setdefault(names.get(member.tensor, member.tensor), {})[member.dim] = 1.0 - float(loose.mean())
    weights = weights_of(model)
    covered = {
        name: round(weight.numel() * (1.0 - float(np.prod(list(fixed.get(name, {}).values())))))
        for name, weight in weights.items()
    }
    return Coverage(covered, {name: weight.numel() for name, weight in weights.items()})


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Weights of convolutions and linear layers, those inside attention modules too; tied ones once."""
    weights: dict[str, Tensor] = {}
    for path, module in model.named_modules():
        if isinstance(module, _LAYERS):
            weights[f"{path}.weight"] = module.weight
        elif isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
            weights[f"{path}.in_proj_weight"] = module.in_proj_weight
    unique: dict[int, str] = {}
    for name, weight in weights.items():
        unique.setdefault(id(weight), name)
    return {name: weights[name] for name in unique.values()}
