"""What is said of a job in words, from its JSON: by the command line, the client and its displays."""

from __future__ import annotations

from typing import Any

ENDED = frozenset({"succeeded", "failed", "cancelled"})
"""States that a job does not leave."""

UNITS = {
    "macs": "MACs",
    "params": "parameters",
    "size_bytes": "bytes of weights",
    "latency_ms": "ms for one input",
    "sparsity": "weights that stay",
}
"""What a budget's metric counts."""


def budget_text(spec: dict[str, Any]) -> str:
    """A spec's budgets in words: ``macs ≤ 50 %`` or ``params ≤ 120,000``, and what a constraint adds to them."""
    texts, constraint = [limit_text(budget) for budget in _budgets(spec)], spec.get("constraint")
    if constraint is not None:
        texts.append(f"at most {constraint['max_metric_drop']:g} lost")
    return ", ".join(texts)


def _budgets(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return spec["budget"] if isinstance(spec["budget"], list) else [spec["budget"]]


def limit_text(budget: dict[str, Any]) -> str:
    """A single budget in words: ``macs ≤ 50 %``."""
    if budget.get("max") is None and budget.get("ratio") is None:
        return f"{budget['metric']} as few as can be"
    unit = " ms" if budget["metric"] == "latency_ms" else ""
    limit = f"{budget['max']:,}{unit}" if budget.get("max") is not None else f"{100 * budget['ratio']:g} %"
    bound = "≥" if budget["metric"] == "sparsity" and budget.get("max") is None else "≤"
    return f"{budget['metric']} {bound} {limit}"


def best_text(job: dict[str, Any]) -> str:
    """The best so far: measured on the test split once the job succeeded, on the search images before."""
    best, progress = job["best"], job["progress"]
    if best is not None:
        metric = _budgets(job["spec"])[0]["metric"]
        what = "weights" if metric == "sparsity" else metric
        return f"{metric_text(job, best['metric'])}, {100 * best['budget_ratio']:.1f} % of {what}"
    if progress["best_score"] is None:
        return "none" if job["state"] in ENDED else "none yet"
    metric = progress.get("best_metric")
    return f"score {progress['best_score']:.4g}" + (f", {metric_text(job, metric)}" if metric is not None else "")


def metric_text(job: dict[str, Any], value: float) -> str:
    """A figure of the job's metric with its name: ``top-1 accuracy 0.9700``."""
    return f"{job['metric']['title']} {number_text(value)}"


def number_text(value: float) -> str:
    """A metric in digits that tell something, whatever its unit."""
    return f"{value:.4f}" if 0.01 <= abs(value) < 1000 or value == 0 else f"{value:.4g}"


def heading(job: dict[str, Any]) -> str:
    """A job in one line: name, id, budget."""
    return f"{job['name']} ({job['id']}), {budget_text(job['spec'])}"


def reason_text(job: dict[str, Any]) -> str | None:
    """Why a job is in its state, if it says so."""
    return f"{job['state']}: {job['reason']}" if job["reason"] else None
