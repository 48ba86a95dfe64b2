"""The smallest network that keeps the metric: sizes that double their cut until it does not, and then are halved between.

Bentley and Yao, An almost optimal algorithm for unbounded searching, Information Processing Letters 5 (1976).
"""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt

from searchers.base import Outcome, Searcher
from searchers.sizes import Sizes
from searchers.space import SearchSpace

FIRST = 0.9
"""Share of the dense cost that is tried first: a cut that nearly every network survives, and so a place to fall back to."""

PRECISION = 1.12
"""The search ends where the smallest size that kept the metric is within this of the largest that did not."""

RETREATS = 3
"""Sizes between the dense network and the first that are tried where not even that keeps the metric."""

MOST_SIZES = 10
"""Six go from 0.9 to 0.9³² = 3 % of the dense cost, which is out of most networks' reach, and four halve the last stretch."""


class Guaranteed(Sizes):
    """Searches for the smallest network whose metric drops by no more than is allowed.

    Sizes are tried one after the other: 0.9 of the dense cost, 0.9², 0.9⁴, 0.9⁸, … until the best network of a size does not
    keep the metric, then always the geometric mean of the smallest that did and the largest that did not. What a network
    drops by is judged on the search inputs, by the bound that as many inputs as will confirm it would give
    (``Outcome.drop``).

    Args:
        make: the search under one budget.
        space: under any budget that the smallest network meets.
        most_drop: that is allowed, in the metric's unit.
        retrain: epochs for which the best plan of each size is trained before it is judged; 0: none.
    """

    def __init__(self, make: Callable[[SearchSpace], Searcher], space: SearchSpace, most_drop: float, retrain: int) -> None:
        super().__init__(make, space, MOST_SIZES, retrain)
        self._most_drop = most_drop

    @property
    def ladder(self) -> list[int]:
        kept = {number for number in self.answers() if self._keeps(self.outcomes[number])}
        return sorted(kept, key=lambda number: (-self._cost(number), number))

    def next_size(self) -> int | None:
        least, dense = self.space.cost(self.space.least), self.space.cost(self.space.dense)
        ladder = self.ladder
        kept = self._cost(ladder[-1]) if ladder else dense
        lost = [limit for limit, number in self.settled.items() if number is None or number not in ladder]
        tried = len(self.settled)
        if tried == MOST_SIZES or kept <= least:
            return None
        if not lost:
            return max(least, min(int(dense * FIRST ** (2**tried)), kept - 1))
        between = isqrt(kept * max(lost))
        enough = kept <= PRECISION * max(lost) if ladder else tried > RETREATS
        return between if not enough and max(lost) < between < kept else None

    def _cost(self, number: int) -> int:
        return self.space.cost(self.proposals[number].widths)

    def _keeps(self, outcome: Outcome) -> bool:
        return outcome.drop is not None and outcome.drop <= self._most_drop

    def candidates(self) -> dict[int, Outcome]:
        """Those whose drop is known, where no trial of its own will tell it: plans that an earlier job gave may lack it."""
        found = super().candidates()
        return found if self._training is not None else {n: outcome for n, outcome in found.items() if outcome.drop is not None}
