"""Mean activation: how much a channel says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from pruners.criteria.base import CRITERIA, ActivationCriterion, calibrated


@CRITERIA.register("mean_activation")
@dataclass(frozen=True)
class ActivationMeanRank(ActivationCriterion):
    """ActivationMeanRank: channels with the smallest mean activation after ReLU go first."""

    reference: ClassVar[str] = "Molchanov et al., Pruning CNNs for Resource Efficient Inference, arXiv 1611.06440"

    absolute: bool = field(
        default=False, metadata={"description": "Mean absolute value instead, for networks without ReLU (SiLU, GELU, tanh)."}
    )

    def scores(self, layer: nn.Module, statistics: Tensor | None = None) -> Tensor:
        """The mean of relu(output), or of |output|, over images and positions."""
        return calibrated(statistics)

    def observe(self, output: Tensor) -> Tensor:
        """Sums of relu(output), or of |output|."""
        return (output.abs() if self.absolute else output.relu()).sum((0, 2))
