"""The contract of one-shot criteria and their registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from pruners.registry import Registry


@dataclass(frozen=True)
class Criterion(ABC):
    """Scores a layer's output channels; those with the lowest scores go first.

    A criterion is a frozen dataclass whose fields are its parameters; the first line of its docstring is the description
    that ``GET /pruners`` shows.
    """

    reference: ClassVar[str] = ""
    """The paper or source."""

    @abstractmethod
    def scores(self, layer: nn.Module) -> Tensor:
        """Importance of each output channel ``[channels]`` of a convolution or linear layer, 0 or more."""


def filters(layer: nn.Module) -> Tensor:
    """A layer's weight as one row per output channel ``[channels, …]``, detached.

    Transposed convolutions store ``[in, out / groups, …]``; an output channel's filter is what it gathers from its group.
    """
    weight: Tensor = layer.get_parameter("weight").detach()
    if not isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        return weight
    grouped = weight.unflatten(0, (layer.groups, -1)).transpose(1, 2)  # [groups, out / groups, in / groups, …]
    rows: Tensor = grouped.flatten(0, 1)
    return rows


CRITERIA: Registry[Criterion] = Registry("pruner", "pruners.criteria")
