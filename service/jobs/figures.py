"""A job's figures in the units in which people state and read them."""

from __future__ import annotations

from pruners.cost import NANOSECONDS
from service.database.tables import Job
from service.texts import number_text
from workers.spec import LATENCY_MS, JobSpec
from workers.tasks import METRICS


def figure(value: float | None, metric: str) -> str:
    """A figure of a job's metric for people: shares in percent."""
    if value is None:
        return "–"
    return f"{100 * value:.2f} %" if METRICS[metric].share else number_text(value)


def difference(value: float, metric: str, signed: bool = False) -> str:
    """Of two figures of a job's metric for people: shares in points; ``signed``: with a plus if it is above zero."""
    plus = "+" if signed else ""
    text = f"{100 * value:{plus}.2f} points" if METRICS[metric].share else f"{value:{plus}.4g}"
    return text.replace("-", "−")


def stated(amount: int, metric: str) -> float:
    """What is on record of a budget's metric, in the unit in which people state it: of nanoseconds milliseconds."""
    return amount / NANOSECONDS if metric == LATENCY_MS else float(amount)


def limit_of(job: Job) -> float | None:
    """The budget, of several the largest, in the unit in which it is stated; ``None``: milliseconds that are not timed yet."""
    return None if job.budget_limit is None else stated(job.budget_limit, JobSpec.model_validate(job.spec).metric)
