"""NetAdapt: tighten the budget round by round, and in each round cut the one group that it costs least to cut.

Yang et al., NetAdapt: Platform-Aware Neural Network Adaptation for Mobile Applications, ECCV 2018, arXiv 1804.03230.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field

from pruners.errors import InvalidInput
from searchers import SEARCHERS
from searchers.base import Params, Rival
from searchers.rounds import Candidate, RoundSearcher
from searchers.space import SearchSpace, Widths
from searchers.uniform import uniform_plans

_MOST_ROUNDS = 40
"""Rounds at most unless told otherwise: steps of a fortieth of the way are finer than most networks' widths."""

_CONTROL_SHARE = 0.1  # of the trials at most for uniform plans: a short search needs all of its rounds


class NetAdaptParams(Params):
    """NetAdapt's parameters."""

    rounds: int | None = Field(
        None,
        ge=1,
        description="Steps from the dense cost down to the budget; by default as many as max_trials allows, 40 at most.",
    )
    decay: float = Field(
        0.96, gt=0, le=1, description="Each round removes this times what the round before removed (the paper's 0.96)."
    )
    winners: int = Field(2, ge=1, description="Groups cut in a round; the paper's is 1.")
    candidates: int = Field(
        4,
        ge=1,
        description="Groups tried in each round after the first, the most promising ones; the paper's is all of them. "
        "State as many as trials run at once, if those are more than 4.",
    )
    choice: Literal["loss_per_saving", "score"] = Field(
        "loss_per_saving",
        description="What wins a round: the least score lost per cost saved (as in the authors' code), "
        "or the highest score (as in the paper).",
    )
    racing: float | None = Field(
        None,
        ge=0.5,
        lt=1,
        description="Confidence, such as 0.99, at which a candidate that cannot win its round any more ends before it has seen "
        "all search images. Pays where a round has many candidates; by default all of them see all.",
    )


