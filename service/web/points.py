"""``/ui/jobs/{id}/points``: what the plots of a job show, in columns: of ten thousand trials, half a megabyte."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import select

from service.database import Database
from service.database.tables import Trial
from service.jobs.figures import stated
from service.jobs.schemas import JobView
from service.jobs.summary import Summary, cost_column
from service.jobs.views import best_trials
from service.texts import UNITS
from service.web.costs import in_unit
from workers.tasks import METRICS

COLUMNS = ("number", "score", "metric", "cost", "started", "finished", "worker", "failed")


def points(database: Database, view: JobView, summary: Summary, after: int) -> dict[str, Any]:
    """The trials that were told behind ``after``, a sequence number of the job's record, and what the plots need besides.

    Costs are in the budget's metric, times in milliseconds since 1970, workers numbers in ``workers``, which starts anew in
    each answer. ``limits`` are all budgets, the largest first, and ``best`` the best trials within them. A trial that failed
    has no score; one that an earlier job gave has no times.
    """
    metric = view.spec.metric
    figures = (Trial.told_sequence, Trial.number, Trial.score, Trial.metric, cost_column(metric))
    whereabouts = (Trial.started_at, Trial.finished_at, Trial.node, Trial.pid, Trial.state)
    told = select(*figures, *whereabouts).where(Trial.job_id == view.id, Trial.told_sequence > after)
    with database.read() as session:
        rows = session.execute(told.order_by(Trial.told_sequence)).all()
    workers: dict[str, int] = {}
    cost = in_unit(metric)
    found = [_row(row, cost, workers) for row in rows]
    return {
        "columns": dict(zip(COLUMNS, map(list, zip(*found, strict=True)) if found else [[] for _ in COLUMNS], strict=True)),
        "workers": list(workers),
        "last": rows[-1][0] if rows else after,
        "front": [point.trial for point in view.pareto],
        "best": list(dict.fromkeys(best for best in best_trials(view, summary) if best is not None)),
        "limits": [stated(limit.most, metric) for limit in summary.limits],
        "unit": UNITS[metric],
        "title": view.metric.title,
        "share": METRICS[view.metric.name].share,
    }


def _row(row: Sequence[Any], in_unit: Callable[[Any], float | None], workers: dict[str, int]) -> tuple[Any, ...]:
    _, number, score, reported, cost, started, finished, node, pid, state = row
    worker = None if node is None or pid is None else workers.setdefault(f"{node}, process {pid}", len(workers))
    times = [None if moment is None else round(1000 * moment.timestamp()) for moment in (started, finished)]
    return number, score, reported, in_unit(cost), *times, worker, state == "failed"
