"""Which scores go: the lowest, of equals those with the higher index, and whatever was gone before."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

import torch
from torch import Tensor


def share(sparsity: float, count: int) -> Fraction:
    """``sparsity · count`` for the decimal that was typed: 0.29 · 100 is 29, which binary fractions fall short of."""
    return Fraction(repr(float(sparsity))) * count


def kept(scores: Tensor, count: int, before: Tensor | None = None) -> Tensor:
    """Which entries stay when ``count`` of them go, or as many as were gone before if those are more.

    Args:
        scores: of any shape.
        count: how many go, those that were gone before among them.
        before: of the same shape, which stayed until now; what was gone goes first, whatever its score.

    Returns:
        Bool, of the same shape, on the scores' device.
    """
    if before is not None:
        scores = scores.masked_fill(~before, -math.inf)
        count = max(count, int((~before).sum()))
    order = scores.flatten().argsort(descending=True, stable=True)
    stay = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    stay[order[: scores.numel() - count]] = True
    return stay.view(scores.shape)


def kept_globally(
    scores: Mapping[str, Tensor], sparsity: Mapping[str, float], before: Mapping[str, Tensor | None]
) -> dict[str, Tensor]:
    """Which entries of several layers stay when all of them are ranked together, ties by the layers' order.

    ``floor(Σ sparsity · entries)`` go, fewer only where that would empty a layer: each keeps its best one.
    """
    asked = math.floor(sum((share(sparsity[name], each.numel()) for name, each in scores.items()), Fraction(0)))
    ranked: list[Tensor] = []
    stayed: list[Tensor] = []
    for name, each in scores.items():
        previous = before[name]
        stayed.append(torch.ones(each.numel(), dtype=torch.bool) if previous is None else previous.flatten().cpu())
        ranked.append(each.flatten().cpu().masked_fill(~stayed[-1], -math.inf))
        ranked[-1][kept(ranked[-1], each.numel() - 1)] = math.inf  # its best one
    joined = kept(torch.cat(ranked), min(asked, sum(map(len, ranked)) - len(ranked)), torch.cat(stayed))
    parts = joined.split([len(each) for each in ranked])
    return {name: part.view(each.shape) for (name, each), part in zip(scores.items(), parts, strict=True)}
