"""Simulated annealing: walk from plan to plan on the budget, taking worse ones ever more rarely.

Kirkpatrick, Gelatt and Vecchi, Optimization by Simulated Annealing, Science 220, 1983; as a search for pruning ratios,
Liu et al., AutoCompress, AAAI 2020, arXiv 1907.03141.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence

from pydantic import Field

from searchers import SEARCHERS
from searchers.base import Params
from searchers.moves import around, exchange, finite_scores
from searchers.rounds import Candidate, RoundSearcher
from searchers.space import SearchSpace, Widths
from searchers.uniform import uniform_plans

_MOVE_POWER = 0.25  # of the temperature, so that the last moves, a third of the first, still are a channel or more
FIRST = 8
"""Plans that the first temperature is taken from: the fewest whose spread means something."""
_LAST_TEMPERATURE = 0.01  # of the first: there, a loss of a twentieth of the first temperature is hardly ever taken
_DRAWS_PER_MOVE = 20  # a chain in a corner of a small space finds little that is new; after this many it rests for a round
_SPREAD = 0.3  # standard deviation of the logarithm of the factors by which first plans differ from uniform ones


class SimulatedAnnealingParams(Params):
    """Simulated annealing's parameters."""

    chains: int = Field(2, ge=1, le=64, description="Walks that run in parallel, each from another of the best first plans.")
    largest_move: float = Field(
        0.5, gt=0, le=1, description="Share of a group's channels that a move changes at most, at the first temperature."
    )


class _Chain:
    """One walk.

    Attributes:
        generator: its own, so that no other chain's luck changes what this one does.
        at: the plan where it stands; ``asked``: the neighbour that is being tried.
    """

    def __init__(self, generator: random.Random, at: Widths) -> None:
        self.generator = generator
        self.at = at
        self.asked: Widths | None = None

    def move(self, scores: dict[Widths, float], temperature: float) -> None:
        """Goes on to the neighbour that was tried, if it is no worse, or by chance."""
        if self.asked is None or self.asked not in scores:
            return
        loss = scores.get(self.at, -math.inf) - scores[self.asked]
        if loss <= 0 or (temperature > 0 and self.generator.random() < math.exp(-loss / temperature)):
            self.at = self.asked


@SEARCHERS.register("simulated_annealing")
class SimulatedAnnealing(RoundSearcher):
    """Walks among the plans on the budget: a worse neighbour is taken by a chance that falls as the search cools.

    1. The first plans: the uniform one, and others drawn as the random control draws them. The standard deviation of their
       scores, times the share of the groups that a neighbour changes, two, is the first temperature: nothing depends on the
       score's scale. Each chain starts from one of the best.
    2. In every round each chain tries one neighbour: a drawn group gains channels and another drawn one pays for them, so
       that every plan is on the budget. How many is drawn up to a bound that falls with the temperature.
    3. A neighbour that is no worse is taken; one that is worse by Δ is taken with probability exp(−Δ/T), a failed one never.
       T falls geometrically with every proposal, taken or not, to a hundredth of the first at ``max_trials``.

    A neighbour whose score is known is taken or left without a trial, and chains may start from an earlier search's plans.
    The search ends early only where no chain finds a plan that was not tried. Each chain draws from a generator of its own,
    and what it does depends on no order of telling.
    """

    Params = SimulatedAnnealingParams
    params: SimulatedAnnealingParams
    reference = "Liu et al., AutoCompress, AAAI 2020, arXiv 1907.03141; Kirkpatrick et al., Science 220, 1983."

    def __init__(self, space: SearchSpace, params: SimulatedAnnealingParams, seed: int, max_trials: int) -> None:
        super().__init__(space, params, seed, max_trials)
        draws = random.Random(seed)  # noqa: S311 - a search, not a secret
        uniform = uniform_plans(space)
        drawn = [around(space, uniform[i % len(uniform)], _SPREAD, draws) for i in range(FIRST - len(uniform))]
        self._first = list(dict.fromkeys([*uniform, *drawn]))[:max_trials]
        self._generators = [random.Random(f"{seed} {chain}") for chain in range(params.chains)]  # noqa: S311
        self._chains: list[_Chain] = []

    @property
    def planned_trials(self) -> int:
        return self.max_trials

    def next_round(self) -> Sequence[Candidate]:
        known = self.given_widths
        left = self.max_trials - len(self.outcomes) + len(known)
        first_round = [Candidate(widths, f"first plan {number}") for number, widths in enumerate(self._first, 1)]
        if untried := [candidate for candidate in first_round if candidate.widths not in self.outcomes]:
            return untried[:left]
        scores = finite_scores(self.outcomes)
        first = [scores[widths] for widths in self._first if widths in scores]
        hottest = statistics.pstdev(first) * 2 / len(self.space.searchable) if first else 0.0
        if not self._chains:
            starts = dict.fromkeys([*self._first, *filter(self.space.fits, sorted(known))])
            ranked = sorted(starts, key=lambda widths: -scores.get(widths, -math.inf))
            self._chains = [_Chain(generator, ranked[k % len(ranked)]) for k, generator in enumerate(self._generators)]
        walked = self.max_trials - sum(widths not in known for widths in self._first)
        share = _LAST_TEMPERATURE ** (1 - left / max(1, walked))
        for chain in self._chains:
            chain.move(scores, share * hottest)
            self._draw(chain, scores, share, share * hottest)
        asked = [(number, chain.asked) for number, chain in enumerate(self._chains, 1) if chain.asked is not None]
        return [Candidate(plan, f"chain {number}, at {share:.0%} of the first temperature") for number, plan in asked[:left]]

    def _draw(self, chain: _Chain, scores: dict[Widths, float], share: float, temperature: float) -> None:
        """Draws neighbours, walking over those that are known, until one is new."""
        groups = self.space.searchable
        chain.asked = None
        for _ in range(_DRAWS_PER_MOVE if len(groups) > 1 else 0):
            grow, shrink = chain.generator.sample(groups, 2)
            size = chain.generator.uniform(0, self.params.largest_move * share**_MOVE_POWER)
            chain.asked = exchange(self.space, chain.at, grow, shrink, size)
            if chain.asked is not None and chain.asked not in self.outcomes:
                return
            chain.move(scores, temperature)
        chain.asked = None
