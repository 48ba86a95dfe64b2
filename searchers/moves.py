"""Small changes of a plan that leave it exactly on the budget, and the scores that searches compare plans by."""

from __future__ import annotations

import math
from collections.abc import Mapping

from searchers.base import Outcome
from searchers.space import SearchSpace, Widths


def exchange(space: SearchSpace, widths: Widths, grow: int, shrink: int, share: float) -> Widths | None:
    """One group gains channels and another pays for them.

    Args:
        space: where the plan comes from.
        widths: a plan on the budget.
        grow: the group that gains.
        shrink: the group that pays, another one; where its narrowest width does not pay for all, less is gained.
        share: channels to gain, as a share of the dense width, 0…1; at least a step is gained.

    Returns:
        A plan on the budget, or ``None`` if there is no such exchange.
    """
    step, dense = space.step[grow], space.dense[grow]
    changed = list(widths)
    changed[grow] = min(dense, widths[grow] + max(1, round(share * dense / step)) * step)
    paid = space.largest(changed, shrink, space.budget.limit)
    if paid is None:
        changed[shrink] = space.least[shrink]
        changed[grow] = space.largest(changed, grow, space.budget.limit) or widths[grow]
    else:
        changed[shrink] = paid
    return space.fill(changed) if changed[grow] > widths[grow] else None


def finite_scores(outcomes: Mapping[Widths, Outcome]) -> dict[Widths, float]:
    """The scores of the trials that succeeded, divided by the largest in magnitude, so that no difference overflows."""
    scores = {w: o.score for w, o in outcomes.items() if o.score is not None and math.isfinite(o.score)}
    unit = max(map(abs, scores.values()), default=0.0) or 1.0
    return {widths: score / unit for widths, score in scores.items()}
