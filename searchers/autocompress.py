"""AutoCompress: in rounds, search for a plan, train the network towards it, remove, and go on from what is left.

Liu et al., AutoCompress: An Automatic DNN Structured Pruning Framework for Ultra-High Compression Rates, AAAI 2020,
arXiv 1907.03141.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence

from pydantic import Field

from pruners.errors import InvalidInput
from searchers import SEARCHERS
from searchers.base import Params, Training
from searchers.rounds import Candidate, RoundSearcher
from searchers.simulated_annealing import SimulatedAnnealing, SimulatedAnnealingParams
from searchers.space import SearchSpace, Widths
from searchers.uniform import uniform_plan

_ROUNDS = 3  # NNI's; the paper has as many as it takes
_TRIALS_A_ROUND = 12  # at least, by default: annealing draws eight plans before its first move
_PROBE = 1 / 8  # of a group's channels that purification tries to do without: few, since what it tries it takes or leaves

Steps = Generator[Sequence[Candidate], None, None]
"""Candidates to try; behind each yield their outcomes are known."""


class AutoCompressParams(Params):
    """AutoCompress' parameters."""

    rounds: int | None = Field(
        None, ge=1, description="Of searching, training and removing; by default 3, fewer where max_trials is under 36."
    )
    chains: int = Field(2, ge=1, le=64, description="Walks of the annealing that run in parallel.")
    admm_iterations: int = Field(3, ge=1, description="ADMM renews its pruned copy so often in each round (NNI: 30).")
    admm_epochs: int = Field(1, ge=1, description="Of training in each of those iterations (NNI: 5).")
    retrain_epochs: int = Field(3, ge=0, description="Of training behind each round's removal.")
    rho: float = Field(0.05, gt=0, description="How hard ADMM pulls the weights (NNI's 1e-4 needs its 150 epochs).")
    criterion: str = Field("l2", pattern="^l[12]$", description="The norm by which ADMM chooses channels: l1 or l2.")
    purify: float = Field(
        0.02,
        ge=0,
        description="Channels go behind ADMM if that worsens the score by no more than this share of it; 0: none go.",
    )


