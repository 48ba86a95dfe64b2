"""What a search chooses from: the widths of a network's groups, under a budget that every answer meets exactly.

Nothing here builds a network: a cost is a query to the ``CostModel``, in exact integers. It is monotone (a wider group
never makes a network cheaper), which is what makes every bisection below right.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction
from itertools import count

import numpy as np
from numpy.typing import NDArray

from pruners.cost import LATENCY, METRICS, NANOSECONDS, SPARSITY, CostModel
from pruners.errors import InvalidInput

Widths = tuple[int, ...]
"""Channels kept in each group of a space, in the space's order."""


@dataclass(frozen=True)
class Group:
    """Channels that can only be pruned together, as a search sees them.

    Attributes:
        name: for people; usually the first layer that produces the channels.
        width: channels in the dense network, a multiple of ``divisor``.
        divisor: channels are removed in multiples of this.
        minimum: channels to keep at least, 1…``width``; equal to ``width`` it keeps the group out of the search.
        residual: whether this is a residual stream, whose pruning does the most damage.
        scores: importance of what goes together (``divisor`` channels each), comparable between groups, in any order; empty
            where no network was scored.
    """

    name: str
    width: int
    divisor: int = 1
    minimum: int = 1
    residual: bool = False
    scores: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.divisor < 1 or self.width % self.divisor or not 1 <= self.minimum <= self.width:
            raise ValueError(f"{self} needs a width that is a multiple of its divisor and a minimum in 1…width")


@dataclass(frozen=True)
class Budget:
    """The most that the pruned network may cost.

    Attributes:
        metric: one of ``pruners.cost.METRICS``, ``LATENCY`` or ``SPARSITY``.
        limit: the highest cost allowed, inclusive, in units of the metric.
        ratio: the share of the dense cost, or of weights that are zero, if that is how the user stated the limit.
    """

    metric: str
    limit: int
    ratio: float | None = None

    @classmethod
    def of(cls, metric: str, dense: int, ratio: float | None = None, maximum: int | None = None) -> Budget:
        """A budget as a user states it: a share of the dense network's cost ``dense``, or an absolute ``maximum``.

        Raises:
            InvalidInput: an unknown metric, both or neither of the two figures, or a limit that prunes nothing.
        """
        if metric not in (*METRICS, LATENCY, SPARSITY):
            raise InvalidInput("budget.metric", metric, f"is unknown; use one of {', '.join(METRICS)}")
        if ratio is not None and maximum is None:
            if not 0 < ratio < 1:
                raise InvalidInput("budget.ratio", ratio, "is not between 0 and 1, both excluded")
            if metric == SPARSITY:
                return cls(metric, dense - math.floor(Fraction(str(float(ratio))) * dense), ratio)
            # The decimal that was typed, not the nearest binary fraction: 0.29 of 100 is 29, not 28.
            return cls(metric, math.floor(Fraction(str(float(ratio))) * dense), ratio)
        if maximum is not None and ratio is None:
            if maximum >= dense:
                problem = f"prunes nothing; state less than the dense {_figure(metric, dense)}"
                raise InvalidInput("budget.max", _stated(metric, maximum), problem)
            return cls(metric, maximum)
        raise InvalidInput("budget", None, "needs either ratio or max")

    @property
    def shown(self) -> str:
        """The limit for people."""
        return _figure(self.metric, self.limit)

    def out_of_reach(self, smallest: int, dense: int) -> InvalidInput:
        """The error for a limit under ``smallest``, the cost of the narrowest network; what it suggests is accepted."""
        if smallest == dense:
            return InvalidInput("budget.metric", self.metric, "is not lowered by any prunable layer; use another metric")
        if self.ratio is None:
            least = _stated(self.metric, smallest)
            problem = f"is out of reach: the smallest reachable is {least} (of {_figure(self.metric, dense)})"
            return InvalidInput("budget.max", _stated(self.metric, self.limit), problem)
        if self.metric == SPARSITY:
            problem = f"is out of reach: at most {dense - smallest:,} of {dense:,} weights can go; ask for less"
            return InvalidInput("budget.ratio", self.ratio, problem)
        reachable, least = _share_rounded_up(smallest, dense), _stated(self.metric, smallest)
        problem = f"is out of reach: the smallest reachable is {reachable} ({least:,} of {_figure(self.metric, dense)})"
        return InvalidInput("budget.ratio", self.ratio, problem)


