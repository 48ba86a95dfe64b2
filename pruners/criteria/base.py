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


CRITERIA: Registry[Criterion] = Registry("pruner", "pruners.criteria")
