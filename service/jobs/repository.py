"""Jobs, trials, checkpoints and events in the database; all of their SQL but for the running job's own writes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog
from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.database import Database, alone, now
from service.database.tables import Attempt, Checkpoint, Dataset, Delivery, Event, IdempotencyKey, Job, Model, Trial, is_id
from service.jobs.states import AFTER_LOSS, ENDS, LIVE, UNWANTED, IllegalMove, State, announce, locked, move
from service.jobs.summary import Summary, summaries
from service.pages import newest_first, oldest_first
from service.problems import Conflict, KeyReused, NotFound
from service.users.quotas import QuotaUsedUp, admit_job

MOST_LOSSES = 10
"""Processes that a job may lose in a row without a new result: a machine may go down and up some times, but not for ever."""

log = structlog.get_logger()

_STARTING_LOCK = 0x5EC474  # taken while jobs are counted and one is started


@dataclass(frozen=True)
class Once:
    """An ``Idempotency-Key`` and what the request that carries it says, as a sha256."""

    key: str
    request_sha256: str


class JobRepository:
    """The jobs' rows: those of the database's owner, or all of them where it sees all."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def made_by(self, once: Once) -> Job | None:
        """The job that this user's ``Idempotency-Key`` made; raises ``KeyReused`` if that was another request."""
        with self._database.read() as session:
            known = session.get(IdempotencyKey, (self._database.owner, once.key))
            job = None if known is None else session.get_one(Job, known.job_id)
        if known is not None and known.request_sha256 != once.request_sha256:
            raise KeyReused(
                f"Idempotency-Key {once.key!r} made job {known.job_id} from a different request; send another for a new job."
            )
        return job

    def add(self, job: Job, given: Sequence[Trial] = (), once: Once | None = None) -> Job:
        """Queues a new job with the trials that an earlier one gave it.

        Where its ``Idempotency-Key`` has made one meanwhile, that one is returned.

        Raises:
            QuotaUsedUp: its owner has as many jobs or trials as they may.
            NotFound: its model or its data set was deleted meanwhile.
        """
        try:
            with self._database.write() as session:
                job.sequence = len(given)
                admit_job(session, self._database.owner, job.planned_trials)
                for table, kind, upload in ((Model, "model", job.model_id), (Dataset, "dataset", job.dataset_id)):
                    if session.get(table, upload, with_for_update={"read": True}) is None:  # deleted since it was looked at
                        raise NotFound(kind, upload)
                session.add(job)
                session.flush()
                if once is not None:
                    owner, key, said = self._database.owner, once.key, once.request_sha256
                    session.add(IdempotencyKey(owner=owner, key=key, request_sha256=said, job_id=job.id))
                for trial in given:
                    trial.job_id = job.id
                    session.add(trial)
                announce(session, job, "state", {"state": job.state, "reason": None, "attempt": 0})
        except (IntegrityError, QuotaUsedUp):
            earlier = once and self.made_by(once)
            if not earlier:
                raise
            return earlier
        log.info("job_queued", job=job.id, owner=job.owner)  # and by which request, which the log line has by itself
        return job

    def get(self, job_id: str) -> Job:
        """The row of that id; raises ``NotFound``."""
        with self._database.read() as session:
            return _found(session, job_id)

    def get_with_summary(self, job_id: str) -> tuple[Job, Summary]:
        """That row and what its trials add up to; raises ``NotFound``."""
        with self._database.read() as session:
            job = _found(session, job_id)
            return job, summaries(session, [job])[job_id]

    def page(self, limit: int, after: str | None) -> tuple[Sequence[Job], str | None]:
        """Newest first."""
        with self._database.read() as session:
            return newest_first(session, select(Job), Job.id, limit, after)

    def queued(self, most: int) -> Sequence[Job]:
        """The jobs that wait, the longest waiting first."""
        with self._database.read() as session:
            waiting = select(Job).where(Job.state == State.QUEUED)
            return session.scalars(waiting.order_by(Job.id).limit(most)).all()

    def live(self) -> Sequence[tuple[Job, Attempt, timedelta]]:
        """The jobs of which a process may be alive, with their present attempt and how long ago it was last heard of."""
        with self._database.read() as session:
            present = (Attempt.job_id == Job.id) & (Attempt.number == Job.attempt)
            found = select(Job, Attempt).join(Attempt, present).where(Job.state.in_(LIVE)).order_by(Job.id)
            moment = now(session)
            return [(job, attempt, moment - attempt.seen_at) for job, attempt in session.execute(found)]

    def start(self, job_id: str, cluster: str, most: int) -> Job | None:
        """Begins an attempt at a queued job on a Ray.

        Returns:
            The job; ``None`` if it is not queued any more, or if ``most`` are live, counted while no other service starts one.
        """
        with self._database.write() as session:
            alone(session.connection(), _STARTING_LOCK)
            job = locked(session, job_id)
            live = session.scalars(select(func.count()).select_from(Job).where(Job.state.in_(LIVE))).one()
            if job.state != State.QUEUED or live >= most:
                return None
            self._begin(session, job, cluster)
            return job

    def lost(self, job_id: str, attempt: int, reason: str, cluster: str) -> Job | None:
        """The attempt's process is gone: a cancelled job is cancelled, a pausing one paused, any other begins its next attempt.

        A job that loses ``MOST_LOSSES`` processes in a row, and has no new result from any of them, fails: what it does kills
        its process every time.

        Args:
            job_id: the job's.
            attempt: whose process it was.
            reason: one sentence on what became of it.
            cluster: the Ray that runs the next attempt.

        Returns:
            The job, if its next attempt begins; ``None`` if it is over, or another attempt has begun meanwhile.
        """
        with self._database.write() as session:
            job = locked(session, job_id)
            if job.attempt != attempt or job.state not in LIVE:
                return None
            to = AFTER_LOSS[State(job.state)]
            if to is not State.STARTING:
                move(session, job, to, job.reason)
                return None
            job.losses += 1
            if job.losses >= MOST_LOSSES:
                move(session, job, State.FAILED, f"{reason} It was the last of {job.losses} in a row without a new result.")
                return None
            self._begin(session, job, cluster, f"{reason} Attempt {attempt + 1} goes on from what is on record.")
            return job

    def refused(self, job_id: str, attempt: int, reason: str) -> None:
        """Ray will not run the attempt: the job fails for this reason, unless it ended or began another meanwhile."""
        with self._database.write() as session:
            job = locked(session, job_id)
            if job.attempt == attempt and job.state == State.STARTING:
                move(session, job, State.FAILED, reason)

    def cancel(self, job_id: str) -> Job:
        """Asks for the end of a job, once; raises ``IllegalMove`` if it has ended otherwise."""
        with self._database.write() as session:
            job = locked(session, job_id)
            if job.state not in (State.CANCELLING, State.CANCELLED):
                to = State.CANCELLED if job.state not in LIVE | ENDS else State.CANCELLING
                move(session, job, to, "Cancelled on request.")
            return job

    def pause(self, job_id: str) -> Job:
        """Asks for a job's workers to be released, once; raises ``IllegalMove`` if it has ended or is being cancelled."""
        with self._database.write() as session:
            job = locked(session, job_id)
            if job.state not in (State.PAUSING, State.PAUSED):
                to = State.PAUSED if job.state == State.QUEUED else State.PAUSING
                move(session, job, to, "Paused on request; resume it to go on.")
            return job

    def resume(self, job_id: str) -> Job:
        """Queues a paused job again, in its old place; one that waits or runs is left alone; raises ``IllegalMove``."""
        with self._database.write() as session:
            job = locked(session, job_id)
            if job.state not in (LIVE - UNWANTED) | {State.QUEUED}:
                move(session, job, State.QUEUED)
            return job

    def stop(self, job_id: str) -> Job:
        """Asks for a search to end with what it has found, once.

        Trials that run are heard, no other starts, the best network is finished as ever.

        Raises:
            Conflict: nothing has been tried yet, or the job has ended or is about to without having been asked to stop.
        """
        reason = "Stopped on request; the best network so far is kept."
        with self._database.write() as session:
            job = locked(session, job_id)
            if job.stop_asked:
                return job
            if job.state in (State.QUEUED, State.STARTING, State.PAUSED) and job.sequence == 0:
                raise Conflict(
                    f"Job {job.id} is {job.state} and has tried nothing yet, so that there is nothing to keep; cancel it."
                )
            if job.state == State.RUNNING:
                move(session, job, State.STOPPING, reason)
            elif job.state == State.PAUSED:
                move(session, job, State.QUEUED, reason)
            elif job.state in (State.QUEUED, State.STARTING):
                job.reason = reason
                announce(session, job, "state", {"state": job.state, "reason": reason, "attempt": job.attempt})
            elif job.state != State.FINISHING:
                raise IllegalMove(job, State.STOPPING)
            job.stop_asked = True
            return job

    def delete(self, job_id: str) -> None:
        """Forgets a job that has ended, its trials and its events; raises ``NotFound``, and ``Conflict`` before its end."""
        with self._database.write() as session:
            job = locked(session, job_id)
            if job.state not in ENDS:
                raise Conflict(f"Job {job.id} is {job.state}; cancel it before it is deleted.")
            for table in (Delivery, IdempotencyKey, Attempt, Trial, Checkpoint, Event):
                session.execute(delete(table).where(table.job_id == job_id))
            session.delete(job)

    def attempts(self, job_id: str) -> Sequence[Attempt]:
        """A job's attempts in order; raises ``NotFound``."""
        self.get(job_id)
        with self._database.read() as session:
            return session.scalars(select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.number)).all()

    def trials_of(self, jobs: Sequence[Job]) -> Mapping[str, Sequence[Trial]]:
        """Every trial of these jobs by job id, in order."""
        found: dict[str, list[Trial]] = defaultdict(list)
        with self._database.read() as session:
            wanted = select(Trial).where(Trial.job_id.in_([job.id for job in jobs]))
            for trial in session.scalars(wanted.order_by(Trial.number)):
                found[trial.job_id].append(trial)
        return found

    def summaries_of(self, jobs: Sequence[Job]) -> Mapping[str, Summary]:
        """What the trials of each of these jobs add up to, by job id."""
        with self._database.read() as session:
            return summaries(session, jobs)

    def progress_of(self, job_id: str) -> Sequence[Event]:
        """All that the job said about its work, oldest first."""
        said = select(Event).where(Event.job_id == job_id, Event.type == "progress").order_by(Event.id)
        with self._database.read() as session:
            return session.scalars(said).all()

    def trials(self, job_id: str, limit: int, after: str | None) -> tuple[Sequence[Trial], str | None]:
        """A page of a job's trials in the order of asking; raises ``NotFound``."""
        self.get(job_id)
        with self._database.read() as session:
            return oldest_first(session, select(Trial).where(Trial.job_id == job_id), Trial.number, limit, after)

    def trial(self, job_id: str, number: int) -> Trial:
        """One trial; raises ``NotFound``."""
        self.get(job_id)
        with self._database.read() as session:
            trial = session.get(Trial, (job_id, number))
        if trial is None:
            raise NotFound("trial", str(number), f"/jobs/{job_id}/trials")
        return trial

    def events(self, job_id: str, limit: int, after: str | None) -> tuple[Sequence[Event], str | None]:
        """A page of a job's events, oldest first; raises ``NotFound``."""
        self.get(job_id)
        with self._database.read() as session:
            return oldest_first(session, select(Event).where(Event.job_id == job_id), Event.id, limit, after)

    def checkpoints(self, job_id: str) -> Sequence[Checkpoint]:
        """Every file that is kept of a job; raises ``NotFound``."""
        self.get(job_id)
        with self._database.read() as session:
            kept = select(Checkpoint).where(Checkpoint.job_id == job_id)
            return session.scalars(kept.order_by(Checkpoint.trial, Checkpoint.format)).all()

    def _begin(self, session: Session, job: Job, cluster: str, reason: str | None = None) -> None:
        """The next attempt at a job, to be submitted."""
        move(session, job, State.STARTING, reason)
        moment = now(session)
        session.add(Attempt(job_id=job.id, number=job.attempt, cluster=cluster, began_at=moment, seen_at=moment))


def _found(session: Session, job_id: str) -> Job:
    job = session.get(Job, job_id) if is_id(job_id) else None
    if job is None:
        raise NotFound("job", job_id)
    return job
