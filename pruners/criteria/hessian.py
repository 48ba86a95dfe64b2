"""Hessian (OBD on channels): what the loss would change by, to second order, if a filter were gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from pruners.criteria.base import CRITERIA, CurvatureCriterion, calibrated, filters


@CRITERIA.register("hessian")
@dataclass(frozen=True)
class Hessian(CurvatureCriterion):
    """Hessian: channels whose filters lie where the loss is flat, weighed by their norm, go first; takes minutes."""

    reference: ClassVar[str] = "Yu et al., Hessian-Aware Pruning and Optimal Neural Implant, arXiv 2101.08940"
    comparable: ClassVar[bool] = True

    def scores(self, layer: nn.Module, statistics: Tensor | None = None) -> Tensor:
        """½ · |trace(H)|/n · ‖w‖² of a filter's n weights: how much the loss changes, be it up or down."""
        weights = filters(layer)
        return calibrated(statistics).abs() * weights.square().sum(1) / (2 * weights.shape[1])

    def observe(self, vector: Tensor, product: Tensor) -> Tensor:
        """v·Hv over a filter, whose mean is the trace of the filter's block of H."""
        return (vector * product).sum(1)
