"""The contract of one-shot criteria and their registry."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from pruners.registry import Registry


class Criterion(ABC):
    """Scores a layer's output channels; those with the lowest scores go first.

    The class docstring's first line is the description that ``GET /pruners`` shows.
    """

    reference: str = ""
    """The paper or source."""

    @abstractmethod
    def scores(self, layer: nn.Module) -> Tensor:
        """Importance of each output channel ``[channels]`` of a convolution or linear layer, 0 or more."""


CRITERIA: Registry[Criterion] = Registry("pruner", "pruners.criteria")
