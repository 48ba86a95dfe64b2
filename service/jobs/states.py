"""A job's states, the moves between them, and the one function that makes a move.

    queued ─▶ starting ─▶ running ─────────▶ finishing ─▶ succeeded
      ▲                      ╲▶ stopping ─▶───╯
      │
      ╰── paused ◀── pausing ◀── starting, running, stopping, finishing

From every state that is not an end a job may be cancelled, through ``cancelling`` while a process of it may be alive,
or fail. Where its process is lost, ``AFTER_LOSS`` says what it becomes: mostly ``starting`` again, the next attempt going
on from what is on record. A process that is paused is ended just so, and trials that it was at run again after ``resume``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from service.database import now
from service.database.tables import Attempt, Delivery, Event, Job, Trial, is_id
from service.problems import Conflict, NotFound


class State(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    STOPPING = "stopping"
    CANCELLING = "cancelling"
    FINISHING = "finishing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


_ENDING = frozenset({State.PAUSING, State.CANCELLING, State.FAILED})  # what any live job may come to

MOVES: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.STARTING, State.PAUSED, State.CANCELLED, State.FAILED}),
    State.STARTING: frozenset({State.STARTING, State.RUNNING}) | _ENDING,
    State.RUNNING: frozenset({State.STARTING, State.FINISHING, State.STOPPING}) | _ENDING,
    State.PAUSING: frozenset({State.PAUSED, State.SUCCEEDED, State.CANCELLING}),
    State.PAUSED: frozenset({State.QUEUED, State.CANCELLED, State.FAILED}),
    State.STOPPING: frozenset({State.STARTING, State.FINISHING}) | _ENDING,
    State.CANCELLING: frozenset({State.CANCELLED}),
    State.FINISHING: frozenset({State.STARTING, State.SUCCEEDED}) | _ENDING,
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}
"""From each state the states it may move to; nothing follows an end."""

ENDS = frozenset(state for state, following in MOVES.items() if not following)
"""States that last."""

LIVE = frozenset(MOVES) - ENDS - {State.QUEUED, State.PAUSED}
"""States in which a process of the job may be alive."""

UNWANTED = frozenset({State.PAUSING, State.CANCELLING})
"""Live states in which that process is to end."""

WRITABLE = LIVE - {State.CANCELLING}
"""States in which it may still tell what it found: what a cancelled job finds out is not wanted any more."""

AFTER_LOSS: dict[State, State] = {
    State.PAUSING: State.PAUSED,
    State.CANCELLING: State.CANCELLED,
    **dict.fromkeys(LIVE - UNWANTED, State.STARTING),
}
"""What a job becomes whose process is gone without a result."""


class IllegalMove(Conflict):
    """A move that ``MOVES`` does not hold."""

    def __init__(self, job: Job, to: State) -> None:
        super().__init__(f"Job {job.id} is {job.state} and cannot become {to}.")


def locked(session: Session, job_id: str) -> Job:
    """The job's row, no other transaction's to change until this one ends; raises ``NotFound``."""
    job = session.scalar(select(Job).where(Job.id == job_id).with_for_update()) if is_id(job_id) else None
    if job is None:
        raise NotFound("job", job_id)
    return job


def move(session: Session, job: Job, to: State, reason: str | None = None) -> None:
    """Changes the state of a ``locked`` job and writes the event, in the session's transaction.

    Args:
        session: a write session.
        job: locked in that session.
        to: the new state.
        reason: one sentence for the job's owner, where a job fails, is cancelled, or starts again.

    Raises:
        IllegalMove: there is no such move.
    """
    if to not in MOVES[State(job.state)]:
        raise IllegalMove(job, to)
    moment = now(session)
    if job.state in LIVE and (to is State.STARTING or to not in LIVE):
        _end_attempt(session, job, reason)
    job.state, job.reason = to, reason
    if to is State.STARTING:
        job.attempt += 1
    if to is State.RUNNING and job.started_at is None:
        job.started_at = moment
    if to in ENDS:
        job.finished_at = moment
    announce(session, job, "state", {"state": to, "reason": reason, "attempt": job.attempt})


def announce(session: Session, job: Job, kind: str, data: dict[str, Any]) -> None:
    """Writes an event of kind ``state``, ``trial``, ``progress`` or ``webhook``, and that the job's webhook is to be told."""
    event = Event(job_id=job.id, type=kind, data=data)
    session.add(event)
    if kind == "progress":
        job.message = data["message"]
    if job.webhook is not None and kind in job.webhook["events"]:
        session.flush()  # gives the event its id
        session.add(Delivery(event_id=event.id, job_id=job.id, due_at=now(session)))


def _end_attempt(session: Session, job: Job, reason: str | None) -> None:
    """The process is over, and no trial runs without one."""
    attempt = session.get(Attempt, (job.id, job.attempt))
    if attempt is not None:
        attempt.ended_at, attempt.reason = now(session), reason
    left = update(Trial).where(Trial.job_id == job.id, Trial.state == "running")
    session.execute(left.values(state="pending"))
