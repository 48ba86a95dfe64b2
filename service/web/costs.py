"""What a trial costs, in the unit in which a job's budget is stated; and the best trial within each budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from pruners.cost import NANOSECONDS, SPARSITY
from service.database.tables import Trial
from service.jobs.summary import cost_column
from workers.spec import LATENCY_MS


def in_unit(metric: str) -> Callable[[Any], float | None]:
    """From what ``cost_column`` holds to the figure."""
    if metric == SPARSITY:
        return lambda plan: float(sum(plan["widths"].values()))
    if metric == LATENCY_MS:
        return lambda value: None if value is None else value / NANOSECONDS
    return lambda value: value


def within(statement: Select[Any], metric: str, limit: float) -> Select[Any]:
    """Of these trials those within a budget; of sparsity, whose cost no column holds, all."""
    if metric == SPARSITY:
        return statement
    return statement.where(cost_column(metric) <= (round(limit * NANOSECONDS) if metric == LATENCY_MS else limit))


@dataclass(frozen=True)
class Best:
    """The best trial within a budget, by score on the search inputs."""

    number: int
    metric: float | None
    cost: float


def best_within(session: Session, job_id: str, metric: str, limits: Sequence[float]) -> list[Best | None]:
    """The best of each budget; of equals the earliest."""
    cost = in_unit(metric)
    scored = select(Trial.number, Trial.metric, cost_column(metric)).where(Trial.job_id == job_id, Trial.state == "succeeded")
    ranked = scored.order_by(Trial.score.desc(), Trial.number)
    found: list[Best | None] = []
    for limit in limits:
        fitting = within(ranked, metric, limit)
        rows = session.execute(fitting if metric == SPARSITY else fitting.limit(1))
        plans = (Best(number, reported, cost(held) or 0.0) for number, reported, held in rows)
        found.append(next((best for best in plans if best.cost <= limit), None))
    return found
