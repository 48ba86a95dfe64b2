"""LAMP: norms that can be compared over layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from pruners.criteria.base import CRITERIA, Criterion, filters


@CRITERIA.register("lamp")
@dataclass(frozen=True)
class LAMP(Criterion):
    """LAMP: channels whose norm is smallest among those that would outlive them go first; made to rank all layers at once."""

    reference: ClassVar[str] = "Lee et al., Layer-adaptive Sparsity for the Magnitude-based Pruning, arXiv 2010.07611"
    comparable: ClassVar[bool] = True

    def scores(self, layer: nn.Module, statistics: Tensor | None = None) -> Tensor:
        """‖F_i‖² / Σ ‖F_j‖² over the filters j at least as large, 0…1: the paper's score with filters for weights.

        Within a layer it is the order of ``l2``. A layer of zeros scores zero.
        """
        squares = filters(layer).square().sum(1)
        ascending = squares.sort().values
        at_least = ascending.flip(0).cumsum(0).flip(0)  # the sum from each place on
        return (squares / at_least[torch.searchsorted(ascending, squares)]).nan_to_num(0)
