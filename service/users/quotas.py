"""How much a user may have: counted in the transaction that adds to it, so that many calls at once cannot exceed it."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from sqlalchemy import BigInteger, cast, func, select
from sqlalchemy.orm import Session

from service.database.tables import Checkpoint, Dataset, Job, Model, User
from service.jobs.states import ENDS
from service.problems import ServiceError


class QuotaUsedUp(ServiceError):
    """A user has as much as they may; waiting for their own jobs to end, or deleting what they have, makes room."""

    status = HTTPStatus.FORBIDDEN
    title = "Quota used up"
    example = "You have 10 jobs that have not ended, of 10 allowed; wait for one or cancel it."


@dataclass(frozen=True)
class Usage:
    """What a user has.

    Attributes:
        jobs: that have not ended, queued and paused ones among them.
        trials: that those jobs plan.
        bytes: of models, of data sets and the arrays that they were turned into, and of checkpoints.
    """

    jobs: int
    trials: int
    bytes: int


def usage(session: Session, user: str) -> Usage:
    """What a user has at the moment."""
    ongoing = select(func.count(), func.coalesce(func.sum(Job.planned_trials), 0)).where(
        Job.owner == user, Job.state.not_in(ENDS)
    )
    jobs, trials = session.execute(ongoing).one()
    arrays = cast(Dataset.inspection["arrays_bytes"].as_string(), BigInteger)  # of data sets from before it was noted: none
    sizes = (
        select(func.sum(Model.size)).where(Model.owner == user),
        select(func.sum(Dataset.size)).where(Dataset.owner == user),
        select(func.sum(arrays)).where(Dataset.owner == user),
        select(func.sum(Checkpoint.size)).join(Job, Job.id == Checkpoint.job_id).where(Job.owner == user),
    )
    return Usage(jobs, int(trials), sum(int(session.scalars(size).one() or 0) for size in sizes))


def admit_job(session: Session, user: str, trials: int) -> None:
    """Raises ``QuotaUsedUp`` if a job of so many trials is more than the user may have."""
    limits, used = _limits_and_usage(session, user)
    if limits.max_jobs is not None and used.jobs >= limits.max_jobs:
        raise QuotaUsedUp(
            f"You have {used.jobs} jobs that have not ended, of {limits.max_jobs} allowed; wait for one or cancel it."
        )
    if limits.max_trials is not None and used.trials + trials > limits.max_trials:
        raise QuotaUsedUp(
            f"This job's {trials:,} trials are too many: your jobs that have not ended plan {used.trials:,} of "
            f"{limits.max_trials:,} allowed; lower limits.max_trials or wait."
        )
    if limits.max_bytes is not None and used.bytes >= limits.max_bytes:  # what a job leaves is not known beforehand
        raise QuotaUsedUp(
            f"A job leaves files, and your models, data sets and checkpoints take {used.bytes:,} of {limits.max_bytes:,} bytes "
            "allowed; delete some first."
        )


def admit_upload(session: Session, user: str, size: int) -> None:
    """Raises ``QuotaUsedUp`` if a file of so many bytes, with what is made of it, is more than the user may keep."""
    limits, used = _limits_and_usage(session, user)
    if limits.max_bytes is not None and used.bytes + size > limits.max_bytes:
        raise QuotaUsedUp(
            f"This file's {size:,} bytes are too many: your models, data sets and checkpoints take {used.bytes:,} of "
            f"{limits.max_bytes:,} allowed; delete some first."
        )


def _limits_and_usage(session: Session, user: str) -> tuple[User, Usage]:
    """Under a lock on the user's row, so that of two that would both fit alone the second is counted with the first."""
    limits = session.get_one(User, user, with_for_update=True)
    return limits, usage(session, user)
