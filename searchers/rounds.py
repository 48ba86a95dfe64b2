"""Searches that go in rounds: all of a round's proposals run in parallel, then the next round is planned from them."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from searchers.base import Done, Given, Outcome, Params, Proposal, Rival, Searcher, Training, Wait
from searchers.space import SearchSpace, Widths


@dataclass(frozen=True)
class Candidate:
    """What a round would like to know the score of; the fields are those of ``Proposal``.

    ``note`` and ``rival`` make no difference.
    """

    widths: Widths
    note: str = field(compare=False)
    parent: int | None = None
    training: Training | None = None
    rival: Rival | None = field(default=None, compare=False)


class RoundSearcher(Searcher):
    """Base of searches in rounds: a subclass says what the next round is, this class asks and tells.

    A candidate is proposed once in a search: where a round repeats one, or an earlier search gave it, the known outcome stands.
    A round is cut off where ``max_trials`` ends.

    Attributes:
        outcomes: what came of all widths tried so far, given ones among them, last if in several ways; complete whenever
            ``next_round`` is called.
        numbers: of every candidate asked for or given, the proposal's, by which it can become a parent.
    """

    def __init__(self, space: SearchSpace, params: Params, seed: int, max_trials: int) -> None:
        super().__init__(space, params, seed, max_trials)
        self.outcomes: dict[Widths, Outcome] = {}
        self.numbers: dict[Candidate, int] = {}
        self._queue: deque[Candidate] = deque()
        self._told: dict[int, Outcome] = {}
        self._pending: dict[int, Widths] = {}
        self._over = False

    @abstractmethod
    def next_round(self) -> Sequence[Candidate]:
        """The candidates of the next round, in the order of asking; none ends the search."""

    @property
    def asked(self) -> int:
        """Proposals made so far."""
        return len(self.numbers) - len(self.given)

    def outcome(self, candidate: Candidate) -> Outcome:
        """What came of one that was tried."""
        return self._told[self.numbers[candidate]]

    def give(self, trial: Given) -> None:
        if self.asked:
            raise ValueError("a trial was given after the first ask")
        super().give(trial)
        self.numbers[Candidate(trial.proposal.widths, trial.proposal.note)] = trial.proposal.id
        self.outcomes[trial.proposal.widths] = self._told[trial.proposal.id] = trial.outcome

    def ask(self) -> Proposal | Wait | Done:
        while not (self._queue or self._pending or self._over):
            self._begin_round()
        if self._queue:
            candidate = self._queue.popleft()
            number = self.numbers[candidate] = len(self.numbers)
            self._pending[number] = candidate.widths
            return Proposal(number, candidate.widths, candidate.note, candidate.parent, candidate.training, candidate.rival)
        return Wait() if self._pending else Done()

    def tell(self, proposal_id: int, outcome: Outcome) -> None:
        if proposal_id not in self._pending:
            raise ValueError(f"proposal {proposal_id} was told already or never asked for")
        self.outcomes[self._pending.pop(proposal_id)] = self._told[proposal_id] = outcome

    def _begin_round(self) -> None:
        left = self.max_trials - self.asked
        candidates = self.next_round() if left else []
        self._over = not candidates
        new = [candidate for candidate in dict.fromkeys(candidates) if candidate not in self.numbers]
        self._queue.extend(new[:left])
