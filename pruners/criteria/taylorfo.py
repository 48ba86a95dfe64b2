"""TaylorFO on weights: what the loss would change by, to first order, if weights were gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from pruners.criteria.base import CRITERIA, GradientCriterion, calibrated


@CRITERIA.register("taylorfo")
@dataclass(frozen=True)
class TaylorFOWeight(GradientCriterion):
    """TaylorFOWeight: channels whose weights change the loss least to first order, weight by weight, go first."""

    reference: ClassVar[str] = "Molchanov et al., Importance Estimation for Neural Network Pruning, arXiv 1906.10771"
    comparable: ClassVar[bool] = True

    def scores(self, layer: nn.Module, statistics: Tensor | None = None) -> Tensor:
        """The mean over batches of Σ (g·w)² over a filter's weights: squared per weight, not the square of the filter's sum."""
        return calibrated(statistics)

    def observe(self, weight: Tensor, gradient: Tensor) -> Tensor:
        """Σ (g·w)² of one batch."""
        return (weight * gradient).square().sum(1)
