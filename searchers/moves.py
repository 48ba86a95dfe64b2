"""Small changes of a plan that leave it exactly on the budget, and the scores that searches compare plans by."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from searchers.base import Outcome
from searchers.space import SearchSpace, Widths

Integers = NDArray[np.int64]

_DENSEST = 0.99  # the highest preference that asks for proportions; 1 would spare the group


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
    changed = exchanges(space, widths, np.array([grow]), np.array([shrink]), np.array([share]))[0].tolist()
    return space.fill(changed) if changed[grow] > widths[grow] else None


def exchanges(space: SearchSpace, widths: Widths, grow: Integers, shrink: Integers, share: NDArray[np.float64]) -> Integers:
    """Many exchanges at once, each for itself, as ``exchange`` does them but without filling up what is left over.

    Args:
        space, widths, grow, shrink, share: as for ``exchange``, the last three ``[exchanges]``.

    Returns:
        Plans ``[exchanges, groups]`` within the budget; where there is no such exchange, one in which nothing is gained.
    """
    rows = np.arange(len(grow))
    dense, least, step = (np.array(each) for each in (space.dense, space.least, space.step))
    changed = np.tile(np.array(widths), (len(grow), 1))
    steps = np.maximum(1, np.round(share * dense[grow] / step[grow])).astype(np.int64)
    wanted = np.minimum(dense[grow], changed[rows, grow] + steps * step[grow])
    changed[rows, shrink] = least[shrink]
    _largest(space, changed, grow, np.array(widths)[grow], wanted)
    _largest(space, changed, shrink, least[shrink], np.array(widths)[shrink])
    return changed


def around(space: SearchSpace, widths: Widths, spread: float, generator: random.Random) -> Widths:
    """A plan on the budget whose keep fractions are those of ``widths`` times drawn factors.

    The factors' logarithms are normal with standard deviation ``spread``.
    """
    wished = [w / dense * math.exp(generator.gauss(0, spread)) for w, dense in zip(widths, space.dense, strict=True)]
    most = max(wished)
    return space.project([_DENSEST * wish / most for wish in wished])


def finite_scores(outcomes: Mapping[Widths, Outcome]) -> dict[Widths, float]:
    """The scores of the trials that succeeded, divided by the largest in magnitude, so that no difference overflows."""
    scores = {w: o.score for w, o in outcomes.items() if o.score is not None and math.isfinite(o.score)}
    unit = max(map(abs, scores.values()), default=0.0) or 1.0
    return {widths: score / unit for widths, score in scores.items()}


def _largest(space: SearchSpace, plans: Integers, groups: Integers, low: Integers, high: Integers) -> None:
    """Gives one group of each plan, in place, the largest width from ``low``, which fits, to ``high`` that fits."""
    rows, step = np.arange(len(plans)), np.array(space.step)[groups]
    more = (high - low) // step
    fewer = np.zeros_like(more)
    while (fewer < more).any():
        middle = (fewer + more + 1) // 2
        plans[rows, groups] = low + middle * step
        fits = space.costs(plans) <= space.budget.limit
        fewer, more = np.where(fits, middle, fewer), np.where(fits, more, middle - 1)
    plans[rows, groups] = low + fewer * step
