"""Sensitivity: measure what cutting each group alone costs, spread the cut so that no group hurts more than another.

The analysis is that of Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, arXiv 1608.08710; the allocation by a
threshold on monotone curves is that of AIMET's compression-ratio selection and ModelOpt's FastNAS.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

from pydantic import Field, field_validator

from searchers import SEARCHERS
from searchers.base import Params
from searchers.curves import damage_curves, even_damage, grid, least_damage
from searchers.moves import exchange, finite_scores
from searchers.rounds import Candidate, RoundSearcher
from searchers.space import SearchSpace, Widths
from searchers.uniform import uniform_plans

_EQUAL = 0.5  # a preference; any number below 1 does, only proportions count
_ALLOCATIONS = 4  # plans that follow the analysis: by equal damage, by least damage, and the two uniform ones
_FIRST_CUT, _NEXT_CUT = 0.25, 0.7  # a re-analysis cuts each group by a quarter, the next by 0.7 of that, …
_STRIDES = (0.5, 1.0, 2.0)  # in cuts: how far a new plan goes along what a re-analysis showed
_EXCHANGED = 3  # groups that seem too wide, and too narrow, whose pairs are tried after a re-analysis
_REANALYSES = 10  # the last cuts each group by a hundredth, less than a channel in most


class SensitivityParams(Params):
    """Sensitivity's parameters."""

    ratios: tuple[float, ...] = Field(
        tuple(i / 10 for i in range(1, 10)),
        min_length=1,
        description="Shares of a group's channels to remove in its probes, ascending; thinned out to fit max_trials.",
    )
    stop: float = Field(
        2.0,
        ge=1,
        description="A group is not probed deeper once its drop is over this many times the damage that, by the curves so "
        "far, the budget asks of every group.",
    )
    threshold: float | None = Field(
        None, gt=0, description="Nor is it once its score is below the dense network's by more than this; by default no limit."
    )

    @field_validator("ratios")
    @classmethod
    def _ascending(cls, ratios: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < ratio < 1 for ratio in ratios) or list(ratios) != sorted(set(ratios)):
            raise ValueError("state shares between 0 and 1, both excluded, each larger than the one before")
        return ratios


