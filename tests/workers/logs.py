"""A job log that keeps everything in lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from searchers.base import Asked, Outcome, Proposal, Record, Told
from searchers.space import Widths
from workers.log import Finished, Measurement, Plan, Worker


@dataclass
class ListLog:
    """Implements ``workers.log.JobLog``."""

    entries: list[Record] = field(default_factory=list)
    phases: list[str] = field(default_factory=list)
    plans: dict[int, Plan] = field(default_factory=dict)
    began: list[int] = field(default_factory=list)
    workers: list[Worker | None] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    found: dict[Widths, Outcome] = field(default_factory=dict)
    planned: int = 0
    earlier_seconds: float = 0.0
    losses: list[tuple[int, str]] = field(default_factory=list)
    stop: bool = False
    at_once: int = 1
    measured: Sequence[float] | None = None
    limit: int | None = None
    trial: int | None = None
    baseline: Measurement | None = None
    best: Measurement | None = None
    networks: Sequence[Finished] = ()
    artefacts: dict[str, bytes] = field(default_factory=dict)

    def record(self) -> Sequence[Record]:
        return list(self.entries)

    def known(self) -> Mapping[Widths, Outcome]:
        return self.found

    def seconds_before(self) -> float:
        return self.earlier_seconds

    def losses_before(self) -> Mapping[int, int]:
        return Counter(number for number, _ in self.losses)

    def stopping(self) -> bool:
        return self.stop

    def times(self) -> Sequence[float] | None:
        return self.measured

    def timed(self, times: Sequence[float], limit: int, given: Mapping[int, int]) -> None:
        self.measured, self.limit = times, limit

    def jobs(self) -> int:
        return self.at_once

    def running(self, planned_trials: int) -> None:
        self.phases.append("running")
        self.planned = planned_trials

    def together(self) -> AbstractContextManager[None]:
        return nullcontext()

    def tick(self) -> None:
        pass

    def settle(self) -> None:
        pass

    def asked(self, proposal: Proposal, plan: Plan) -> None:
        self.entries.append(Asked(proposal))
        self.plans[proposal.id] = plan

    def started(self, proposal_id: int) -> None:
        self.began.append(proposal_id)

    def lost(self, proposal_id: int, reason: str) -> None:
        self.losses.append((proposal_id, reason))

    def told(self, proposal_id: int, outcome: Outcome, evaluate_seconds: float | None, worker: Worker | None) -> None:
        self.entries.append(Told(proposal_id, outcome))
        self.workers.append(worker)

    def finishing(self) -> None:
        self.phases.append("finishing")

    def progress(self, message: str, **figures: float) -> None:
        self.messages.append(message)

    def succeeded(self, baseline: Measurement, networks: Sequence[Finished]) -> None:
        self.phases.append("succeeded")
        self.networks, best = networks, networks[0]
        self.trial, self.baseline, self.best = best.trial, baseline, best.measured
        self.artefacts = {artefact.format: artefact.path.read_bytes() for artefact in best.artefacts}
