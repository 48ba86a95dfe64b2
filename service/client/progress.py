"""A job followed to its end: a live bar on a terminal, a line per change elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from service.client.connection import ServerUnreachable

if TYPE_CHECKING:
    from service.client.client import Client

ENDED = frozenset({"succeeded", "failed", "cancelled"})
"""States that a job does not leave."""

POLL_SECONDS = 1.0  # trials take about as long at the least, and one request costs the server milliseconds
_OUTAGE_POLLS = 40  # in a row without an answer, each 3.5 s of retries: a server may restart within two minutes
_SPEED_SECONDS = 600.0  # the stretch of time over which the remaining time is estimated; rich's 30 s may hold no trial


def watch(client: Client, job_id: str, console: Console | None = None) -> dict[str, Any]:
    """Shows a job's progress until it ends and returns its JSON then."""
    console = console or Console(highlight=False, markup=False)
    show = _bar if console.is_terminal else _lines
    job = show(_follow(client, job_id), console)
    if job["reason"]:
        console.print(f"{job['state']}: {job['reason']}", soft_wrap=True)
    return job


def budget_text(spec: dict[str, Any]) -> str:
    """A spec's budgets in words: ``macs ≤ 50 %`` or ``params ≤ 120,000``, and what a constraint adds to them."""
    budgets = spec["budget"] if isinstance(spec["budget"], list) else [spec["budget"]]
    texts, constraint = [_limit_text(budget) for budget in budgets], spec.get("constraint")
    if constraint is not None:
        texts.append(f"at most {constraint['max_metric_drop']:g} lost")
    return ", ".join(texts)


def _limit_text(budget: dict[str, Any]) -> str:
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
        budget = job["spec"]["budget"]
        metric = (budget[0] if isinstance(budget, list) else budget)["metric"]
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


def _follow(client: Client, job_id: str) -> Iterator[dict[str, Any]]:
    """The job as it is now, again and again until it has ended. Outlives a restart of the server."""
    job = client.job(job_id)
    silent = 0
    while True:
        yield job
        if job["state"] in ENDED:
            return
        time.sleep(POLL_SECONDS)
        try:
            job = client.job(job_id)
            silent = 0
        except ServerUnreachable:
            silent += 1
            if silent >= _OUTAGE_POLLS:
                raise


def _bar(jobs: Iterator[dict[str, Any]], console: Console) -> dict[str, Any]:
    columns = (
        TextColumn("{task.fields[state]:<9}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("trials"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, speed_estimate_period=_SPEED_SECONDS, expand=True) as progress:
        task: TaskID | None = None
        best = said = ""
        for job in jobs:
            counts = job["progress"]
            if task is None:
                console.print(f"{job['name']} ({job['id']}), {budget_text(job['spec'])}")
                # What finished before says nothing of the speed now, hence it is no update.
                task = progress.add_task("", completed=counts["finished"], total=None, state=job["state"])
            if counts.get("message") not in (None, said):
                said = counts["message"]
                console.print(said)
            if best_text(job) != best:
                best = best_text(job)
                console.print(f"best: {best}")
            progress.update(task, completed=counts["finished"], total=counts["planned"] or None, state=job["state"])
    return job


def _lines(jobs: Iterator[dict[str, Any]], console: Console) -> dict[str, Any]:
    shown = said = ""
    for job in jobs:
        if not shown:
            console.print(f"{job['name']} ({job['id']}), {budget_text(job['spec'])}", soft_wrap=True)
        counts = job["progress"]
        line = f"{job['state']:<10} {counts['finished']}/{counts['planned']} trials, best: {best_text(job)}"
        if counts.get("message") not in (None, said):
            said = counts["message"]
            console.print(said, soft_wrap=True)
        if line != shown:
            shown = line
            console.print(line, soft_wrap=True)
    return job