@SEARCHERS.register("sensitivity")
class Sensitivity(RoundSearcher):
    """Probes every group alone and cuts each as far as the same damage allows.

    1. Analysis, at most half of the trials: the dense network, then every group alone at the first of the ratios, all in
       parallel; then at the next, except the groups that hurt more than the budget asks (``stop``), and so on. No group is
       probed below the width at which it meets the budget alone. With fewer trials than groups and five more, there is no
       analysis, and all groups count as equal.
    2. Allocation: each curve is made monotone; the lowest threshold is found at which every group, cut to its narrowest
       width with no more damage, meets the budget. That plan is tried, beside the one with the least sum of damages and
       the uniform ones.
    3. Re-analysis around the best plan on the budget so far, as long as there are trials: every group alone is cut a bit
       further, the others growing in proportion, so that all probes are on the budget and may win. Then plans that cut
       each group in proportion to what its probe gained, in strides of several lengths, and exchanges between the groups
       that seem too wide and those that seem too narrow. The cuts get finer by the round.

    Nothing here is random. A failed probe tells nothing of its group, which counts as a middling one. A search whose plans
    all failed ends.
    """

    Params = SensitivityParams
    params: SensitivityParams
    reference = "Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, arXiv 1608.08710: the layers' sensitivity."

    def __init__(self, space: SearchSpace, params: SensitivityParams, seed: int, max_trials: int) -> None:
        super().__init__(space, params, seed, max_trials)
        groups = len(space.searchable)
        self._depths = _affordable(params.ratios, groups, max_trials)
        self._cuts = [_FIRST_CUT * _NEXT_CUT**i for i in range(_REANALYSES)]
        analysis = 1 + groups * len(self._depths) if self._depths else 0
        self._planned = min(max_trials, analysis + _ALLOCATIONS + (groups + len(_STRIDES) + _EXCHANGED**2) * len(self._cuts))
        self._probes: list[dict[int, Widths]] = [{} for _ in space.groups]  # per group, the plan probed by its width
        self._allocated = False
        self._base: Widths | None = None  # what the present re-analysis is made around

    @property
    def planned_trials(self) -> int:
        return self._planned

    @property
    def curves(self) -> dict[str, dict[int, float]]:
        """The analysis so far: per group that was probed, the score lost by width, in units of the largest score seen."""
        groups = zip(self.space.groups, self._drops(), strict=True)
        return {group.name: drops for group, drops in groups if drops}

    def next_round(self) -> Sequence[Candidate]:
        if self._depths:
            return self._analysis(self._depths.pop(0))
        if not self._allocated:
            return self._allocation()
        if self._base is None:
            return self._reanalysis()
        candidates, self._base = self._strides(self._base), None
        return candidates

    def _analysis(self, ratio: float) -> list[Candidate]:
        space, drops = self.space, self._drops()
        curves = damage_curves(space, drops)
        plan = even_damage(space, curves)
        asked = max(curves[group][grid(space, group).index(plan[group])] for group in space.searchable)
        most = math.inf if self.params.threshold is None else self.params.threshold / self._unit()
        candidates = [Candidate(space.dense, "the dense network")]
        for group in space.searchable:
            if any(drop > self.params.stop * asked or drop > most for drop in drops[group].values()):
                continue
            enough = space.largest(space.dense, group, space.budget.limit) or space.least[group]
            width = max(_cut(space, space.dense, group, ratio), enough)
            alone = self._probes[group][width] = _with(space.dense, group, width)
            candidates.append(Candidate(alone, f"{space.groups[group].name} alone {space.dense[group]} → {width}"))
        return candidates

    def _drops(self) -> list[dict[int, float]]:
        """Per group, the score lost by width; against the best probe, should the dense network's trial have failed."""
        scores = finite_scores(self.outcomes)
        known = [{width: scores[plan] for width, plan in probes.items() if plan in scores} for probes in self._probes]
        best = max((score for of_group in known for score in of_group.values()), default=0.0)
        reference = scores.get(self.space.dense, best)
        return [{width: reference - score for width, score in of_group.items()} for of_group in known]

    def _unit(self) -> float:
        """What ``finite_scores`` divides by."""
        scores = (outcome.score for outcome in self.outcomes.values())
        return max((abs(score) for score in scores if score is not None and math.isfinite(score)), default=0.0) or 1.0

    def _allocation(self) -> list[Candidate]:
        self._allocated = True
        curves = damage_curves(self.space, self._drops())
        return [
            Candidate(even_damage(self.space, curves), "equal damage in every group"),
            Candidate(least_damage(self.space, curves), "the least sum of damages"),
            *[Candidate(plan, "a uniform plan") for plan in uniform_plans(self.space)],
        ]

    def _reanalysis(self) -> list[Candidate]:
        scores = {widths: score for widths, score in finite_scores(self.outcomes).items() if self.space.fits(widths)}
        if not scores or not self._cuts:
            return []
        self._base = max(scores, key=scores.__getitem__)
        number = _REANALYSES + 1 - len(self._cuts)
        plans = {self.space.groups[group].name: plan for group, plan in self._neighbours(self._base).items()}
        return [Candidate(plan, f"re-analysis {number}: less of {name}") for name, plan in plans.items()]

    def _neighbours(self, base: Widths) -> dict[int, Widths]:
        """Per group that can be cut, the base with it cut and the others grown in proportion, on the budget."""
        space = self.space
        cut = {group: _cut(space, base, group, self._cuts[0]) for group in space.searchable if base[group] > space.least[group]}
        return {group: _project(space, _with(base, group, width)) for group, width in cut.items()}

    def _strides(self, base: Widths) -> list[Candidate]:
        """Plans along what the re-analysis showed: each group cut in proportion to what cutting it gained."""
        scores = finite_scores(self.outcomes)
        gains = {group: scores[plan] - scores[base] for group, plan in self._neighbours(base).items() if plan in scores}
        most = max(map(abs, gains.values()), default=0.0)
        if not most:
            return []
        cut, candidates = self._cuts.pop(0), []
        for stride in _STRIDES:
            factors = [(1 - cut) ** (stride * gains.get(group, 0.0) / most) for group in range(len(base))]
            plan = _project(self.space, [width * factor for width, factor in zip(base, factors, strict=True)])
            candidates.append(Candidate(plan, f"along the re-analysis, {stride:g} cuts far"))
        ranked = sorted(gains, key=gains.__getitem__)
        for shrink, grow in product(ranked[: -1 - _EXCHANGED : -1], ranked[:_EXCHANGED]):
            exchanged = exchange(self.space, base, grow, shrink, cut) if grow != shrink else None
            if exchanged is not None:
                names = self.space.groups[shrink].name, self.space.groups[grow].name
                candidates.append(Candidate(exchanged, "channels of {} for {}".format(*names)))
        return candidates


def _affordable(ratios: Sequence[float], groups: int, max_trials: int) -> list[float]:
    """The ratios, evenly thinned so that the analysis takes at most half of the trials; at least one if it can be had."""
    if max_trials < groups + 1 + _ALLOCATIONS:  # the dense network, one probe for each group, the plans
        return []
    count = min(len(ratios), max(1, (max_trials // 2 - 1) // groups))
    return [ratios[(2 * i + 1) * len(ratios) // (2 * count)] for i in range(count)]


def _cut(space: SearchSpace, widths: Widths, group: int, share: float) -> int:
    """The group's width less a share of it, rounded down to the grid: at least a step less, where there is one."""
    step = space.step[group]
    return max(space.least[group], min(int(widths[group] * (1 - share) // step) * step, widths[group] - step))


def _with(widths: Widths, group: int, width: int) -> Widths:
    return (*widths[:group], width, *widths[group + 1 :])


def _project(space: SearchSpace, widths: Sequence[float]) -> Widths:
    """The plan on the budget in these proportions."""
    wished = [width / dense for width, dense in zip(widths, space.dense, strict=True)]
    return space.project([_EQUAL * wish / max(wished) for wish in wished])  # a preference of 1 would spare the group
