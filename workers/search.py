"""A search whose every ask and tell is on record: resumed where the last attempt ended, stopped where the limits say."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from searchers.base import Asked, Done, Given, Outcome, Proposal, Searcher, Told, Wait, front, ranked, replay
from searchers.space import Widths
from workers.log import JobLog, Plan, Worker
from workers.spec import Limits

LOST_WORKER_RETRIES = 3  # a trial whose worker dies runs again this often before it counts as failed


class RecordedSearch:
    """Stands between a searcher and Ray Tune.

    Args:
        searcher: fresh; it is brought to where ``log.record()`` ends, and proposals without an outcome come first again.
        log: told of every ask before it is handed out and of every outcome before the searcher hears of it.
        describe: a proposal in the user's terms.
        limits: the search ends when a limit is reached, earlier attempts included; what runs then is still heard.
        known: outcomes of bare cuts by their widths; such a proposal is told at once and not handed out.

    Attributes:
        proposals: by number, those of earlier attempts and those given by an earlier search included.
        outcomes: what came of each of them.
    """

    def __init__(
        self,
        searcher: Searcher,
        log: JobLog,
        describe: Callable[[Proposal], Plan],
        limits: Limits,
        known: Mapping[Widths, Outcome] = MappingProxyType({}),
    ) -> None:
        self._searcher = searcher
        self._log = log
        self._describe = describe
        self._known = known
        self._max_trials = limits.max_trials
        self._deadline = None if limits.max_seconds is None else time.monotonic() + limits.max_seconds - log.seconds_before()
        record = log.record()
        self.proposals = replay(searcher, record)
        self.outcomes = {
            entry.proposal_id if isinstance(entry, Told) else entry.proposal.id: entry.outcome
            for entry in record
            if not isinstance(entry, Asked)
        }
        self._losses = Counter(log.losses_before())
        self._max_failed = limits.max_failed_trials
        self._given = sum(isinstance(entry, Given) for entry in record)
        self._lost = [proposal for number, proposal in self.proposals.items() if number not in self.outcomes]

    def ask(self) -> Proposal | Wait | Done:
        """The next trial whose outcome is not known."""
        while isinstance(answer := self._next(), Proposal) and answer.bare and answer.widths in self._known:
            if answer.rival is not None:  # whose outcome may be another one, an estimate
                break
            self._hear(answer.id, self._known[answer.widths], 0.0, None)
        return answer

    def _next(self) -> Proposal | Wait | Done:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return Done()
        if self.hopeless or self._log.stopping():
            return Done()
        if self._lost:
            return self._lost.pop(0)
        full = len(self.proposals) - self._given >= self._max_trials
        answer = Done() if full else self._searcher.ask()
        if isinstance(answer, Done) and len(self.outcomes) < len(self.proposals):
            return Wait()  # a trial that runs may have to run again
        if isinstance(answer, Proposal):
            self._log.asked(answer, self._describe(answer))
            self.proposals[answer.id] = answer
        return answer

    def tell(self, proposal_id: int, result: Mapping[str, Any] | None) -> None:
        """Takes a trial's result; ``None`` means that its worker was lost, whereupon it comes again, up to three times."""
        if result is None:
            self._losses[proposal_id] += 1
            if self._losses[proposal_id] <= LOST_WORKER_RETRIES:
                self._log.lost(proposal_id, "Its worker was lost.")
                self._lost.append(self.proposals[proposal_id])
                return
            lost = f"Its worker was lost {self._losses[proposal_id]} times; see the job's log."
            outcome, seconds, worker = Outcome(None, error=lost), None, None
        else:
            outcome = Outcome(result["score"], result["metric"], result["error"], result.get("drop"))
            seconds, worker = result["evaluate_seconds"], Worker(result["node"], result["process"])
        self._hear(proposal_id, outcome, seconds, worker)

    def _hear(self, proposal_id: int, outcome: Outcome, seconds: float | None, worker: Worker | None) -> None:
        self._log.told(proposal_id, outcome, seconds, worker)
        self.outcomes[proposal_id] = outcome
        self._searcher.tell(proposal_id, outcome)

    @property
    def hopeless(self) -> bool:
        """Whether ``max_failed_trials`` is reached, so that the job is to fail."""
        return self._max_failed is not None and len(self.failures) >= self._max_failed

    @property
    def failures(self) -> list[str]:
        """What the failed trials said."""
        return [outcome.error or "no score" for outcome in self.outcomes.values() if outcome.score is None]

    def wanted(self) -> set[int]:
        """The trials whose networks the search may come back to: answers of a ladder, and those that may be a parent."""
        wanted = set(self._searcher.ladder)
        if self._searcher.names_parents:
            named = max((p.parent for p in self.proposals.values() if p.parent is not None), default=0)
            running = (p.parent or 0 for number, p in self.proposals.items() if number not in self.outcomes)
            oldest = min([named, *running])
            wanted |= {number for number in self.proposals if number >= oldest}
        return wanted

    @property
    def ladder(self) -> list[Proposal]:
        """See ``Searcher.ladder``."""
        return [self.proposals[number] for number in self._searcher.ladder]

    @property
    def planned_trials(self) -> int:
        """The most trials that there will be, given ones included."""
        return self._given + min(self._searcher.planned_trials, self._max_trials)

    def ranked(self, fits: Callable[[Widths], bool]) -> list[Proposal]:
        """The proposals whose widths fit the budget, the highest score first; the earlier of equals."""
        return ranked(self.proposals, self.outcomes, fits)

    def front(self, cost: Callable[[Widths], int]) -> list[Proposal]:
        """The proposals that no other one beats in both score and cost, the cheapest first."""
        return front(self.proposals, self.outcomes, cost)