class SearchSpace:
    """All widths that a search may propose.

    Args:
        groups: in the order of the cost model's variables.
        cost: MACs and parameters of any widths.
        budget: from ``Budget.of`` with this network's dense cost.
        round_to: widths are multiples of this in the groups whose dense width is one; the others go by their divisor.

    Attributes:
        dense: widths of the dense network.
        least: the narrowest width of each group.
        step: channels between one width of a group and the next.
        searchable: indices of the groups that have more than one width.

    Raises:
        InvalidInput: nothing can be pruned, or not as far as the budget asks.
    """

    def __init__(self, groups: Sequence[Group], cost: CostModel, budget: Budget, round_to: int = 1) -> None:
        self.groups = tuple(groups)
        self.budget = budget
        self._cost_model = cost
        self._round_to = round_to
        self.dense: Widths = tuple(group.width for group in self.groups)
        self.step: Widths = tuple(_step(group, round_to) for group in self.groups)
        self.least: Widths = tuple(map(_least, self.groups, self.step))
        self.searchable = tuple(i for i in range(len(self.groups)) if self.least[i] < self.dense[i])
        if not self.searchable:
            raise _nothing_to_prune(self.groups, round_to)
        dense, smallest = self.cost(self.dense), self.cost(self.least)
        if budget.limit >= dense:
            raise ValueError(f"{budget} is met by the dense network, which costs {dense}; Budget.of refuses such a limit")
        if budget.limit < smallest:
            raise budget.out_of_reach(smallest, dense)

    def cost(self, widths: Sequence[int]) -> int:
        """What a network of these widths costs, in the budget's metric."""
        return self._cost_model(self.budget.metric, widths)

    def under(self, budget: Budget) -> SearchSpace:
        """The same groups under another budget; raises ``InvalidInput`` if it is out of reach."""
        return SearchSpace(self.groups, self._cost_model, budget, self._round_to)

    def holds(self, widths: Sequence[int]) -> bool:
        """Whether these are widths of this space, whatever they cost."""
        return len(widths) == len(self.dense) and all(
            width in range(least, dense + 1, step)
            for width, least, dense, step in zip(widths, self.least, self.dense, self.step, strict=True)
        )

    def costs(self, plans: NDArray[np.int64]) -> NDArray[np.int64]:
        """The costs ``[...]`` of many plans ``[..., groups]`` at once."""
        return self._cost_model.batch(self.budget.metric, plans)

    def fits(self, widths: Sequence[int]) -> bool:
        """Whether these widths are within the budget."""
        return self.cost(widths) <= self.budget.limit

    def within(self, widths: Widths, limit: int | None = None) -> SearchSpace:
        """The part of this space that can still be reached from these widths, which are as wide as it gets there.

        Args:
            widths: of this space; they do not fit the limit.
            limit: the part's own budget, this one's or higher.
        """
        grid = zip(self.groups, widths, self.step, self.least, strict=True)
        groups = [replace(group, width=width, divisor=step, minimum=least) for group, width, step, least in grid]
        budget = self.budget if limit is None else Budget(self.budget.metric, limit)
        # A width is counted in steps here, whatever it is a multiple of by chance.
        return SearchSpace(groups, self._cost_model, budget)

    def project(self, preference: Sequence[float]) -> Widths:
        """The widths in these proportions that use the budget up: they fit, and no group has room for one more step.

        All preferences are scaled by one common factor, found by bisection with every width clipped to its range and
        rounded down; then single steps go back to the groups that are furthest below their unrounded width.

        Args:
            preference: keep fraction wished for each group, above 0; only their proportions count, except that 1 or
                more asks for the group to stay dense, so that only the others are scaled. Where the budget cannot be
                met in that way, no group is spared. Those of groups that are not searchable have no effect.
        """
        if len(preference) != len(self.groups) or not all(0 < p < math.inf for p in preference):
            raise ValueError(f"{preference} is not one positive number for each of {len(self.groups)} groups")
        scaled = self._scaled_groups(preference)

        def unrounded(scale: float) -> list[float]:
            ideal: list[float] = list(self.dense)
            for i in scaled:
                ideal[i] = min(max(scale * preference[i] * self.dense[i], self.least[i]), self.dense[i])
            return ideal

        low, high = 0.0, 1 / min(preference[i] for i in scaled)  # all at their least, which fits; all dense
        while low < (middle := (low + high) / 2) < high:  # down to neighbouring floats
            if self.fits(self._rounded_down(unrounded(middle))):
                low = middle
            else:
                high = middle
        ideal = unrounded(low)
        return self._restore(self._rounded_down(ideal), lambda i, width: (width - ideal[i]) / self.dense[i])

    def ranked(self) -> Widths:
        """The widths that use the budget up when all channels of all groups are ranked by ``Group.scores`` together.

        The lowest threshold that fits is found by bisection: channels at or above it stay, and every group keeps its least.
        Then single steps go back, the one with the highest mean score first; no group has room for one more.

        Raises:
            ValueError: a searchable group without a score for each of its classes.
        """
        order: dict[int, list[float]] = {}
        for i in self.searchable:
            order[i] = sorted(self.groups[i].scores, reverse=True)
            if len(order[i]) * self.groups[i].divisor != self.dense[i]:
                raise ValueError(f"{self.groups[i].name} has {len(order[i])} scores for {self.dense[i]} channels")

        def widths(threshold: float) -> Widths:
            kept = list(self.dense)
            for i, scores in order.items():
                above = bisect_right(scores, -threshold, key=lambda score: -score) * self.groups[i].divisor
                kept[i] = max(above // self.step[i] * self.step[i], self.least[i])
            return tuple(kept)

        def next_step(i: int, width: int) -> float:
            divisor = self.groups[i].divisor
            gained = order[i][width // divisor : (width + self.step[i]) // divisor]
            return -sum(gained) / len(gained)

        thresholds = sorted({score for scores in order.values() for score in scores}, reverse=True)
        fitting = bisect_left(thresholds, True, key=lambda threshold: not self.fits(widths(threshold)))
        start = widths(thresholds[fitting - 1]) if fitting else self._rounded_down(self.least)
        return self._restore(start, next_step)

    def fill(self, widths: Sequence[int]) -> Widths:
        """Gives back single steps while they fit, first to the group with the lowest keep fraction.

        Widths over the budget come back as they are.
        """
        return self._restore(widths, lambda i, width: width / self.dense[i])

    def largest(self, widths: Sequence[int], group: int, limit: int) -> int | None:
        """The largest width of one group, at most its present one, with which the network costs at most ``limit``.

        The other groups keep ``widths``. ``None`` if even the narrowest is too dear.
        """
        changed = list(widths)
        step, least = self.step[group], self.least[group]
        low, high = -1, (widths[group] - least) // step  # steps above the least; -1 stands for none
        while low < high:
            middle = (low + high + 1) // 2
            changed[group] = least + middle * step
            if self.cost(changed) <= limit:
                low = middle
            else:
                high = middle - 1
        return None if low < 0 else least + low * step

    def _scaled_groups(self, preference: Sequence[float]) -> tuple[int, ...]:
        others = tuple(i for i in self.searchable if preference[i] < 1)
        reachable = self.fits([self.least[i] if i in others else self.dense[i] for i in range(len(self.groups))])
        return others if reachable else self.searchable

    def _rounded_down(self, ideal: Sequence[float]) -> Widths:
        return tuple(int(width // step) * step for width, step in zip(ideal, self.step, strict=True))

    def _restore(self, widths: Sequence[int], order: Callable[[int, int], float]) -> Widths:
        """Gives single steps back while they fit, first where ``order`` of a group and its width is lowest."""
        restored = list(widths)
        growing = [i for i in self.searchable if restored[i] < self.dense[i]]
        while growing:
            i = min(growing, key=lambda i: order(i, restored[i]))  # the first of equals
            restored[i] += self.step[i]
            if not self.fits(restored):
                restored[i] -= self.step[i]
                growing.remove(i)  # the others only grow, so this step will not fit later either
            elif restored[i] == self.dense[i]:
                growing.remove(i)
        return tuple(restored)


def _step(group: Group, round_to: int) -> int:
    common = math.lcm(group.divisor, round_to)
    return group.divisor if group.width % common else common


def _least(group: Group, step: int) -> int:
    return -(-group.minimum // step) * step


def _nothing_to_prune(groups: Sequence[Group], round_to: int) -> InvalidInput:
    if any(_least(group, group.divisor) < group.width for group in groups):
        return InvalidInput("pruner.round_to", round_to, "leaves no smaller width to any layer; state a smaller one")
    return InvalidInput("model", None, "has nothing to prune; let pruner.config_list take in layers that can be pruned")


def _stated(metric: str, cost: int) -> float:
    """A cost in the unit in which users state it."""
    return cost / NANOSECONDS if metric == LATENCY else cost


def _figure(metric: str, cost: int) -> str:
    return f"{cost / NANOSECONDS:,} ms" if metric == LATENCY else f"{cost:,} {metric}"


def _share_rounded_up(part: int, whole: int) -> str:
    """``part / whole`` in four significant decimals, more only where those would round up to 1."""
    for digits in count(4):
        share = Context(prec=digits, rounding=ROUND_CEILING).divide(Decimal(part), Decimal(whole))
        if share < 1:
            break
    return f"{share:f}"
