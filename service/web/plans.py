"""``/ui/jobs/{id}/plans``: what trials leave of each group of channels, side by side, and the sensitivity of each.

Of many trials and groups those are shown that can still be told apart, so that the answer stays small however long a search is.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from statistics import pvariance
from typing import Any

from sqlalchemy import select

from pruners.cost import SPARSITY
from service.database import Database
from service.database.tables import Job, Model, Trial
from service.jobs.figures import limit_of
from service.jobs.schemas import JobView
from service.jobs.sensitivity import curves, searched_groups
from service.jobs.summary import cost_column
from service.jobs.views import best_trial
from service.web.costs import in_unit
from workers.tasks import METRICS

LINES = 240  # trials side by side
AXES = 40  # groups
CURVES = 12  # colours that can still be told apart


def plans(database: Database, job: Job, view: JobView, model: Model) -> dict[str, Any]:
    """Of the trials that scored: ``lines`` of shares kept per group, in percent, and ``curves`` of one group cut alone.

    Lines are of trials that cut several groups; of many, the best within the budget and some of each stage of the search.
    """
    groups = searched_groups(model, view.spec.metric == SPARSITY)
    metric, dense = view.spec.metric, [group["width"] for group in groups]
    figures = (Trial.number, Trial.score, Trial.metric, cost_column(metric).label("cost"))
    columns = (*figures, Trial.widths, Trial.parent, Trial.training)
    scored = select(*columns).where(Trial.job_id == job.id, Trial.state == "succeeded").order_by(Trial.number)
    with database.read() as session:
        rows = [row for row in session.execute(scored) if len(row.widths) == len(groups)]
    best = best_trial(view)
    several = [row for row in rows if sum(map(operator.lt, row.widths, dense)) > 1]  # the others are what the curves show
    limit, cost = limit_of(job), in_unit(metric)
    lines = _chosen(several, lambda row: (row.number != best, limit is None or (cost(row.cost) or 0.0) > limit, -row.score))
    shares = [[round(100 * kept / group["width"], 1) for kept, group in zip(row.widths, groups, strict=True)] for row in lines]
    axes = _telling(list(zip(*shares, strict=True)))
    found = curves(rows, groups)
    return {
        "groups": [groups[axis]["name"] for axis in axes],
        "of_groups": len(groups),
        "lines": [
            {"trial": row.number, "metric": row.metric, "score": row.score, "shares": [kept[axis] for axis in axes]}
            for row, kept in zip(lines, shares, strict=True)
        ],
        "of_lines": len(several),
        "of_trials": len(rows),
        "best": best,
        "curves": [{"name": curve.name, "points": curve.points} for curve in found[:CURVES]],
        "of_curves": len(found),
        "title": view.metric.title,
        "share": METRICS[view.metric.name].share,
    }


def _chosen(rows: Sequence[Any], order: Callable[[Any], Any]) -> list[Any]:
    """As many as can be shown, by rising number: the first in that order, and of the others evenly many."""
    if len(rows) <= LINES:
        return list(rows)
    ranked = sorted(rows, key=order)[: LINES // 2]
    every = -(-len(rows) // (LINES - len(ranked)))
    chosen = {row.number: row for row in [*ranked, *rows[::every]]}
    return [chosen[number] for number in sorted(chosen)]


def _telling(shares: Sequence[Sequence[float]]) -> list[int]:
    """The groups in which plans differ, in the network's order; of many those in which they differ the most."""
    spread = {axis: pvariance(kept) for axis, kept in enumerate(shares)}
    ranked = sorted((axis for axis in spread if spread[axis] > 0), key=lambda axis: -spread[axis])
    return sorted(ranked[:AXES])
