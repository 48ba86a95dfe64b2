"""What the list of jobs shows of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select

from service.database import Database
from service.database.tables import Dataset, Job, Model
from service.jobs.figures import figure, stated
from service.jobs.repository import JobRepository
from service.jobs.schemas import JobView
from service.jobs.summary import Summary
from service.jobs.views import job_view
from service.report.charts import short
from service.texts import UNITS

PAGE = 50  # jobs


@dataclass(frozen=True)
class Line:
    """A job in the list.

    Attributes:
        job: as the API shows it.
        model, dataset: their names.
        best: its metric, measured on the test split once there is a winner, before that on the search inputs.
        cost: of the best network, beside the budget; empty if there is none yet.
    """

    job: JobView
    model: str
    dataset: str
    best: str
    cost: str


def lines(database: Database, limit: int, after: str | None) -> tuple[list[Line], str | None]:
    """A page of jobs, newest first, and the cursor of the next page."""
    rows, following = JobRepository(database).page(limit, after)
    return described(database, rows), following


def described(database: Database, rows: Sequence[Job]) -> list[Line]:
    """These jobs, in their order."""
    found = JobRepository(database).summaries_of(rows)
    models, datasets = (_names(database, table, rows) for table in (Model, Dataset))
    shown = []
    for row in rows:
        view = job_view(row, found[row.id])
        best = view.best.metric if view.best is not None else view.progress.best_metric
        cost = _cost(view.spec.metric, found[row.id])
        shown.append(Line(view, models[row.model_id], datasets[row.dataset_id], figure(best, view.metric.name), cost))
    return shown


def _names(database: Database, table: type[Model] | type[Dataset], jobs: Sequence[Job]) -> Mapping[str, str]:
    wanted = {job.model_id for job in jobs} | {job.dataset_id for job in jobs}
    with database.read() as session:
        return {row.id: row.name for row in session.execute(select(table.id, table.name).where(table.id.in_(wanted)))}


def _cost(metric: str, summary: Summary) -> str:
    if not summary.limits:
        return ""
    most = f"{short(stated(summary.limits[0].most, metric))} {UNITS[metric]}"
    return most if summary.best is None else f"{short(stated(summary.best.cost, metric))} of {most}"
