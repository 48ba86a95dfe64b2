"""``workers.log.JobLog`` on the tables: what a job's process writes while it runs.

Every write first locks the job's row and checks that the process is the newest attempt and the job still wants it, so a
process that was given up for dead and comes back can change nothing. A write that meets a database that is away is made again
when it is back, for up to an hour; writes are numbered in the attempt's row, so that one whose commit went through though
its answer was lost is not made twice.

Each of the three writes of a trial takes 2 to 3 ms, for which a worker would wait. So while trials run they are put off until
nothing else is to be done (``together``), and those of a few trials are then one transaction.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, TypeAlias, TypeVar

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session, defer

from pruners.cost import NANOSECONDS
from pruners.errors import SecateurError
from searchers.base import Asked, Given, Outcome, Proposal, Record, Told, Training
from searchers.space import Widths
from service.database import Database, DatabaseAway, now
from service.database.tables import Attempt, Checkpoint, Job, Trial
from service.jobs.card import make_card
from service.jobs.formats import Format
from service.jobs.known import known_outcomes
from service.jobs.states import LIVE, UNWANTED, WRITABLE, State, announce, locked, move
from service.problems import StorageFull
from service.store import Store, StoreAway
from workers.card import Card
from workers.log import Finished, JobLog, Measurement, Plan, Worker

OUTAGE_SECONDS = 3600.0  # that a process waits for its database; what it has found so far is on record anyway
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 2.0  # seconds between two tries; a database that is back is noticed within the latter
_HELD_SECONDS = 0.25  # that a write is put off at most where trials never cease to begin and end; nobody sees the difference

Result = TypeVar("Result")

Change: TypeAlias = Callable[[Session, Job, Attempt], None]
"""What a write does to the rows, in its transaction."""

log = structlog.get_logger()


class _Held(NamedTuple):
    """A write that is put off, since when, and whether a job that pauses takes it."""

    change: Change
    since: float
    also_pausing: bool


class NotWanted(SecateurError):
    """This process may not write for its job any more: another attempt took over, or the job ended."""


class DatabaseLog(JobLog):
    """The log of one attempt at a job; ``claim`` comes first.

    Raises:
        NotWanted: from every writing call, once this attempt is not the job's newest or the job is no more to run.
        DatabaseAway: from every call, once the database was away for an hour.
    """

    def __init__(self, database: Database, store: Store, job_id: str, attempt: int) -> None:
        self._database = database
        self._store = store
        self._job_id = job_id
        self._attempt = attempt
        self._process = ""
        self._writes = 0
        self._held: list[_Held] | None = None  # while writes are put off
        self._held_before = 0  # how many were, at the last tick
        self._ending = False  # the next write is the last one, and what the job then is no reason to end this process

    def claim(self, host: str, pid: int) -> None:
        """Makes this the attempt's one process: a cluster that died may have started another, which then writes nothing."""
        process = f"{host} {pid} {secrets.token_hex(4)}"

        def take() -> None:
            with self._database.write() as session:
                job, attempt = self._own(session)
                self._check_fence(job, attempt, process)
                attempt.process, attempt.seen_at = process, now(session)

        patiently(take)
        self._process = process

    def beat(self) -> None:
        """A sign of life, by which the attempt keeps its lease."""
        with self._database.write() as session:
            job, attempt = self._own(session)
            if self._ending:
                return
            self._check_fence(job, attempt, self._process)
            attempt.seen_at = now(session)

    def check_wanted(self) -> None:
        """Raises ``NotWanted`` once this process is to end."""
        with self._database.read() as session:
            job = session.get_one(Job, self._job_id)
            if self._ending:
                return
            if job.attempt != self._attempt or job.state in UNWANTED or job.state not in WRITABLE:
                raise NotWanted(f"Job {job.id} is {job.state}, in attempt {job.attempt}.")

    def record(self) -> Sequence[Record]:
        def read() -> Sequence[Trial]:
            with self._database.read() as session:
                # A plan is the longest part of a row, for people alone.
                return session.scalars(select(Trial).where(Trial.job_id == self._job_id).options(defer(Trial.plan))).all()

        trials = patiently(read)
        entries: list[tuple[int, Record]] = []
        for trial in trials:
            proposal = _proposal(trial)
            outcome = Outcome(trial.score, trial.metric, trial.error, trial.metric_drop)
            if trial.given:
                entries.append((trial.asked_sequence, Given(proposal, outcome)))
                continue
            entries.append((trial.asked_sequence, Asked(proposal)))
            if trial.told_sequence is not None:
                entries.append((trial.told_sequence, Told(trial.number, outcome)))
        return [entry for _, entry in sorted(entries, key=lambda numbered: numbered[0])]

    def known(self) -> Mapping[Widths, Outcome]:
        def read() -> Mapping[Widths, Outcome]:
            with self._database.read() as session:
                return known_outcomes(session, session.get_one(Job, self._job_id))

        return patiently(read)

    def seconds_before(self) -> float:
        def read() -> float:
            with self._database.read() as session:
                mine = select(Attempt).where(Attempt.job_id == self._job_id, Attempt.number < self._attempt)
                return sum(
                    (attempt.seen_at - attempt.searching_at).total_seconds()
                    for attempt in session.scalars(mine)
                    if attempt.searching_at is not None
                )

        return patiently(read)

    def losses_before(self) -> dict[int, int]:
        def read() -> dict[int, int]:
            with self._database.read() as session:
                found = session.execute(select(Trial.number, Trial.losses).where(Trial.job_id == self._job_id))
                return {number: len(losses) for number, losses in found if losses}

        return patiently(read)

    def times(self) -> Sequence[float] | None:
        def read() -> Sequence[float] | None:
            with self._database.read() as session:
                return session.scalars(select(Job.times).where(Job.id == self._job_id)).one()

        return patiently(read)

    def timed(self, times: Sequence[float], limit: int, given: Mapping[int, int]) -> None:
        def change(session: Session, job: Job, attempt: Attempt) -> None:
            job.times, job.budget_limit = list(times), limit
            for number, latency in given.items():
                session.get_one(Trial, (job.id, number)).latency_ns = latency
            announce(session, job, "progress", {"message": f"Timed: the budget is {limit / NANOSECONDS:.4g} ms for one input."})

        self._write(change)

    def jobs(self) -> int:
        def read() -> int:
            with self._database.read() as session:
                cluster = select(Attempt.cluster).where(Attempt.job_id == self._job_id, Attempt.number == self._attempt)
                alive = select(func.count()).select_from(Job).join(Attempt, Attempt.job_id == Job.id)
                newest = alive.where(Attempt.number == Job.attempt, Job.state.in_(LIVE))
                return session.scalars(newest.where(Attempt.cluster == cluster.scalar_subquery())).one()

        return max(1, patiently(read))

    def running(self, planned_trials: int) -> None:
        def change(session: Session, job: Job, attempt: Attempt) -> None:
            move(session, job, State.RUNNING)
            job.planned_trials = planned_trials
            attempt.searching_at = now(session)
            if job.stop_asked:
                move(session, job, State.STOPPING, "Stopped on request; the best network so far is kept.")

        self._write(change)

    def stopping(self) -> bool:
        def read() -> bool:
            with self._database.read() as session:
                return session.scalars(select(Job.stop_asked).where(Job.id == self._job_id)).one()

        return patiently(read)

    @contextmanager
    def together(self) -> Iterator[None]:
        self._held, self._held_before = [], 0
        try:
            yield
            self.settle()
        finally:
            self._held = None

    def tick(self) -> None:
        if not self._held:
            return
        if len(self._held) == self._held_before or time.monotonic() - self._held[0].since > _HELD_SECONDS:
            self.settle()
        self._held_before = len(self._held)

    def settle(self) -> None:
        if not self._held:
            return
        held, self._held[:] = list(self._held), []
        states = list[str]()

        def change(session: Session, job: Job, attempt: Attempt) -> None:
            states.append(job.state)
            for each in held:
                each.change(session, job, attempt)

        self._commit(change, also_pausing=True)  # all of it happened before anybody here knew
        if State.PAUSING in states and not all(each.also_pausing for each in held):
            raise self._pausing()

    def asked(self, proposal: Proposal, plan: Plan) -> None:
        def change(session: Session, job: Job, attempt: Attempt) -> None:
            job.sequence += 1
            session.add(
                Trial(
                    job_id=job.id,
                    number=proposal.id,
                    state="pending",
                    note=proposal.note,
                    widths=list(proposal.widths),
                    parent=proposal.parent,
                    training=proposal.training and {**asdict(proposal.training), "params": dict(proposal.training.params)},
                    plan={"widths": plan.widths, "sparsity": plan.sparsity},
                    macs=plan.macs,
                    params=plan.params,
                    size_bytes=plan.size_bytes,
                    latency_ns=plan.latency_ns,
                    asked_sequence=job.sequence,
                )
            )
            announce(session, job, "trial", {"number": proposal.id, "state": "pending", "note": proposal.note})

        self._write_soon(change)

    def started(self, proposal_id: int) -> None:
        moment = time.monotonic()

        def change(session: Session, job: Job, attempt: Attempt) -> None:
            trial = _untold(session, job, proposal_id)
            trial.state = "running"
            trial.attempts += 1
            trial.started_at = _then(session, moment)
            announce(session, job, "trial", {"number": proposal_id, "state": "running"})

        self._write_soon(change)
        log.info("trial_started", trial=proposal_id)

    def lost(self, proposal_id: int, reason: str) -> None:
        moment = time.monotonic()

        def change(session: Session, job: Job, attempt: Attempt) -> None:
            trial = _untold(session, job, proposal_id)
            trial.state = "pending"
            loss = {"at": _then(session, moment).isoformat(), "attempt": attempt.number, "reason": reason}
            trial.losses = [*trial.losses, loss]
            announce(session, job, "trial", {"number": proposal_id, "state": "pending", "reason": reason})

        self._write_soon(change, also_pausing=True)
        log.warning("trial_lost", trial=proposal_id, reason=reason)

    def told(self, proposal_id: int, outcome: Outcome, evaluate_seconds: float | None, worker: Worker | None) -> None:
        for figure in (outcome.score, outcome.metric, outcome.drop):
            if figure is not None and not math.isfinite(figure):
                raise ValueError(f"trial {proposal_id} has the figure {figure}, which no database keeps and no JSON shows")
        moment = time.monotonic()

        def change(session: Session, job: Job, attempt: Attempt) -> None:
            trial = _untold(session, job, proposal_id)
            job.sequence += 1
            job.losses = 0
            trial.told_sequence = job.sequence
            trial.state = "failed" if outcome.score is None else "succeeded"
            trial.score, trial.metric, trial.error = outcome.score, outcome.metric, outcome.error
            trial.metric_drop = outcome.drop
            trial.finished_at = _then(session, moment)
            trial.evaluate_seconds = evaluate_seconds
            if worker is not None:
                trial.node, trial.pid = worker.node, worker.pid
            announce(session, job, "trial", {"number": proposal_id, "state": trial.state, **asdict(outcome)})

        self._write_soon(change, also_pausing=True)  # nothing that is finished is lost
        log.info("trial_told", trial=proposal_id, score=outcome.score, error=outcome.error, seconds=evaluate_seconds)

    def finishing(self) -> None:
        def change(session: Session, job: Job, attempt: Attempt) -> None:
            move(session, job, State.FINISHING, job.reason if job.stop_asked else None)
            # What was planned was the most there could be; from now on progress means the trials there were.
            trials = select(func.count()).select_from(Trial).where(Trial.job_id == job.id)
            job.planned_trials = session.scalars(trials).one()

        self._write(change)

    def progress(self, message: str, **figures: float) -> None:
        self._write_soon(lambda session, job, _: announce(session, job, "progress", {"message": message, **figures}))

    def succeeded(self, baseline: Measurement, networks: Sequence[Finished]) -> None:
        rows = [row for network in networks if network.artefacts for row in self._stored(baseline, network)]
        figures = [{"trial": network.trial, **asdict(network.measured)} for network in networks]

        def change(session: Session, job: Job, attempt: Attempt) -> None:
            session.add_all([Checkpoint(job_id=job.id, **row) for row in rows])
            job.baseline = {"trial": None, **asdict(baseline)}
            job.best, job.kept = figures[0], figures
            move(session, job, State.SUCCEEDED, job.reason if job.stop_asked else None)

        self._ending = True
        self._write(change, also_pausing=True)  # there is nothing left to pause

    def _stored(self, baseline: Measurement, network: Finished) -> list[dict[str, Any]]:
        """A network's files and its card, in the store, as rows of checkpoints."""
        put = self._store.put_file
        files = [(artefact, patiently(partial(put, artefact.path), (StoreAway,))) for artefact in network.artefacts]

        def read() -> Card:
            with self._database.read() as session:
                return make_card(session, session.get_one(Job, self._job_id), baseline, network, files)

        text = patiently(read).model_dump_json(indent=1).encode()
        card = patiently(lambda: self._store.put([text]), (StoreAway,))
        found = [(artefact.format, blob, artefact.metric) for artefact, blob in files]
        return [
            {"trial": network.trial, "format": form, "sha256": blob.sha256, "size": blob.size, "metric": metric}
            for form, blob, metric in [*found, (Format.CARD.value, card, None)]
        ]

    def failed(self, reason: str) -> None:
        """The job cannot end well; ``reason`` is one sentence for its owner."""
        self._ending = True
        fail = partial(self._once, self._numbered(), lambda session, job, _: move(session, job, State.FAILED, reason), False)
        patiently(fail, (DatabaseAway, StorageFull))  # a full disk that is the reason must not keep it from being told

    def _write_soon(self, change: Change, also_pausing: bool = False) -> None:
        if self._held is None:
            self._commit(change, also_pausing)
        else:
            self._held.append(_Held(change, time.monotonic(), also_pausing))

    def _write(self, change: Change, also_pausing: bool = False) -> None:
        self.settle()
        self._commit(change, also_pausing)

    def _commit(self, change: Change, also_pausing: bool) -> None:
        patiently(partial(self._once, self._numbered(), change, also_pausing))

    def _numbered(self) -> int:
        self._writes += 1
        return self._writes

    def _once(self, number: int, change: Change, also_pausing: bool) -> None:
        """Makes a change, unless it was made before, in a transaction that also says that this process lives."""
        with self._database.write() as session:
            job, attempt = self._own(session)
            if attempt.process == self._process and attempt.writes >= number:
                return  # it was committed, and the connection lost before we heard of it
            self._check_fence(job, attempt, self._process)
            if job.state == State.PAUSING and not also_pausing:
                raise self._pausing()
            change(session, job, attempt)
            attempt.writes = number
            attempt.seen_at = now(session)

    def _pausing(self) -> NotWanted:
        return NotWanted(f"Job {self._job_id} is {State.PAUSING}; it goes on in another attempt.")

    def _own(self, session: Session) -> tuple[Job, Attempt]:
        job = locked(session, self._job_id)
        attempt = session.get(Attempt, (self._job_id, self._attempt))
        if attempt is None:
            raise NotWanted(f"Attempt {self._attempt} at job {job.id} is none that was begun.")
        return job, attempt

    def _check_fence(self, job: Job, attempt: Attempt, process: str) -> None:
        if job.attempt != self._attempt:
            raise NotWanted(f"Attempt {self._attempt} at job {job.id} was replaced by attempt {job.attempt}.")
        if job.state not in WRITABLE:
            raise NotWanted(f"Job {job.id} is {job.state}; nothing more is written for it.")
        if attempt.process not in (None, process):
            raise NotWanted(f"Attempt {self._attempt} at job {job.id} belongs to another process, {attempt.process}.")


