"""L2Filter: the Euclidean norm of a filter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from pruners.criteria.base import CRITERIA, Criterion, filters


@CRITERIA.register("l2")
@dataclass(frozen=True)
class L2Filter(Criterion):
    """L2Filter: channels whose filters have the smallest Euclidean norm go first."""

    reference: ClassVar[str] = "He et al., Soft Filter Pruning, arXiv 1808.06866; the norm of NetAdapt, arXiv 1804.03230"

    def scores(self, layer: nn.Module, statistics: Tensor | None = None) -> Tensor:
        """√Σw² per output channel."""
        return filters(layer).square().sum(1).sqrt()
