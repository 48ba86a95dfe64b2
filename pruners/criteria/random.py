"""Random: the control that every criterion has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from pruners.criteria.base import CRITERIA, Criterion, channels, seed_field


@CRITERIA.register("random")
@dataclass(frozen=True)
class Random(Criterion):
    """Control: channels go in a random order."""

    reference: ClassVar[str] = "Control: Mittal et al., Recovering from Random Pruning, arXiv 1801.10447"

    seed: int = seed_field("Of the order; a job's own by default.")

    def scores(self, layer: nn.Module, statistics: Tensor | None = None) -> Tensor:
        """U(0, 1) per channel; layers of equal width get equal scores, since channels of different layers have no relation."""
        return torch.rand(channels(layer), generator=torch.Generator().manual_seed(self.seed), dtype=torch.float64)