@SEARCHERS.register("autocompress")
class AutoCompress(RoundSearcher):
    """Rounds of annealing, training towards the best plan by ADMM and real removal, each from what the last one left.

    Of N rounds the i-th ends at the dense cost times ratio^(i/N), so that each removes the same share of what is left, and
    the last one ends exactly on the budget. A round:

    1. Simulated annealing (``searchers.simulated_annealing``) on the round's budget, among what can be cut from the network
       that the last round left. Its trials are bare cuts of that network.
    2. The best plan is what ADMM trains the network towards (``admm_iterations`` of ``admm_epochs`` epochs); then the channels
       are removed, and what is left is trained for ``retrain_epochs``. If that trial fails, the next round starts from the same
       network as this one.
    3. Purification: for each group, a trial without an eighth of its channels, those of the least norm. Groups that so lose
       the least go together, as long as their losses add up to no more than the share ``purify`` of the score, and one more
       trial has to confirm it; otherwise only the first of them goes. What is saved the next round need not remove, so that it
       goes back to the other groups; behind the last round, whose budget is to be used up, nothing is purified.

    Trials are shared out evenly among the rounds; where a round gets too few for it, it is not purified. With a single trial,
    ADMM trains towards the uniform plan.

    The paper prunes columns of filters too, and its annealing starts from the last round's plan; here each round's starts anew.
    """

    Params = AutoCompressParams
    params: AutoCompressParams
    reference = "Liu et al., AutoCompress, AAAI 2020, arXiv 1907.03141."
    names_parents = True
    trains_rounds = True

    def __init__(self, space: SearchSpace, params: AutoCompressParams, seed: int, max_trials: int) -> None:
        super().__init__(space, params, seed, max_trials)
        if params.rounds is not None and 2 * params.rounds > max_trials:
            problem = f"takes two trials a round at least; state at most {max_trials // 2}, or allow more in limits.max_trials"
            raise InvalidInput("searcher.params.rounds", params.rounds, problem)
        self.rounds = params.rounds or max(1, min(_ROUNDS, max_trials // _TRIALS_A_ROUND))
        self._steps = self._compress()

    @property
    def planned_trials(self) -> int:
        return self.max_trials

    def next_round(self) -> Sequence[Candidate]:
        return next(self._steps, [])

    def _compress(self) -> Steps:
        widths, parent = self.space.dense, None
        for number in range(1, self.rounds + 1):
            limit = self._limit(number)
            if self.space.cost(widths) <= limit:
                continue  # the last one removed, or purified, more than it had to
            room = self.space.within(widths, limit)
            share = (self.max_trials - self.asked) // (self.rounds - number + 1)
            purifying = len(room.searchable) + 1 if number < self.rounds and self.params.purify else 0
            if share - 1 - purifying < _TRIALS_A_ROUND:
                purifying = 0
            plan = yield from self._anneal(room, parent, number, share - 1 - purifying)
            trained = Candidate(plan, self._note(number, "trained by ADMM"), parent, self._admm)
            yield [trained]
            if math.isfinite(self._score(trained)):
                left = (yield from self._purify(trained, number)) if purifying else trained
                widths, parent = left.widths, self.numbers[left]

    def _limit(self, number: int) -> int:
        """The cost that a round ends with."""
        if number == self.rounds:
            return self.space.budget.limit
        dense = self.space.cost(self.space.dense)
        share = (self.space.budget.limit / dense) ** (number / self.rounds)
        return min(max(int(dense * share), self.space.budget.limit), dense - 1)

    @property
    def _admm(self) -> Training:
        of = self.params
        return Training(
            "admm",
            (
                ("criterion", of.criterion),
                ("iterations", of.admm_iterations),
                ("epochs", of.admm_epochs),
                ("rho", of.rho),
            ),
            of.retrain_epochs,
        )

    def _anneal(
        self, room: SearchSpace, parent: int | None, number: int, trials: int
    ) -> Generator[Sequence[Candidate], None, Widths]:
        """The best plan that annealing finds in so many trials; without any, the uniform plan."""
        uniform = uniform_plan(room)
        if trials < 1:
            return uniform
        chains = SimulatedAnnealingParams(chains=self.params.chains)
        annealing = SimulatedAnnealing(room, chains, self.seed + number, trials)
        scores: dict[Widths, float] = {uniform: -math.inf}
        while plans := annealing.next_round():
            asked = [Candidate(plan.widths, self._note(number, plan.note), parent) for plan in plans]
            yield asked
            annealing.outcomes |= {candidate.widths: self.outcome(candidate) for candidate in asked}
            scores |= {candidate.widths: self._score(candidate) for candidate in asked}
        return max(scores, key=scores.__getitem__)

    def _purify(self, trained: Candidate, number: int) -> Generator[Sequence[Candidate], None, Candidate]:
        """What is left of a trained network without channels that it can do without."""
        parent, score = self.numbers[trained], self._score(trained)
        allowed = self.params.purify * abs(score)
        probes = [
            Candidate(widths, self._note(number, f"without a part of {self.space.groups[group].name}"), parent)
            for group in self.space.searchable
            if (widths := self._without(trained.widths, group)) is not None
        ]
        if not probes:
            return trained
        yield probes
        # In the order of the losses, where gains count as none: as many as are allowed together.
        losses = {probe: max(0.0, score - self._score(probe)) for probe in probes}
        going: list[Candidate] = []
        total = 0.0
        for probe in sorted(probes, key=losses.__getitem__):
            total += losses[probe]
            together = self._together([*going, probe])
            if total <= allowed and not self.space.fits(together):
                going.append(probe)
        if len(going) < 2:
            return going[0] if going else trained
        purified = Candidate(self._together(going), self._note(number, "purified"), parent)
        yield [purified]
        return purified if score - self._score(purified) <= allowed else going[0]

    def _without(self, widths: Widths, group: int) -> Widths | None:
        """The widths with a part of one group gone; ``None`` if that would be too much, or pass by the budget itself."""
        step = self.space.step[group]
        width = widths[group] - max(1, int(_PROBE * widths[group] / step)) * step
        without = (*widths[:group], width, *widths[group + 1 :])
        return None if width < self.space.least[group] or self.space.fits(without) else without

    def _together(self, probes: Sequence[Candidate]) -> Widths:
        return tuple(map(min, zip(*(probe.widths for probe in probes), strict=True)))

    def _score(self, candidate: Candidate) -> float:
        """Of a failed trial −∞."""
        score = self.outcome(candidate).score
        return -math.inf if score is None or not math.isfinite(score) else score

    def _note(self, number: int, what: str) -> str:
        return f"round {number} of {self.rounds}: {what}"
