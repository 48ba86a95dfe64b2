"""What trials cost, in the unit in which a job's budgets are stated; and each budget with the best network within it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select

from pruners.cost import NANOSECONDS, SPARSITY
from service.database.tables import Job
from service.jobs.figures import stated
from service.jobs.schemas import Figures, JobView
from service.jobs.summary import Scored, Summary, cost_column
from service.jobs.views import best_trials, kept_figures
from service.texts import budget_text
from workers.spec import LATENCY_MS


def in_unit(metric: str) -> Callable[[Any], float | None]:
    """From what ``cost_column`` holds to the figure."""
    if metric == SPARSITY:
        return lambda plan: float(sum(plan["widths"].values()))
    return lambda value: None if value is None else stated(value, metric)


def within(statement: Select[Any], metric: str, limit: float) -> Select[Any]:
    """Of these trials those within a budget; of sparsity, whose cost no column holds, all."""
    if metric == SPARSITY:
        return statement
    return statement.where(cost_column(metric) <= (round(limit * NANOSECONDS) if metric == LATENCY_MS else limit))


@dataclass(frozen=True)
class Size:
    """A budget of a job, and the best network within it.

    Attributes:
        budget: as it was stated, in words.
        limit: the most that a network may cost; ``None``: not timed yet.
        trial: the best one; ``None``: there is none yet.
        searched: its metric on the search inputs, if it is known.
        cost: in the budget's metric: measured once the network is kept.
        kept: its figures on the test inputs, once it is kept.
    """

    budget: str
    limit: float | None
    trial: int | None = None
    searched: float | None = None
    cost: float | None = None
    kept: Figures | None = None


def sizes(job: Job, view: JobView, summary: Summary) -> list[Size]:
    """Each budget of a job, the largest first."""
    if not summary.limits:
        return [Size(budget_text(job.spec), None)]
    kept, metric, found = {each.trial: each for each in kept_figures(job)}, view.spec.metric, []
    for limit, best, trial in zip(summary.limits, summary.bests, best_trials(view, summary), strict=True):
        network = None if trial is None else kept.get(trial)
        scored = best if best is not None and best.number == trial else None  # what was measured may choose otherwise
        searched = None if scored is None else scored.metric
        cost = _cost(metric, scored, network)
        found.append(Size(limit.text, stated(limit.most, metric), trial, searched, cost, network))
    return found


def _cost(metric: str, scored: Scored | None, network: Figures | None) -> float | None:
    if network is not None and metric != SPARSITY:
        return float(getattr(network, metric))
    return None if scored is None else stated(scored.cost, metric)
