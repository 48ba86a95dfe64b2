"""Finals: behind any search its best plans once more, each trained for a while before it is judged.

What a bare cut scores foretells what it will be worth once it is trained, but not exactly, and least so among the best.
Successive halving (Jamieson and Talwalkar, AISTATS 2016, arXiv 1502.07943) spends training on few for that reason; here there
are two rungs, none and some.
"""

from __future__ import annotations

from collections import deque

from searchers.base import Done, Given, Outcome, Proposal, Searcher, Training, Wait, ranked


class Finals(Searcher):
    """A search, and then a final among the plans within the budget that scored highest in it.

    The finalists are tried in parallel, last in the search; they count among its trials.

    Args:
        search: fresh, and one whose trials are bare cuts.
        finalists: so many, 1 or more; fewer if the search has fewer plans.
        epochs: of training that each gets.
    """

    def __init__(self, search: Searcher, finalists: int, epochs: int) -> None:
        super().__init__(search.space, search.params, search.seed, search.max_trials + finalists)
        self.names_rivals = search.names_rivals
        self._search = search
        self._finalists = finalists
        self._training = Training(None, retrain=epochs)
        self._proposals: dict[int, Proposal] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._queue: deque[Proposal] | None = None  # the finalists that are not asked for yet, once there are any

    def expect_training(self) -> None:
        self._search.expect_training()

    @property
    def planned_trials(self) -> int:
        return self._search.planned_trials + self._finalists

    def give(self, trial: Given) -> None:
        self._search.give(trial)
        super().give(trial)
        self._proposals[trial.proposal.id], self._outcomes[trial.proposal.id] = trial.proposal, trial.outcome

    def ask(self) -> Proposal | Wait | Done:
        if self._queue is None:
            answer = self._search.ask()
            if isinstance(answer, Proposal):
                self._proposals[answer.id] = answer
            if not isinstance(answer, Done):
                return answer
            if len(self._outcomes) < len(self._proposals):
                return Wait()
            self._queue = deque(self._final())
        if not self._queue:
            return Done()
        finalist = self._queue.popleft()
        self._proposals[finalist.id] = finalist
        return finalist

    def tell(self, proposal_id: int, outcome: Outcome) -> None:
        if self._queue is None:
            self._search.tell(proposal_id, outcome)
        elif proposal_id not in self._proposals or proposal_id in self._outcomes:
            raise ValueError(f"proposal {proposal_id} was told already or never asked for")
        self._outcomes[proposal_id] = outcome

    def _final(self) -> list[Proposal]:
        """The finalists, the best first."""
        leaders = ranked(self._proposals, self._outcomes, self.space.fits)[: self._finalists]
        return [
            Proposal(number, leader.widths, f"final, from trial {leader.id}", training=self._training)
            for number, leader in enumerate(leaders, start=len(self._proposals))
        ]
