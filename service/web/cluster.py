"""``/ui/cluster``: what runs where, how busy the workers are, and which jobs wait: all from the rows of jobs and trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.database import Database, now
from service.database.tables import Attempt, Job, Trial
from service.jobs.states import LIVE, State
from service.metrics import slots_and_busy

WINDOW = timedelta(minutes=10)
"""How far back workers are looked for."""

RUNNING_SHOWN, JOBS_SHOWN = 50, 100


@dataclass(frozen=True)
class WorkerLine:
    """A process that told of a trial lately.

    Attributes:
        node, pid: where it is.
        trials: that it told of within ``WINDOW``.
        share: of the time since the first of these began, that in which it evaluated, 0…1.
        last: when it told of the last one.
        job, name: of that one's job.
    """

    node: str
    pid: int
    trials: int
    share: float
    last: datetime
    job: str
    name: str


@dataclass(frozen=True)
class JobLine:
    """A job that runs or waits; ``place`` in the queue, from 1 on, of one that waits."""

    job: Job
    place: int | None
    since: datetime


@dataclass(frozen=True)
class ClusterPage:
    """The whole service's figures, and of jobs and trials those that the caller may see.

    Attributes:
        slots, busy: trials that running jobs may run at once, and those that do.
        live, waiting: all users' jobs.
        jobs: those of the caller's that run, then those that wait, in their order.
        running: trials that run: job, name, number, note and when they began.
        workers: by node.
    """

    slots: int
    busy: int
    live: int
    waiting: int
    jobs: list[JobLine]
    running: Sequence[Any]
    workers: list[WorkerLine]


def cluster_page(whole: Database, own: Database) -> ClusterPage:
    """What the page shows.

    Args:
        whole: the database, for sums over all users.
        own: as the caller sees it.
    """
    with whole.read() as session:
        slots, busy = slots_and_busy(session)
        live = session.scalars(select(func.count()).select_from(Job).where(Job.state.in_(LIVE))).one()
        queue = session.scalars(select(Job.id).where(Job.state == State.QUEUED).order_by(Job.id)).all()
    with own.read() as session:
        running = session.execute(
            select(Trial.job_id, Job.name, Trial.number, Trial.note, Trial.started_at)
            .join(Job, Job.id == Trial.job_id)
            .where(Trial.state == "running", Job.state.in_(LIVE))
            .order_by(Trial.started_at)
            .limit(RUNNING_SHOWN)
        ).all()
        return ClusterPage(slots, busy, live, len(queue), _jobs(session, queue), running, _workers(session))


def _jobs(session: Session, queue: Sequence[str]) -> list[JobLine]:
    present = (Attempt.job_id == Job.id) & (Attempt.number == Job.attempt)
    live = select(Job, Attempt.began_at).join(Attempt, present).where(Job.state.in_(LIVE)).order_by(Job.id)
    waiting = session.scalars(select(Job).where(Job.state == State.QUEUED).order_by(Job.id).limit(JOBS_SHOWN))
    places = {job_id: place for place, job_id in enumerate(queue, start=1)}
    return [
        *(JobLine(job, None, began) for job, began in session.execute(live.limit(JOBS_SHOWN))),
        *(JobLine(job, places.get(job.id), job.created_at) for job in waiting),
    ]


def _workers(session: Session) -> list[WorkerLine]:
    """From the trials of jobs that run or ended lately; no others are looked through."""
    moment = now(session)
    since = moment - WINDOW
    lately = Job.state.in_(LIVE) | (Job.finished_at > since)
    figures = (Trial.node, Trial.pid, Trial.started_at, Trial.finished_at, Trial.evaluate_seconds, Job.id, Job.name)
    told = select(*figures).join(Job, Job.id == Trial.job_id).where(lately, Trial.finished_at > since, Trial.node.is_not(None))
    found: dict[tuple[str, int], list[Any]] = {}
    for row in session.execute(told.order_by(Trial.finished_at)):
        found.setdefault((row.node, row.pid), []).append(row)
    return [_worker(rows, since, moment) for _, rows in sorted(found.items())]


def _worker(rows: Sequence[Any], since: datetime, moment: datetime) -> WorkerLine:
    busy, first = 0.0, moment
    for row in rows:
        began = row.started_at or row.finished_at
        inside = (row.finished_at - max(began, since)).total_seconds()
        busy += min(row.evaluate_seconds or 0.0, inside)
        first = min(first, max(began, since))
    length, last = (moment - first).total_seconds(), rows[-1]
    share = min(1.0, busy / length) if length > 0 else 0.0
    return WorkerLine(last.node, last.pid, len(rows), share, last.finished_at, last.id, last.name)
