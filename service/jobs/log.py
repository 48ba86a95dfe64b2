"""``workers.log.JobLog`` on the tables: what a job's process writes while it runs.

Every write first locks the job's row and checks that the process is the newest attempt and the job still wants it, so a
process that was given up for dead and comes back can change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pruners.errors import SecateurError
from searchers.base import Asked, Given, Outcome, Proposal, Record, Told, Training
from searchers.space import Widths
from service.database import Database
from service.database.tables import Checkpoint, Job, Trial, utc_now
from service.jobs.known import known_outcomes
from service.jobs.states import WRITABLE, State, announce, locked, move
from service.store import Store
from workers.log import Artefact, JobLog, Measurement, Plan, Worker


class NotWanted(SecateurError):
    """This process may not write for its job any more: another attempt took over, or the job ended."""


class DatabaseLog(JobLog):
    """The log of one attempt at a job.

    Raises:
        NotWanted: from every writing call, once this attempt is not the job's newest or the job is no more to run.
    """

    def __init__(self, database: Database, store: Store, job_id: str, attempt: int) -> None:
        self._database = database
        self._store = store
        self._job_id = job_id
        self._attempt = attempt

    def record(self) -> Sequence[Record]:
        with self._database.read() as session:
            trials = session.scalars(select(Trial).where(Trial.job_id == self._job_id)).all()
        entries: list[tuple[int, Record]] = []
        for trial in trials:
            proposal = _proposal(trial)
            outcome = Outcome(trial.score, trial.metric, trial.error)
            if trial.given:
                entries.append((trial.asked_sequence, Given(proposal, outcome)))
                continue
            entries.append((trial.asked_sequence, Asked(proposal)))
            if trial.told_sequence is not None:
                entries.append((trial.told_sequence, Told(trial.number, outcome)))
        return [entry for _, entry in sorted(entries, key=lambda numbered: numbered[0])]

    def known(self) -> Mapping[Widths, Outcome]:
        with self._database.read() as session:
            return known_outcomes(session, session.get_one(Job, self._job_id))

    def seconds_before(self) -> float:
        with self._database.read() as session:
            started_at = session.get_one(Job, self._job_id).started_at
        return 0.0 if started_at is None else max(0.0, (utc_now() - started_at).total_seconds())

    def running(self, planned_trials: int) -> None:
        with self._writing() as (session, job):
            move(session, job, State.RUNNING)
            job.planned_trials = planned_trials

    def asked(self, proposal: Proposal, plan: Plan) -> None:
        with self._writing() as (session, job):
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
                    asked_sequence=job.sequence,
                )
            )
            announce(session, job, "trial", {"number": proposal.id, "state": "pending", "note": proposal.note})

    def started(self, proposal_id: int) -> None:
        with self._writing() as (session, job):
            trial = _untold(session, job, proposal_id)
            trial.state = "running"
            trial.attempts += 1
            trial.started_at = utc_now()
            announce(session, job, "trial", {"number": proposal_id, "state": "running"})

    def told(self, proposal_id: int, outcome: Outcome, evaluate_seconds: float | None, worker: Worker | None) -> None:
        for figure in (outcome.score, outcome.metric):
            if figure is not None and not math.isfinite(figure):
                raise ValueError(f"trial {proposal_id} has the figure {figure}, which no database keeps and no JSON shows")
        with self._writing() as (session, job):
            trial = _untold(session, job, proposal_id)
            job.sequence += 1
            job.losses = 0
            trial.told_sequence = job.sequence
            trial.state = "failed" if outcome.score is None else "succeeded"
            trial.score, trial.metric, trial.error = outcome.score, outcome.metric, outcome.error
            trial.finished_at = utc_now()
            trial.evaluate_seconds = evaluate_seconds
            if worker is not None:
                trial.node, trial.pid = worker.node, worker.pid
            announce(session, job, "trial", {"number": proposal_id, "state": trial.state, **asdict(outcome)})

    def finishing(self) -> None:
        with self._writing() as (session, job):
            move(session, job, State.FINISHING)
            # What was planned was the most there could be; from now on progress means the trials there were.
            trials = select(func.count()).select_from(Trial).where(Trial.job_id == job.id)
            job.planned_trials = session.scalars(trials).one()

    def progress(self, message: str) -> None:
        with self._writing() as (session, job):
            announce(session, job, "progress", {"message": message})

    def succeeded(self, trial: int, baseline: Measurement, best: Measurement, artefacts: Sequence[Artefact]) -> None:
        blobs = [(artefact.format, self._store.put_file(artefact.path)) for artefact in artefacts]
        with self._writing() as (session, job):
            for form, blob in blobs:
                session.add(Checkpoint(job_id=job.id, trial=trial, format=form, sha256=blob.sha256, size=blob.size))
            job.baseline = {"trial": None, **asdict(baseline)}
            job.best = {"trial": trial, **asdict(best)}
            move(session, job, State.SUCCEEDED)

    def failed(self, reason: str) -> None:
        """The job cannot end well; ``reason`` is one sentence for its owner."""
        with self._writing() as (session, job):
            move(session, job, State.FAILED, reason)

    @contextmanager
    def _writing(self) -> Iterator[tuple[Session, Job]]:
        with self._database.write() as session:
            job = locked(session, self._job_id)
            if job.attempt != self._attempt:
                raise NotWanted(f"Attempt {self._attempt} at job {job.id} was replaced by attempt {job.attempt}.")
            if job.state not in WRITABLE:
                raise NotWanted(f"Job {job.id} is {job.state}; nothing more is written for it.")
            yield session, job


def _proposal(trial: Trial) -> Proposal:
    training = trial.training and Training(**{**trial.training, "params": tuple(trial.training["params"].items())})
    return Proposal(trial.number, tuple(trial.widths), trial.note, trial.parent, training or None)


def _untold(session: Session, job: Job, number: int) -> Trial:
    trial = session.get(Trial, (job.id, number))
    if trial is None or trial.told_sequence is not None:
        raise ValueError(f"trial {number} of job {job.id} was {'told already' if trial else 'never asked'}")
    return trial
