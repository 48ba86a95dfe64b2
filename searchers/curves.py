"""What cutting each group alone does to the score, and the plan on the budget that such a table leads to."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from searchers.space import SearchSpace, Widths

Floats = NDArray[np.float64]

_PRICE_TURNS = 5  # prices settle in two or three


def grid(space: SearchSpace, group: int) -> range:
    """The widths of one group, narrowest first."""
    return range(space.least[group], space.dense[group] + 1, space.step[group])


def damage_curves(space: SearchSpace, drops: Sequence[Mapping[int, float]]) -> list[Floats]:
    """Each group's damage at every width of its grid.

    A curve starts at 0 (dense), never falls as the group narrows (the running maximum of the drops), and between the
    widths that were tried and beyond them it is linear in the square of the share removed: roughly how damage grows. A group
    that was never tried counts as a middling one.

    Args:
        space: the groups.
        drops: per group of the space, the score lost against the dense network by width.

    Returns:
        Per group an array ``[widths in its grid]``, at least 0 and falling towards the dense width.
    """
    curves: list[Floats | None] = [_curve(space, group, dict(of_group)) for group, of_group in enumerate(drops)]
    squares = [(1 - np.array(grid(space, group)) / space.dense[group]) ** 2 for group in range(len(drops))]
    searchable = set(space.searchable)
    slopes = [curve[0] / squares[g][0] for g, curve in enumerate(curves) if curve is not None and g in searchable]
    middling = float(np.median(slopes)) if slopes else 1.0
    return [middling * square if curve is None else curve for curve, square in zip(curves, squares, strict=True)]


def even_damage(space: SearchSpace, curves: Sequence[Floats]) -> Widths:
    """The plan on the budget in which no group alone does more damage than a threshold, as low as the budget allows."""

    def narrowest(threshold: float) -> Widths:
        # A curve falls with the width, so the first width that is not above the threshold is the narrowest.
        return tuple(grid(space, g)[int(np.argmax(curve <= threshold))] for g, curve in enumerate(curves))

    return _on_budget(space, narrowest, max(float(curve[0]) for curve in curves))


def least_damage(space: SearchSpace, curves: Sequence[Floats]) -> Widths:
    """The plan on the budget with the least sum of damages, were they to add up.

    Every group weighs its damage against what its channels cost, at one exchange rate for all: the lowest that meets the
    budget. A channel's price depends on the other groups' widths, so prices and plan are found in turns.
    """
    grids = [np.array(grid(space, group)) for group in range(len(curves))]

    def total(plan: Widths) -> float:
        return sum(float(curve[(w - g[0]) // step]) for curve, g, w, step in zip(curves, grids, plan, space.step, strict=True))

    best = plan = even_damage(space, curves)
    for _ in range(_PRICE_TURNS):
        spent = [price * (g - g[0]) for price, g in zip(_prices(space, plan), grids, strict=True)]

        def cheapest(rate: float, spent: Sequence[Floats] = spent) -> Widths:
            sums = (curve + rate * cost for curve, cost in zip(curves, spent, strict=True))
            return tuple(int(g[int(np.argmin(of_group))]) for g, of_group in zip(grids, sums, strict=True))

        dearest = max((float(c[0] / s[1]) for c, s in zip(curves, spent, strict=True) if len(s) > 1 and s[1] > 0), default=0.0)
        if not space.fits(cheapest(2 * dearest)):
            break  # a channel that costs nothing beside this plan costs something beside another
        plan = _on_budget(space, cheapest, 2 * dearest)
        best = min(best, plan, key=total)
    return best


def _prices(space: SearchSpace, plan: Widths) -> list[float]:
    """Per group, what a channel costs beside this plan: that of the step below its width, or above the least."""

    def price(group: int) -> float:
        low = max(space.least[group], plan[group] - space.step[group])
        high = min(space.dense[group], low + space.step[group])
        narrow, wide = ((*plan[:group], width, *plan[group + 1 :]) for width in (low, high))
        return (space.cost(wide) - space.cost(narrow)) / space.step[group]

    return [price(group) for group in range(len(plan))]


def _curve(space: SearchSpace, group: int, drops: dict[int, float]) -> Floats | None:
    if not drops:
        return None
    dense = space.dense[group]
    tried = sorted({**drops, dense: 0.0}.items(), reverse=True)
    known = [(1 - width / dense) ** 2 for width, _ in tried]
    worst = np.maximum.accumulate([drop for _, drop in tried])
    at = (1 - np.array(grid(space, group)) / dense) ** 2
    beyond = (worst[-1] - worst[-2]) / (known[-1] - known[-2]) * np.maximum(0.0, at - known[-1])
    curve: Floats = np.interp(at, known, worst) + beyond
    return curve


def _on_budget(space: SearchSpace, plan: Callable[[float], Widths], most: float) -> Widths:
    """The plan of the least pressure, 0…``most``, that fits; ``plan`` narrows with it and fits at the end."""
    low, high = 0.0, most
    while low < (middle := (low + high) / 2) < high and high > math.ulp(1.0) * most:
        low, high = (low, middle) if space.fits(plan(middle)) else (middle, high)
    return space.fill(plan(high))
