"""Slim: the scale that a BatchNorm learnt for each channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from pruners.criteria.base import CRITERIA, NORMS, Criterion
from pruners.errors import InvalidInput


@CRITERIA.register("slim")
@dataclass(frozen=True)
class Slim(Criterion):
    """Slim: channels that their BatchNorm scales least go first; trust it after training with a penalty on the scales."""

    reference: ClassVar[str] = "Liu et al., Learning Efficient CNNs through Network Slimming, arXiv 1708.06519"
    comparable: ClassVar[bool] = True
    scored: ClassVar[tuple[type[nn.Module], ...]] = NORMS

    def scores(self, layer: nn.Module, statistics: Tensor | None = None) -> Tensor:
        """|γ| per channel of a BatchNorm; comparable over all layers of a network as it is."""
        if getattr(layer, "weight", None) is None:
            problem = "has no scales: slim reads those of BatchNorms with affine=True; use another pruner such as l1"
            raise InvalidInput("layer", type(layer).__name__, problem)
        return layer.get_parameter("weight").detach().cpu().double().abs()
