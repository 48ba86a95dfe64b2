"""L1Filter: the sum of a filter's absolute weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from pruners.criteria.base import CRITERIA, Criterion, filters


@CRITERIA.register("l1")
@dataclass(frozen=True)
class L1Filter(Criterion):
    """L1Filter: channels whose filters have the smallest sum of absolute weights go first."""

    reference: ClassVar[str] = "Li et al., Pruning Filters for Efficient ConvNets, arXiv 1608.08710"

    def scores(self, layer: nn.Module, statistics: Tensor | None = None) -> Tensor:
        """Σ|w| per output channel."""
        return filters(layer).abs().sum(1)
