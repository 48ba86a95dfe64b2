"""NetAdapt: tighten the budget round by round, and in each round cut the one group that it costs least to cut.

Yang et al., NetAdapt: Platform-Aware Neural Network Adaptation for Mobile Applications, ECCV 2018, arXiv 1804.03230.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

from pydantic import Field

from pruners.errors import InvalidInput
from searchers import SEARCHERS
from searchers.base import Params
from searchers.rounds import Candidate, RoundSearcher
from searchers.space import SearchSpace, Widths

_DEFAULT_ROUNDS = 10
"""As many as the authors' code runs unless told otherwise (``max_iters``)."""


class NetAdaptParams(Params):
    """NetAdapt's parameters."""

    rounds: int | None = Field(
        None,
        ge=1,
        description="Steps from the dense cost down to the budget; by default 10, or as many as max_trials allows.",
    )
    decay: float = Field(
        0.96, gt=0, le=1, description="Each round removes this times what the round before removed (the paper's 0.96)."
    )


@SEARCHERS.register("netadapt")
class NetAdapt(RoundSearcher):
    """Tightens the budget in rounds and cuts, in each, the one group whose cut costs the least score.

    The schedule: round i of n has to remove ``R·decay^(i-1)`` of the cost, and R is such that all n rounds together end
    exactly on the budget. (With a free R, as published, the rounds may add up to less than was asked for.) Rounds whose
    target an earlier, coarser cut has met are left out.

    A round, starting from the winner of the last (first, the dense network):

    1. For each group a candidate: this group alone is cut, to the largest width that meets the round's target. A group
       that cannot meet it alone sits the round out.
    2. If no group can, the candidates cut each group to its minimum instead and the rest of the target is carried into
       an extra round. Each extra round exhausts a group, so they come to an end. Should ``max_trials`` come first, the
       last round that it allows goes straight for the budget; if there, too, no group is enough alone, each candidate
       cuts one to its minimum and shrinks all others in proportion. Either way the search ends on the budget.
    3. A candidate within the final budget gets single channel steps back until none fits any more.
    4. All candidates are tried in parallel. The winner lost the least score per cost saved, or, where some lost
       nothing, has the highest score. A failed trial is out; a round without a success ends the search.

    Nothing here is random: equal outcomes are decided by the order of the groups.
    """

    Params = NetAdaptParams
    params: NetAdaptParams
    reference = (
        "Yang et al., NetAdapt: Platform-Aware Neural Network Adaptation for Mobile Applications, ECCV 2018, arXiv 1804.03230."
    )

    def __init__(self, space: SearchSpace, params: NetAdaptParams, seed: int, max_trials: int) -> None:
        super().__init__(space, params, seed, max_trials)
        self.rounds = _affordable_rounds(params.rounds, len(space.searchable), max_trials)
        self._targets = _schedule(space.cost(space.dense), space.budget.limit, self.rounds, params.decay)
        self._base: Widths = space.dense
        self._base_score: float | None = None  # the dense network's is not known here
        self._round: list[Candidate] = []

    @property
    def planned_trials(self) -> int:
        # Every group in every round, and in the extra rounds, each of which leaves one group fewer, all but the last.
        groups = len(self.space.searchable)
        return min(self.max_trials, self.rounds * groups + groups * (groups + 1) // 2 - 1)

    def next_round(self) -> Sequence[Candidate]:
        if self._round and not self._settle():
            return []
        self._round = self._plan()
        return self._round

    def _settle(self) -> bool:
        """Makes the round's winner the new base; ``False`` if every trial failed."""
        scores = {c.widths: self.outcomes[c.widths].score for c in self._round}
        scored = {widths: score for widths, score in scores.items() if score is not None and math.isfinite(score)}
        if not scored:
            return False
        best = max(scored.values())
        # Round 1 has no score to lose from. Measured against its own best, that one loses nothing and wins.
        reference = best if self._base_score is None else self._base_score
        cost = self.space.cost(self._base)

        def loss_per_saving(widths: Widths) -> float:
            return (reference - scored[widths]) / (cost - self.space.cost(widths))

        self._base = max(scored, key=scored.__getitem__) if best >= reference else min(scored, key=loss_per_saving)
        self._base_score = scored[self._base]
        return True

    def _plan(self) -> list[Candidate]:
        """The candidates of the first round whose target is not met yet; none if all are."""
        cost = self.space.cost(self._base)
        number = next((i for i, target in enumerate(self._targets, 1) if target < cost), None)
        if number is None:
            return []
        cuts = self._alone(self._targets[number - 1]) or self._to_minimum(cost)
        left = self.max_trials - len(self.outcomes) - len(cuts)
        if left < len(self.space.searchable):  # another round might not fit in, so this one has to end on the budget
            number = self.rounds
            cuts = self._alone(self.space.budget.limit) or self._shared()
        return [self._candidate(number, group, widths) for group, widths in cuts.items()]

    def _candidate(self, number: int, group: int, widths: Widths) -> Candidate:
        cut = f"{self.space.groups[group].name} {self._base[group]} → {widths[group]}"
        return Candidate(self.space.fill(widths), f"round {number} of {self.rounds}: {cut}")

    def _alone(self, target: int) -> dict[int, Widths]:
        """Per group that can meet the target alone, the widths with just that group cut."""
        largest = {i: self.space.largest(self._base, i, target) for i in self.space.searchable}
        return {i: self._with(i, width) for i, width in largest.items() if width is not None}

    def _to_minimum(self, cost: int) -> dict[int, Widths]:
        """Per group that still saves something, the widths with that group at its minimum."""
        cuts = {i: self._with(i, self.space.least[i]) for i in self.space.searchable}
        return {i: widths for i, widths in cuts.items() if self.space.cost(widths) < cost}

    def _shared(self) -> dict[int, Widths]:
        """Per group, widths on the budget with that group at its minimum and the others shrunk in proportion."""
        cuts = self._to_minimum(self.space.cost(self._base))
        return {i: self.space.project(self._proportions(widths)) for i, widths in cuts.items()}

    def _proportions(self, widths: Widths) -> list[float]:
        # Halved, because a preference of 1 asks for a group to stay dense.
        return [0.5 * width / dense for width, dense in zip(widths, self.space.dense, strict=True)]

    def _with(self, group: int, width: int) -> Widths:
        return (*self._base[:group], width, *self._base[group + 1 :])


def _affordable_rounds(rounds: int | None, groups: int, max_trials: int) -> int:
    most = max_trials // groups
    if most == 0:
        problem = f"is too few for netadapt, which tries each of {groups} groups of channels a round; allow {groups}"
        raise InvalidInput("limits.max_trials", max_trials, problem)
    if rounds is not None and rounds > most:
        problem = (
            f"takes up to {rounds * groups} trials ({groups} groups a round) where limits.max_trials allows "
            f"{max_trials}; state at most {most} or allow more trials"
        )
        raise InvalidInput("searcher.params.rounds", rounds, problem)
    return min(_DEFAULT_ROUNDS, most) if rounds is None else rounds


def _schedule(dense: int, limit: int, rounds: int, decay: float) -> list[int]:
    """The cost to reach in each round: steps that shrink by ``decay``, the last one down to ``limit`` exactly."""
    removed = list(accumulate(decay**i for i in range(rounds)))
    return [limit + int((dense - limit) * (1 - share / removed[-1])) for share in removed]
