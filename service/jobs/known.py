"""Outcomes that need not be found out twice: those of other jobs' trials that a job would evaluate alike.

A bare cut of the dense network is judged by arithmetic alone. Where model, data, criterion, recovery, seed and the threads of a
trial are the same, so is the outcome, whatever the search and its budget. The trials on record are all there is to know, so
nothing else is kept.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from searchers.base import Outcome
from searchers.space import Widths
from service.database.tables import Dataset, Job, Model, Trial
from service.jobs.warm_start import difference
from workers.spec import JobSpec


def known_outcomes(session: Session, job: Job) -> dict[Widths, Outcome]:
    """By widths, what came of the successful bare cuts of other jobs that scored as this one does; of several the earliest."""
    spec = JobSpec.model_validate(job.spec)
    model, dataset = session.get_one(Model, job.model_id), session.get_one(Dataset, job.dataset_id)
    same_files = select(Job).where(Job.model_id == model.id, Job.dataset_id == dataset.id, Job.id != job.id)
    alike = [
        other.id
        for other in session.scalars(same_files)
        if difference(spec, model, dataset, other) is None
        and JobSpec.model_validate(other.spec).resources.model_copy(update={"reuse": spec.resources.reuse}) == spec.resources
    ]
    trials = session.scalars(select(Trial).where(Trial.job_id.in_(alike)).order_by(Trial.job_id.desc(), Trial.number.desc()))
    return {
        tuple(trial.widths): Outcome(trial.score, trial.metric, drop=trial.metric_drop)
        for trial in trials
        if trial.score is not None and trial.metric is not None and trial.parent is None and trial.training is None
    }