@SEARCHERS.register("netadapt")
class NetAdapt(RoundSearcher):
    """Tightens the budget in rounds and cuts, in each, the groups whose cut costs the least score.

    The schedule: each round removes ``decay`` times what the round before removed, and all of them together end exactly
    on the budget. (With a free first step, as published, the rounds may add up to less than was asked for.) What a
    round removes too much or too little, because widths are whole numbers, is spread over the rounds that are left.

    A round, starting from what the last one left (first, the dense network):

    1. For each group a candidate: this group alone is cut, to the largest width that saves its share of what the round
       has to remove, a ``winners``-th. A group that cannot save as much sits the round out; if none can, the candidates
       cut each group to its minimum instead.
    2. The candidates of the most promising groups are tried in parallel. Promising is what lost little per cost saved
       when it was tried last: a cut hurts more the more has been cut, so that an old figure flatters, and a group that
       looks bad by it is bad. The first round tries all groups.
    3. The ``winners`` that lost the least score per cost saved are cut together, as far as the round needs them. What
       they lose together is measured beside the next round's candidates. Where some lost nothing, those with the highest
       scores come first. A failed trial is out; a round without a success ends the search.

    The last round has one winner: each candidate alone goes down to the budget, or, where no group is enough alone, to
    its minimum while all others shrink in proportion. A plan within the budget gets single channel steps back until
    none fits any more.

    Where every trial trains its network (``recovery.short_steps``), weights carry on: the candidates of a round are cut from
    the network that the last winners left, all channels that it has lost are lost, and winners that are cut together are
    trained together before the next round begins. If that trial fails, the best of them alone goes on.

    With ``racing``, a round's candidates run in heats, the first as large as ``winners``, of those that look most promising,
    and each other as large as all before it. From the second on a candidate has the last of the winners so far as its rival.
    It ends where, by the differences of their losses on the same images, neither its score nor its score lost per cost saved
    gets past the rival's.

    The paper's algorithm is ``winners=1``, ``candidates`` as many as there are groups, ``choice="score"``. Where groups
    outnumber the rounds that a job can pay for, its few steps are coarse, on some networks worse than a uniform cut; two
    winners and a short list make many small cuts of the same number of trials.

    Beside the first round the uniform plans are tried, if they are at most a tenth of ``max_trials``, so that the search
    cannot end below its control.

    Nothing here is random: equal outcomes are decided by the order of the groups.
    """

    Params = NetAdaptParams
    params: NetAdaptParams
    reference = (
        "Yang et al., NetAdapt: Platform-Aware Neural Network Adaptation for Mobile Applications, ECCV 2018, arXiv 1804.03230."
    )

    def __init__(self, space: SearchSpace, params: NetAdaptParams, seed: int, max_trials: int) -> None:
        super().__init__(space, params, seed, max_trials)
        groups = len(space.searchable)
        self._shortlist = min(groups, params.candidates)
        # A round with several winners leaves a network that nobody has tried, which is one more trial.
        self._per_round = self._shortlist + (0 if params.winners == 1 else 1)
        spare = max_trials - groups - (0 if params.rounds is None else (params.rounds - 1) * self._per_round)
        controls = uniform_plans(space)
        most = min(spare, int(_CONTROL_SHARE * max_trials)) if groups > 1 else 0
        self._controls = controls if len(controls) <= most else []
        self.rounds = _affordable_rounds(params.rounds, groups, self._per_round, max_trials - len(self._controls))
        self._number = 0  # of the round that is running
        self._base: Widths = space.dense
        self._parent: int | None = None  # the proposal whose network has these widths, where weights carry on
        self._settled: tuple[Candidate, ...] = ()  # the last round's winners together, and the best of them alone
        self._round: dict[int, Widths] = {}  # by group, the candidate that cuts it
        self._waiting: list[int] = []  # of these, the groups whose turn has not come
        self.names_rivals = params.racing is not None
        self._figures: dict[int, float] = {}  # by group, the score lost per cost saved when it was tried last

    def expect_training(self) -> None:
        self.names_parents = True

    @property
    def planned_trials(self) -> int:
        return len(self._controls) + len(self.space.searchable) + (self.rounds - 1) * self._per_round

    @property
    def base(self) -> Widths:
        """The widths that the candidates of the round that is running are cut from: those of the last round's winner."""
        return self._base

    def next_round(self) -> Sequence[Candidate]:
        if self._waiting:
            return self._heat()
        if self._round and not self._settle():
            return []
        if self._number == self.rounds:
            return []
        if self.names_parents and self._number:
            together, best = self._settled
            if together not in self.numbers:
                return [together]
            adopted = best if self._score(together.widths) is None else together
            self._base, self._parent = adopted.widths, self.numbers[adopted]
            if self.space.fits(self._base):
                return []
        self._number += 1
        if self.space.fits(self._base):  # coarse cuts met the budget early: what is left to try is all of them together
            self._number = self.rounds
            return [Candidate(self._base, f"round {self.rounds} of {self.rounds}: all cuts together")]
        self._round = self._plan()
        together = Candidate(self._base, f"round {self._number} of {self.rounds}: the last winners together")
        measured = self._number == 1 or self._base in self.outcomes
        controls = [Candidate(widths, "a uniform plan") for widths in self._controls] if self._number == 1 else []
        self._waiting = list(self._round)
        return [*([] if measured else [together]), *self._heat(), *controls]

    def _heat(self) -> list[Candidate]:
        """The candidates of this round that run next: all of them, or in a race as many as ran before."""
        waiting, rivals = self._waiting, dict[int, Rival]()
        if self.params.racing is not None:
            first = len(waiting) == len(self._round)
            promising = sorted(waiting, key=lambda group: self._figures.get(group, -math.inf))[: self._shares]
            waiting = sorted(promising) if first else waiting[: len(self._round) - len(waiting)]
            rivals = self._rivals(waiting, self.params.racing)
        self._waiting = [group for group in self._waiting if group not in waiting]
        return [replace(self._candidate(group, self._round[group]), rival=rivals.get(group)) for group in waiting]

    def _rivals(self, groups: Sequence[int], confidence: float) -> dict[int, Rival]:
        """For each group what it has to beat: the last of this round's winners so far; nothing while there are too few."""
        scored = self._scored()
        if len(scored) < self._shares:
            return {}
        last = self._ranked(scored)[self._shares - 1]
        number = self.numbers[self._candidate(last, self._round[last])]
        if self._told[number].metric is None:
            return {}
        loss, reference = self._loss_per_saving(scored, last), self._reference(scored)
        equal = {group: reference - loss * self._saving(group) for group in groups}
        if self.params.choice == "score":
            equal = dict.fromkeys(groups, math.inf)
        return {group: Rival(number, min(equal[group], scored[last]), confidence) for group in groups}

    def _settle(self) -> bool:
        """Cuts the round's winners out of the base; ``False`` if every trial failed."""
        scored, target = self._scored(), self._target()
        if not scored:
            return False
        self._figures |= {group: self._loss_per_saving(scored, group) if group in scored else math.inf for group in self._round}
        cut, ranked = list(self._base), self._ranked(scored)
        for group in ranked[: self._shares]:
            if self.space.cost(cut) > target:
                cut = [min(now, new) for now, new in zip(cut, self._round[group], strict=True)]
        left = self._room.fill(cut)
        together = Candidate(left, f"round {self._number} of {self.rounds}: the winners together", self._parent)
        self._settled = (together, self._candidate(ranked[0], self._round[ranked[0]]))
        self._base, self._round = left, {}
        return True

    def _scored(self) -> dict[int, float]:
        """The scores of this round's candidates that succeeded, so far, in the order of the groups."""
        scores = {group: self._score(widths) for group, widths in self._round.items()}
        return {group: score for group, score in scores.items() if score is not None}

    def _reference(self, scored: Mapping[int, float]) -> float:
        """What this round's scores are measured against.

        The base's score is not known of the dense network, nor if its trial failed. Then it is the best of the round, which so
        loses nothing and wins.
        """
        base = self._score(self._base)
        return max(scored.values()) if base is None else base

    def _saving(self, group: int) -> int:
        return self.space.cost(self._base) - self.space.cost(self._round[group])

    def _loss_per_saving(self, scored: Mapping[int, float], group: int) -> float:
        return (self._reference(scored) - scored[group]) / self._saving(group)

    def _ranked(self, scored: Mapping[int, float]) -> list[int]:
        """The groups with a score, the winners first."""
        reference = self._reference(scored)

        def order(group: int) -> tuple[bool, float]:
            gains = scored[group] >= reference or self.params.choice == "score"
            return not gains, -scored[group] if gains else self._loss_per_saving(scored, group)

        return sorted(scored, key=order)

    @property
    def _room(self) -> SearchSpace:
        """What the base can be cut to; where no weights carry on, channels may also come back from the dense network."""
        return self.space.within(self._base) if self.names_parents else self.space

    def _score(self, widths: Widths) -> float | None:
        score = self.outcomes[widths].score if widths in self.outcomes else None
        return score if score is not None and math.isfinite(score) else None

    @property
    def _shares(self) -> int:
        return 1 if self._number == self.rounds else self.params.winners

    def _target(self) -> int:
        """The cost to reach in this round, so that the rounds left, each ``decay`` times the last, end on the budget."""
        cost, limit = self.space.cost(self._base), self.space.budget.limit
        left = sum(self.params.decay**i for i in range(self.rounds - self._number + 1))
        return limit + int((cost - limit) * (1 - 1 / left))

    def _plan(self) -> dict[int, Widths]:
        """By group the candidates of this round."""
        cost, target = self.space.cost(self._base), self._target()
        cuts = self._alone(cost - math.ceil((cost - target) / self._shares))
        if not cuts:
            cuts = self._shared() if self._number == self.rounds else self._to_minimum()
        known = sorted(cuts, key=lambda group: self._figures.get(group, -math.inf))
        room = self._room
        return {group: room.fill(cuts[group]) for group in sorted(known[: self._shortlist if self._number > 1 else None])}

    def _candidate(self, group: int, widths: Widths) -> Candidate:
        cut = f"{self.space.groups[group].name} {self._base[group]} → {widths[group]}"
        return Candidate(widths, f"round {self._number} of {self.rounds}: {cut}", self._parent)

    def _alone(self, target: int) -> dict[int, Widths]:
        """Per group that can meet the target alone, the widths with just that group cut."""
        largest = {i: self.space.largest(self._base, i, target) for i in self.space.searchable}
        return {i: self._with(i, width) for i, width in largest.items() if width is not None}

    def _to_minimum(self) -> dict[int, Widths]:
        """Per group that still saves something, the widths with that group at its minimum."""
        cuts = {i: self._with(i, self.space.least[i]) for i in self.space.searchable}
        return {i: widths for i, widths in cuts.items() if self.space.cost(widths) < self.space.cost(self._base)}

    def _shared(self) -> dict[int, Widths]:
        """Per group, widths on the budget with that group at its minimum and the others shrunk in proportion."""
        room = self._room

        def proportions(widths: Widths) -> list[float]:
            # Halved, because a preference of 1 asks for a group to stay dense.
            return [0.5 * width / dense for width, dense in zip(widths, room.dense, strict=True)]

        return {i: room.project(proportions(widths)) for i, widths in self._to_minimum().items()}

    def _with(self, group: int, width: int) -> Widths:
        return (*self._base[:group], width, *self._base[group + 1 :])


def _affordable_rounds(rounds: int | None, groups: int, per_round: int, max_trials: int) -> int:
    if max_trials < groups:
        problem = f"is too few for netadapt, which tries each of {groups} groups of channels in its first round; allow {groups}"
        raise InvalidInput("limits.max_trials", max_trials, problem)
    most = 1 + (max_trials - groups) // per_round
    if rounds is not None and rounds > most:
        problem = (
            f"takes up to {groups + (rounds - 1) * per_round} trials ({groups} groups, then {per_round} trials a round) where "
            f"limits.max_trials allows {max_trials}; state at most {most} or allow more trials"
        )
        raise InvalidInput("searcher.params.rounds", rounds, problem)
    return min(_MOST_ROUNDS, most) if rounds is None else rounds
