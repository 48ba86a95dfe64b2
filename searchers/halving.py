"""Plans that stay behind end early: what a plan has to beat, from what came of those before it.

As in ASHA (Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020, arXiv 1810.05934) a trial goes on,
each time that it has seen twice as many search images, while it is among the best 1/η of those so far. ASHA compares figures of
unlike images; here it is the differences of losses on the same ones, and a trial ends once it is certain enough to stay behind.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from pydantic import Field

from searchers.base import Outcome, Params, Rival

_CERTAIN = 0.9  # ASHA asks for no certainty, and so lets noise decide on its first rungs


class HalvingParams(Params):
    """Parameters of searches whose plans may end early."""

    halving: int | None = Field(
        None,
        ge=2,
        description="ASHA's reduction factor, such as 3: a plan is evaluated on growing shares of the search images, and ends "
        "where it is clear that it is not among the best 1/halving so far. By default all plans see all images.",
    )


def rival(told: Iterable[tuple[int, Outcome]], halving: int | None) -> Rival | None:
    """The last of the best 1/``halving``; nothing while fewer than ``halving`` plans have seen all images.

    Args:
        told: outcomes so far, each with its proposal's number; those that ended early do not count.
        halving: see ``HalvingParams``.
    """
    if halving is None:
        return None
    whole = [
        (outcome.score, -number)
        for number, outcome in told
        if outcome.score is not None and math.isfinite(outcome.score) and outcome.metric is not None
    ]
    if len(whole) < halving:
        return None
    score, number = sorted(whole, reverse=True)[math.ceil(len(whole) / halving) - 1]
    return Rival(-number, score, _CERTAIN)
