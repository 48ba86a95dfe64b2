"""APoZ: how often a channel says nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from pruners.criteria.base import CRITERIA, ActivationCriterion, calibrated


@CRITERIA.register("apoz")
@dataclass(frozen=True)
class ActivationAPoZRank(ActivationCriterion):
    """ActivationAPoZRank: channels that are zero after ReLU most often go first."""

    reference: ClassVar[str] = "Hu et al., Network Trimming, arXiv 1607.03250"

    def scores(self, layer: nn.Module, statistics: Tensor | None = None) -> Tensor:
        """1 − APoZ, the average percentage of zeros of relu(output): how often the channel says something, 0…1."""
        return 1 - calibrated(statistics)

    def observe(self, output: Tensor) -> Tensor:
        """How many outputs ReLU makes zero."""
        zero = torch.le(
            output, 0, out=torch.empty_like(output)
        )  # ones and zeros as floats, whose sums are several times faster
        return zero.sum((0, 2))
