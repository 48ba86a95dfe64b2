"""A network's card from a job's rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.database.tables import Dataset, Job, Model, Trial
from service.store import Blob
from workers.card import Card, CardFile, Source, Step, environment
from workers.log import Artefact, Finished, Measurement
from workers.spec import JobSpec


def make_card(
    session: Session, job: Job, baseline: Measurement, network: Finished, files: Sequence[tuple[Artefact, Blob]]
) -> Card:
    """The card of one network of a job, made in the process that made the network, whose environment it tells.

    Args:
        session: sees the job's rows.
        job: whose it is.
        baseline: the dense network.
        network: this one.
        files: its forms, where they are stored.
    """
    model, dataset = session.get_one(Model, job.model_id), session.get_one(Dataset, job.dataset_id)
    steps = _steps(session, job, network.trial)
    return Card(
        job={"id": job.id, "name": job.name},
        model=Source(name=model.name, sha256=model.sha256),
        dataset=Source(name=dataset.name, sha256=dataset.sha256),
        spec=JobSpec.model_validate(job.spec),
        steps=[
            Step.model_validate({"trial": step.number, "widths": step.widths, "training": step.training, "note": step.note})
            for step in steps
        ],
        tuned=network.tuned,
        layers=steps[-1].plan["widths"],
        baseline=asdict(baseline),
        figures=asdict(network.measured),
        search=_search(session, job),
        environment=environment(),
        files={
            artefact.format: CardFile(sha256=blob.sha256, size=blob.size, metric=artefact.metric) for artefact, blob in files
        },
    )


def _steps(session: Session, job: Job, number: int) -> list[Trial]:
    """The trial, behind all that it started from."""
    trial = session.get_one(Trial, (job.id, number))
    return [*([] if trial.parent is None else _steps(session, job, trial.parent)), trial]


def _search(session: Session, job: Job) -> dict[str, Any]:
    counted = select(Trial.state, func.count(), func.sum(Trial.evaluate_seconds)).where(Trial.job_id == job.id)
    rows = session.execute(counted.group_by(Trial.state)).all()
    return {"trials": {state: count for state, count, _ in rows}, "seconds": sum(seconds or 0.0 for *_, seconds in rows)}
