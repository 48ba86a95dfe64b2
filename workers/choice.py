"""Which networks of a search are kept: the best of each budget, and beside them those that none beats."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from searchers.base import Proposal
from searchers.space import SearchSpace, Widths
from workers.search import RecordedSearch
from workers.spec import JobSpec

_APART = 0.1  # of the dense cost: networks that are nearer to each other are no choice worth its room in the store


class Choice:
    """Made anew whenever it is asked, from the outcomes that are there.

    Args:
        spec: the job's.
        search: its trials.
        space: what it searches.
        fits: by budget, that of the loosest first, which widths keep it.
    """

    def __init__(
        self, spec: JobSpec, search: RecordedSearch, space: SearchSpace, fits: Sequence[Callable[[Widths], bool]]
    ) -> None:
        self._beside = spec.exports.pareto and not spec.minimises
        self._search = search
        self._space = space
        self._fits = fits

    def winners(self) -> list[Proposal]:
        """The best of each budget, that of the loosest first; tight ones may have none yet, or share one."""
        return list(dict.fromkeys(winner for fits in self._fits for winner in self._search.ranked(fits)[:1]))

    def others(self, winners: Sequence[Proposal]) -> list[Proposal]:
        """What is kept beside these: of those that none beats, the cheapest first, the ones far enough from all others."""
        others = list[Proposal]()
        if not self._beside:
            return others
        dense = self._space.cost(self._space.dense)
        kept = [dense, *(self._space.cost(winner.widths) for winner in winners)]
        for proposal in self._search.front(self._space.cost):
            cost = self._space.cost(proposal.widths)
            if all(abs(cost - other) >= _APART * dense for other in kept):
                kept.append(cost)
                others.append(proposal)
        return others

    def needed(self) -> set[int]:
        """The trials whose networks may still be asked for: what would be kept now, and what the search may come back to."""
        winners = self.winners()
        return {proposal.id for proposal in (*winners, *self.others(winners))} | self._search.wanted()
