"""``/ui/compare``: jobs side by side, in a table and in two plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from pruners.errors import InvalidInput
from service.database import Database
from service.database.tables import Job, Trial, utc_now
from service.jobs.figures import stated
from service.jobs.repository import JobRepository
from service.jobs.schemas import JobView
from service.jobs.summary import Summary, cost_column
from service.jobs.views import job_view
from service.texts import UNITS
from service.web.costs import Size, in_unit, sizes, within
from service.web.listing import Line, described
from workers.tasks import METRICS

MOST = 8  # colours that can still be told apart


@dataclass(frozen=True)
class Compared:
    """A job in the table.

    Attributes:
        line: as in the list of jobs.
        unit: of its budgets.
        sizes: its budgets, the largest first, and the best network within each.
        seconds: from its start to its end, or up to now; ``None`` before it started.
    """

    line: Line
    unit: str
    sizes: list[Size]
    seconds: float | None


def compared(database: Database, ids: Sequence[str]) -> list[Compared]:
    """These jobs, in that order; raises ``NotFound`` and ``InvalidInput``."""
    rows = _jobs(database, ids)
    summaries = JobRepository(database).summaries_of(rows)
    return [
        Compared(line, UNITS[line.job.spec.metric], sizes(row, line.job, summaries[row.id]), _seconds(row))
        for row, line in zip(rows, described(database, rows), strict=True)
    ]


def comparison(database: Database, ids: Sequence[str]) -> dict[str, Any]:
    """What the plots show of each job: its front, and of each budget the trials within it that scored better than all before.

    ``last`` is how far the search is, on the axis of trials.
    Costs are in the budgets' metric, or in MACs where jobs have unlike ones; ``limit`` is null where a budget is not in it.
    Jobs that report unlike metrics have no plots: ``title`` is null then.
    """
    rows = _jobs(database, ids)
    summaries = JobRepository(database).summaries_of(rows)
    views = [job_view(row, summaries[row.id]) for row in rows]
    metrics, costs = {view.metric.name for view in views}, {view.spec.metric for view in views}
    (metric,) = metrics if len(metrics) == 1 else (None,)
    (cost,) = costs if len(costs) == 1 else ("macs",)
    return {
        "title": None if metric is None else views[0].metric.title,
        "share": metric is not None and METRICS[metric].share,
        "unit": UNITS[cost],
        "jobs": [
            {
                "id": view.id,
                "name": view.name,
                "budgets": [
                    {"limit": limit if view.spec.metric == cost else None, "text": text, "steps": steps}
                    for limit, text, steps in _steps(database, view, summaries[view.id])
                ],
                "last": max(0, view.progress.finished - 1),
                "front": _front(database, view, cost),
            }
            for view in views
        ],
    }


def _jobs(database: Database, ids: Sequence[str]) -> list[Job]:
    chosen = list(dict.fromkeys(ids))
    if not 2 <= len(chosen) <= MOST:
        raise InvalidInput("job", None, f"names {len(chosen)} jobs to compare; tick two to {MOST} in the list of jobs")
    jobs = JobRepository(database)
    return [jobs.get(job_id) for job_id in chosen]


def _steps(database: Database, view: JobView, summary: Summary) -> list[tuple[float, str, list[dict[str, Any]]]]:
    """Of each budget its limit, itself in words, and each trial within it that scored better than all with lower numbers."""
    metric = view.spec.metric
    cost, limits = in_unit(metric), [stated(limit.most, metric) for limit in summary.limits]
    if not limits:
        return []
    scored = select(Trial.number, Trial.score, Trial.metric, cost_column(metric))
    scored = scored.where(Trial.job_id == view.id, Trial.state == "succeeded").order_by(Trial.number)
    better, steps = [-float("inf") for _ in limits], [list[dict[str, Any]]() for _ in limits]
    with database.read() as session:
        for number, score, reported, held in session.execute(within(scored, metric, limits[0])):
            for place, limit in enumerate(limits):
                if score > better[place] and (cost(held) or 0.0) <= limit:
                    better[place] = score
                    steps[place].append({"trial": number, "score": score, "metric": reported})
    return [(limit, each.text, found) for limit, each, found in zip(limits, summary.limits, steps, strict=True)]


def _front(database: Database, view: JobView, metric: str) -> list[dict[str, Any]]:
    """Each trial that none beats, the cheapest first."""
    numbers, cost = [point.trial for point in view.pareto], in_unit(metric)
    with database.read() as session:
        chosen = select(Trial.number, Trial.score, Trial.metric, cost_column(metric))
        rows = session.execute(chosen.where(Trial.job_id == view.id, Trial.number.in_(numbers))).all()
    found = [
        {"trial": number, "score": score, "metric": reported, "cost": cost(held)} for number, score, reported, held in rows
    ]
    return sorted(found, key=lambda point: point["cost"] or 0.0)


def _seconds(job: Job) -> float | None:
    return None if job.started_at is None else ((job.finished_at or utc_now()) - job.started_at).total_seconds()
