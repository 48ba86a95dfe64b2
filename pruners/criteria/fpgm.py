"""FPGM: a filter near the geometric median of its layer is one that the others can stand in for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from pruners.criteria.base import CRITERIA, Criterion, filters


@CRITERIA.register("fpgm")
@dataclass(frozen=True)
class FPGM(Criterion):
    """FPGM: channels whose filters are nearest to all the others, hence replaceable, go first."""

    reference: ClassVar[str] = "He et al., Filter Pruning via Geometric Median, arXiv 1811.00250"

    def scores(self, layer: nn.Module, statistics: Tensor | None = None) -> Tensor:
        """Σ_j ‖F_i − F_j‖₂ over the layer's filters j.

        Distances come from differences, not from inner products, which would lose those of nearly equal filters. They are
        added in the order of their size, so that the order of the filters has no say in the last digit.
        """
        rows = filters(layer)
        distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
        return distances.sort(1).values.sum(1)