def patiently(
    work: Callable[[], Result],
    awaited: tuple[type[SecateurError], ...] = (DatabaseAway,),
    seconds: float | None = None,
) -> Result:
    """Does the work as soon as the database answers, or what else is ``awaited``; for an hour unless told otherwise."""
    began, wait = time.monotonic(), _FIRST_WAIT
    while True:
        try:
            return work()
        except awaited as error:
            if time.monotonic() - began > (OUTAGE_SECONDS if seconds is None else seconds):
                raise
            cause = getattr(error.__cause__, "orig", error.__cause__)  # for the operator: a wrong password, say
            log.warning("waiting", reason=str(error), cause=str(cause).strip(), seconds=round(time.monotonic() - began, 1))
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)


def _then(session: Session, moment: float) -> datetime:
    """What the database's clock showed at a moment of this process's ``time.monotonic``."""
    return now(session) - timedelta(seconds=time.monotonic() - moment)


def _proposal(trial: Trial) -> Proposal:
    training = trial.training and Training(**{**trial.training, "params": tuple(trial.training["params"].items())})
    return Proposal(trial.number, tuple(trial.widths), trial.note, trial.parent, training or None)


def _untold(session: Session, job: Job, number: int) -> Trial:
    trial = session.get(Trial, (job.id, number))
    if trial is None or trial.told_sequence is not None:
        raise ValueError(f"trial {number} of job {job.id} was {'told already' if trial else 'never asked'}")
    return trial
