"""Where a running job writes what happens: a protocol, so that workers know no database.

``service.jobs.log`` implements it on the tables. Each call is durable when it returns, but for those within ``together``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from searchers.base import Outcome, Proposal, Record
from searchers.space import Widths


@dataclass(frozen=True)
class Plan:
    """A proposal in the user's terms.

    Attributes:
        widths: output channels that each prunable layer keeps; of a job of sparsity, weights.
        sparsity: the share of them that each of these layers loses, 0…1.
        macs: of the network with these widths, for one input.
        params: likewise.
        size_bytes: of its weights and buffers.
        latency_ns: foretold for one input, in a job whose budget is milliseconds.
    """

    widths: dict[str, int]
    sparsity: dict[str, float]
    macs: int
    params: int
    size_bytes: int
    latency_ns: int | None = None


@dataclass(frozen=True)
class Worker:
    """Where a trial ran: the node's host name and the process id."""

    node: str
    pid: int


@dataclass(frozen=True)
class Measurement:
    """A finished network in figures.

    Attributes:
        metric: the task's, on the test split.
        macs: for one input.
        params: count.
        size_bytes: of its ``.pt2`` file, which is larger than its weights and buffers by what describes them.
        latency_ms: median of a forward pass for one input, on a worker if trials have a GPU or the budget is milliseconds,
            otherwise on the machine that ran the job.
        latency_spread_ms: the interquartile range: how far apart the middle half of the passes lay.
        budget_ratio: its cost in the budget's metric as a share of the dense network's.
        max_drop: of a job with a constraint, what its metric dropped by at most against the dense network, with the confidence
            of ``workers.constraint``.
    """

    metric: float
    macs: int
    params: int
    size_bytes: int
    latency_ms: float
    latency_spread_ms: float
    budget_ratio: float
    max_drop: float | None = None


@dataclass(frozen=True)
class Artefact:
    """One downloadable form of a network.

    Attributes:
        format: ``pt2``, ``safetensors``, ``recipe``, ``onnx`` or ``int8``.
        path: the file.
        metric: the task's, on the test split, of a form that does not compute quite the same; ``None``: the network's own.
    """

    format: str
    path: Path
    metric: float | None = None


@dataclass(frozen=True)
class Finished:
    """A network that is kept.

    Attributes:
        trial: the proposal's.
        measured: its figures.
        artefacts: its forms.
        tuned: epochs of training that followed its trial.
    """

    trial: int
    measured: Measurement
    artefacts: Sequence[Artefact]
    tuned: int = 0


class JobLog(Protocol):
    """What a job tells the world, in the order in which it happens."""

    def record(self) -> Sequence[Record]:
        """What the search was given and all asks and tells of earlier attempts, in order: what a searcher is rebuilt from."""

    def known(self) -> Mapping[Widths, Outcome]:
        """What came of bare cuts in other jobs, by their widths, where this job would find exactly the same."""

    def seconds_before(self) -> float:
        """For how long earlier attempts worked, the time between them and a pause not counted; 0 if this is the first."""

    def losses_before(self) -> Mapping[int, int]:
        """By proposal, how often a worker was lost with it; those that never were may be left out."""

    def times(self) -> Sequence[float] | None:
        """The milliseconds that an earlier attempt measured; ``None`` if none did."""

    def timed(self, times: Sequence[float], limit: int, given: Mapping[int, int]) -> None:
        """What a budget of milliseconds is searched on was measured.

        ``limit`` is that budget and ``given`` by proposal what those of an earlier job are foretold to take, in nanoseconds.
        """

    def jobs(self) -> int:
        """How many jobs are on the cluster now, this one included; asked once a second."""

    def running(self, planned_trials: int) -> None:
        """The search begins; it will take at most this many trials."""

    def stopping(self) -> bool:
        """Whether the search is asked to end with what it has found; asked before every trial."""

    def together(self) -> AbstractContextManager[None]:
        """Within it what trials do is written a moment later, so that no worker waits for it.

        What comes close together is one transaction, everything keeps its order, and ``tick`` says when. A process that dies
        loses the last moment of its record and nothing else: the next attempt finds what came before, and does the rest again.
        Any other call that writes has what waits written first; so does the end, unless an exception ends it.
        """

    def tick(self) -> None:
        """Called several times a second; writes what waits if nothing new happened since the last call, or for too long."""

    def settle(self) -> None:
        """Everything so far is durable when this returns."""

    def asked(self, proposal: Proposal, plan: Plan) -> None:
        """The searcher proposed a trial."""

    def started(self, proposal_id: int) -> None:
        """A worker took the trial up."""

    def lost(self, proposal_id: int, reason: str) -> None:
        """The worker that was at a trial is gone; the trial will be tried again."""

    def told(self, proposal_id: int, outcome: Outcome, evaluate_seconds: float | None, worker: Worker | None) -> None:
        """A trial ended, or was known before (0 seconds, no worker), and the searcher hears of it."""

    def finishing(self) -> None:
        """The search is over; the winner is being finished."""

    def progress(self, message: str, **figures: float) -> None:
        """Something a watching user would like to know (an epoch of the final training), its figures by name beside it."""

    def succeeded(self, baseline: Measurement, networks: Sequence[Finished]) -> None:
        """The job is done, and these are its networks, the best one first; the files are taken over before this returns."""
