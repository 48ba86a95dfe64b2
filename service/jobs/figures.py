"""A job's figures in the units in which people state and read them."""

from __future__ import annotations

from pruners.cost import NANOSECONDS, SPARSITY
from service.database.tables import Job, Model
from service.texts import number_text
from workers.plan import budgets_of
from workers.spec import LATENCY_MS, JobSpec
from workers.tasks import METRICS


def figure(value: float | None, metric: str) -> str:
    """A figure of a job's metric for people: shares in percent."""
    if value is None:
        return "–"
    return f"{100 * value:.2f} %" if METRICS[metric].share else number_text(value)


def limit_of(job: Job) -> float | None:
    """The budget, of several the largest, in the unit in which it is stated; ``None``: milliseconds that are not timed yet."""
    if job.budget_limit is None:
        return None
    return job.budget_limit / (NANOSECONDS if JobSpec.model_validate(job.spec).metric == LATENCY_MS else 1)


def limits_of(job: Job, model: Model) -> list[float]:
    """All budgets in that unit, the largest first; none: not timed yet."""
    spec, limit = JobSpec.model_validate(job.spec), limit_of(job)
    if len(spec.budgets) == 1:
        return [] if limit is None else [limit]
    found = model.inspection
    dense = sum(layer["weights"] for layer in found["layers"]) if spec.metric == SPARSITY else found[spec.metric]
    return [float(budget.limit) for budget in budgets_of(spec, dense)]
