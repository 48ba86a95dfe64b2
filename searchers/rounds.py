"""Searches that go in rounds: all of a round's proposals run in parallel, then the next round is planned from them."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from searchers.base import Done, Given, Outcome, Params, Proposal, Searcher, Wait
from searchers.space import SearchSpace, Widths


@dataclass(frozen=True)
class Candidate:
    """Widths that a round would like to know the score of, and why (``Proposal.note``)."""

    widths: Widths
    note: str


class RoundSearcher(Searcher):
    """Base of searches in rounds: a subclass says what the next round is, this class asks and tells.

    Widths are proposed once in a search: where a round repeats some, or was given some by an earlier search, the known outcome
    stands. A round is cut off where ``max_trials`` ends.

    Attributes:
        outcomes: what came of all widths tried so far, given ones among them; complete whenever ``next_round`` is called.
        asked: proposals made so far.
    """

    def __init__(self, space: SearchSpace, params: Params, seed: int, max_trials: int) -> None:
        super().__init__(space, params, seed, max_trials)
        self.outcomes: dict[Widths, Outcome] = {}
        self._queue: deque[Candidate] = deque()
        self._pending: dict[int, Widths] = {}
        self.asked = 0
        self._over = False

    @abstractmethod
    def next_round(self) -> Sequence[Candidate]:
        """The candidates of the next round, in the order of asking; none ends the search."""

    def give(self, trial: Given) -> None:
        if self.asked:
            raise ValueError("a trial was given after the first ask")
        super().give(trial)
        self.outcomes[trial.proposal.widths] = trial.outcome

    def ask(self) -> Proposal | Wait | Done:
        while not (self._queue or self._pending or self._over):
            self._begin_round()
        if self._queue:
            candidate = self._queue.popleft()
            proposal = Proposal(len(self.given) + self.asked, candidate.widths, candidate.note)
            self._pending[proposal.id] = proposal.widths
            self.asked += 1
            return proposal
        return Wait() if self._pending else Done()

    def tell(self, proposal_id: int, outcome: Outcome) -> None:
        if proposal_id not in self._pending:
            raise ValueError(f"proposal {proposal_id} was told already or never asked for")
        self.outcomes[self._pending.pop(proposal_id)] = outcome

    def _begin_round(self) -> None:
        left = self.max_trials - self.asked
        candidates = self.next_round() if left else []
        self._over = not candidates
        first_of_each: dict[Widths, Candidate] = {}
        for candidate in candidates:
            first_of_each.setdefault(candidate.widths, candidate)
        new = [candidate for widths, candidate in first_of_each.items() if widths not in self.outcomes]
        self._queue.extend(new[:left])
