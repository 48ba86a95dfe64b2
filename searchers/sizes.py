"""Several sizes from one search: a search under one budget after the other, each given what those before it found."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from searchers.base import Done, Given, Outcome, Proposal, Searcher, Training, Wait, ranked
from searchers.space import Budget, SearchSpace, Widths


@dataclass
class _Size:
    """The search for one size while it lasts.

    Attributes:
        space: under its budget.
        search: numbers its proposals by itself.
        ours: by its numbers, those of the whole search.
        left: proposals that it may still make.
        searched: whether it is over.
        answer: the proposal that it found best, once it is over; ``None`` if there is none.
    """

    space: SearchSpace
    search: Searcher
    left: int
    ours: list[int] = field(default_factory=list)
    searched: bool = False
    answer: int | None = None


class Sizes(Searcher):
    """Base of searches for several sizes: a subclass says which size is next.

    Trials of bare cuts say the same under any budget. So the search for a size starts from all that were tried before it, as a
    job with a warm start does, and what it learnt from them (``sensitivity``'s curves, for one) serves all sizes.

    Args:
        make: the search under one budget.
        space: under the loosest of all budgets.
        most: sizes that there will be at most.
        retrain: epochs for which the best plan of each size is trained, as a trial, before it is the answer; 0: none.

    Attributes:
        settled: by size, as a limit of the budget's metric, the number of its answer; ``None`` where every trial failed.

    Raises:
        InvalidInput: as ``make`` does.
    """

    def __init__(self, make: Callable[[SearchSpace], Searcher], space: SearchSpace, most: int, retrain: int = 0) -> None:
        sample = make(space)
        trials = sample.max_trials + bool(retrain)
        super().__init__(space, sample.params, sample.seed, most * trials)
        self.names_parents, self.names_rivals = sample.names_parents, sample.names_rivals
        self.settled: dict[int, int | None] = {}
        self.proposals: dict[int, Proposal] = {}
        self.outcomes: dict[int, Outcome] = {}
        self._make = make
        self._each = sample.planned_trials
        self._most = most
        self._training = Training(None, retrain=retrain) if retrain else None
        self._size: _Size | None = None

    @property
    def planned_trials(self) -> int:
        return self._most * (self._each + (self._training is not None))

    @abstractmethod
    def next_size(self) -> int | None:
        """The limit of the next budget, called when all sizes so far are settled; ``None`` ends the search."""

    def give(self, trial: Given) -> None:
        if len(self.proposals) > len(self.given):
            raise ValueError("a trial was given after the first ask")
        super().give(trial)
        self.proposals[trial.proposal.id], self.outcomes[trial.proposal.id] = trial.proposal, trial.outcome

    def ask(self) -> Proposal | Wait | Done:
        while True:
            if self._size is None:
                limit = self.next_size()
                if limit is None:
                    return Done()
                self._size = self._begun(limit)
            answer = self._asked(self._size)
            if answer is not None:
                return answer
            self.settled[self._size.space.budget.limit] = self._size.answer
            self._size = None

    def tell(self, proposal_id: int, outcome: Outcome) -> None:
        if proposal_id not in self.proposals or proposal_id in self.outcomes or self._size is None:
            raise ValueError(f"proposal {proposal_id} was told already or never asked for")
        self.outcomes[proposal_id] = outcome
        if proposal_id in self._size.ours:
            self._size.search.tell(self._size.ours.index(proposal_id), outcome)

    def _begun(self, limit: int) -> _Size:
        """The search for a size, given the first outcome of every bare cut so far."""
        space = self.space.under(Budget(self.space.budget.metric, limit))
        size = _Size(space, self._make(space), self._each)
        cuts: dict[Widths, int] = {}
        for number, outcome in sorted(self.outcomes.items()):
            proposal = self.proposals[number]
            if proposal.bare and outcome.score is not None and outcome.metric is not None:
                cuts.setdefault(proposal.widths, number)
        for widths, number in cuts.items():
            note = self.proposals[number].note
            size.search.give(Given(Proposal(len(size.ours), widths, note), self.outcomes[number]))
            size.ours.append(number)
        return size

    def _asked(self, size: _Size) -> Proposal | Wait | None:
        """What a size still asks for; ``None`` once it is settled."""
        if not size.searched:
            answer = size.search.ask() if size.left else Done()
            if isinstance(answer, Proposal):
                size.left -= 1
                return self._handed_out(size, answer)
            if isinstance(answer, Wait) or len(self.outcomes) < len(self.proposals):
                return Wait()
            size.searched = True
            found = next(iter(ranked(self.proposals, self.candidates(), size.space.fits)), None)
            if found is not None and self._training is not None:
                note = self._note(size.space, f"trial {found.id}, trained")
                found = Proposal(len(self.proposals), found.widths, note, training=self._training)
                self.proposals[found.id] = found
                size.answer = found.id
                return found
            size.answer = None if found is None else found.id
        return Wait() if len(self.outcomes) < len(self.proposals) else None

    def _handed_out(self, size: _Size, answer: Proposal) -> Proposal:
        """A proposal of the search for a size under the numbers of the whole search."""
        parent = None if answer.parent is None else size.ours[answer.parent]
        rival = None if answer.rival is None else replace(answer.rival, number=size.ours[answer.rival.number])
        note = self._note(size.space, answer.note)
        proposal = replace(answer, id=len(self.proposals), note=note, parent=parent, rival=rival)
        self.proposals[proposal.id] = proposal
        size.ours.append(proposal.id)
        return proposal

    def answers(self) -> list[int]:
        """The numbers of all answers that are told, that of a size which is to be settled next among them."""
        found = [*self.settled.values(), None if self._size is None else self._size.answer]
        return [number for number in found if number is not None and number in self.outcomes]

    def candidates(self) -> dict[int, Outcome]:
        """Outcomes of which the best is a size's; where that is trained apart, those of plans that are not."""
        if self._training is None:
            return self.outcomes
        return {number: outcome for number, outcome in self.outcomes.items() if self.proposals[number].training is None}

    def _note(self, space: SearchSpace, note: str) -> str:
        return f"{100 * space.budget.limit / self.space.cost(self.space.dense):.3g} %: {note}"


class EveryBudget(Sizes):
    """A search under each of several budgets, from the loosest to the tightest.

    Args:
        make: the search under one budget.
        space: under the loosest of them.
        limits: of the budgets, in any order.
    """

    def __init__(self, make: Callable[[SearchSpace], Searcher], space: SearchSpace, limits: Sequence[int]) -> None:
        self._limits = sorted(set(limits), reverse=True)
        super().__init__(make, space, len(self._limits))

    def next_size(self) -> int | None:
        return next((limit for limit in self._limits if limit not in self.settled), None)
