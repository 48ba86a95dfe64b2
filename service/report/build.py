"""What a report says, worked out of a job's rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from pruners.cost import SPARSITY
from service.database.tables import Dataset, Event, Model, Trial
from service.jobs.figures import figure
from service.jobs.layers import layer_widths
from service.jobs.schemas import CheckpointView, Figures, JobView
from service.jobs.sensitivity import curves, searched_groups
from service.jobs.views import milliseconds
from service.report.charts import Chart, Data, chart, short
from service.texts import UNITS, limit_text
from workers.spec import LATENCY_MS, Budget
from workers.tasks import METRICS

_MOST_DOTS = 1500
"""Trials drawn one by one; of more, evenly many are, beside the best ones. A file of ten thousand would open slowly."""
_CURVES = 12  # sensitivity curves that can still be told apart


def report(
    job: JobView,
    trials: Sequence[Trial],
    events: Sequence[Event],
    model: Model,
    dataset: Dataset,
    limit: float | None,
    checkpoints: Sequence[CheckpointView],
) -> str:
    """The HTML document of a job that succeeded.

    Args:
        job: as the API shows it.
        trials: all of them.
        events: all that it said of its work.
        model, dataset: what was uploaded.
        limit: the most that the network may cost (``service.jobs.figures.limit_of``).
        checkpoints: the networks that it kept.
    """
    metric = job.spec.metric
    limit = limit or 0.0
    costs = {trial.number: _cost(trial, metric) for trial in trials}
    scored = [trial for trial in trials if trial.score is not None]
    best = next((trial for trial in trials if job.best is not None and trial.number == job.best.trial), None)
    charts = [
        _pareto(job, scored, costs, limit, best),
        _history(scored, costs, limit),
        _training(events),
        _sensitivity(scored, model, metric == SPARSITY),
    ]
    page: str = _template().render(
        job=job,
        model=model,
        dataset=dataset,
        metric=UNITS[metric],
        limit=f"{limit:,.4g}" if metric == LATENCY_MS else f"{limit:,.0f}",
        speed=None if job.baseline is None or job.best is None else _speed(job.baseline, job.best),
        layers=[] if best is None else layer_widths(best),
        charts=[each for each in charts if each is not None],
        sizes=_sizes(job, checkpoints, trials, costs),
        guarantee=_guarantee(job, dataset),
        files=checkpoints[0].files if checkpoints else [],
        spec=json.dumps(_request(job), indent=2),
        versions={package: version(package) for package in ("secateur", "torch", "ray", "optuna")},
        short=short,
        figure=partial(figure, metric=job.metric.name),
        difference=partial(_difference, job),
        apart=_apart,
    )
    return page


@dataclass(frozen=True)
class Size:
    """A network that a job kept among several.

    Attributes:
        budgets: that it is the best network of, in words; none if it was kept beside those.
        kept: its figures.
        loss: by how much its metric is worse than the dense network's, in words.
    """

    budgets: list[str]
    kept: CheckpointView
    loss: str


def _sizes(
    job: JobView, checkpoints: Sequence[CheckpointView], trials: Sequence[Trial], costs: Mapping[int, float]
) -> list[Size]:
    """The costliest first; none of a job that kept a single network."""
    if len(checkpoints) < 2 or job.baseline is None:
        return []
    scores = {trial.number: (trial.score or 0.0, -trial.number) for trial in trials if trial.score is not None}
    asked: dict[int | None, list[str]] = {}
    for budget in () if job.spec.minimises else job.spec.budgets:
        keeping = [kept for kept in checkpoints if _keeps(budget, kept, costs)]
        if keeping:
            best = max(keeping, key=lambda kept: scores[kept.trial or 0])
            asked.setdefault(best.trial, []).append(limit_text(budget.model_dump()))
    ordered = sorted(checkpoints, key=lambda kept: -kept.budget_ratio)
    return [Size(asked.get(kept.trial, []), kept, _lost(job, job.baseline, kept)) for kept in ordered]


def _keeps(budget: Budget, kept: CheckpointView, costs: Mapping[int, float]) -> bool:
    """Whether a network is within a budget with a limit; milliseconds as they were measured."""
    if budget.max is not None:
        return (kept.latency_ms if budget.metric == LATENCY_MS else costs[kept.trial or 0]) <= budget.max
    ratio = budget.ratio or 1.0
    return kept.budget_ratio <= (1 - ratio if budget.metric == SPARSITY else ratio)


def _lost(job: JobView, dense: Figures, pruned: Figures) -> str:
    """How much worse the metric is; what it gained has a minus."""
    about = METRICS[job.metric.name]
    lost = dense.metric - pruned.metric if about.higher_is_better else pruned.metric - dense.metric
    return _difference(job, lost)


def _difference(job: JobView, value: float) -> str:
    """Of two figures of the job's metric, for people: shares in points."""
    return f"{100 * value:.2f} points".replace("-", "−") if METRICS[job.metric.name].share else f"{value:.4g}".replace("-", "−")


@dataclass(frozen=True)
class Guarantee:
    """What a constraint came to, in words.

    Attributes:
        allowed: the most that the metric may have dropped by.
        dropped: by how much it did on the test inputs.
        bound: the most that it dropped by, with the confidence of all bounds.
        inputs: that confirmed it.
    """

    allowed: str
    dropped: str
    bound: str
    inputs: int


def _guarantee(job: JobView, dataset: Dataset) -> Guarantee | None:
    if job.spec.constraint is None or job.baseline is None or job.best is None or job.best.max_drop is None:
        return None
    return Guarantee(
        _difference(job, job.spec.constraint.max_metric_drop),
        _lost(job, job.baseline, job.best),
        _difference(job, job.best.max_drop),
        dataset.inspection["splits"]["test"],
    )


@cache
def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("service.report", "templates"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html")


def _apart(figures: Figures) -> str:
    return "" if figures.latency_spread_ms is None else f" (middle half of passes within {figures.latency_spread_ms:.3f} ms)"


def _cost(trial: Trial, metric: str) -> float:
    """In the unit that users state."""
    if metric == LATENCY_MS:
        return milliseconds(trial.latency_ns) or 0.0
    return float(sum(trial.plan["widths"].values()) if metric == SPARSITY else getattr(trial, metric))


def _speed(dense: Figures, pruned: Figures) -> str:
    """What removal gained in latency, unless it could be chance."""
    share = pruned.latency_ms / dense.latency_ms
    if dense.latency_spread_ms is None or pruned.latency_spread_ms is None:
        return f"One input takes {100 * share:.1f} % of the time; how far single passes lay apart was not recorded."
    noise = (dense.latency_spread_ms + pruned.latency_spread_ms) / 2
    if abs(dense.latency_ms - pruned.latency_ms) <= noise:
        return f"The two latencies differ by less than single passes do ({noise:.3f} ms): no gain in speed is shown."
    if share > 1:
        return f"The pruned network is slower here: one input takes {100 * share:.1f} % of the time."
    return (
        f"One input takes {100 * share:.1f} % of the time: {1 / share:.2f} times as fast, beyond what single passes differ by."
    )


def _pareto(
    job: JobView, scored: Sequence[Trial], costs: Mapping[int, float], limit: float, best: Trial | None
) -> Chart | None:
    measured = [trial for trial in scored if trial.metric is not None]
    front = {point.trial for point in job.pareto}

    factor, unit = (100.0, ", %") if METRICS[job.metric.name].share else (1.0, "")

    def data(name: str, style: str, chosen: Sequence[Trial], line: bool = False) -> Data:
        ordered = sorted(chosen, key=lambda trial: costs[trial.number])
        points = [(costs[trial.number], factor * (trial.metric or 0.0)) for trial in ordered]
        titles = [f"trial {t.number}: {figure(t.metric, job.metric.name)}, {short(costs[t.number])}" for t in ordered]
        return Data(name, style, points, titles, line)

    return chart(
        f"What each trial costs, and its {job.metric.title} on the search inputs",
        UNITS[job.spec.metric],
        f"{job.metric.title}{unit}",
        [
            data("trial", "faint", _thinned([trial for trial in measured if trial.number not in front])),
            data("beaten by none", "strong", [trial for trial in measured if trial.number in front], line=True),
            data("the winner", "winner", [best] if best is not None and best.metric is not None else []),
        ],
        [(limit, "budget")],
    )


def _history(scored: Sequence[Trial], costs: Mapping[int, float], limit: float) -> Chart | None:
    within = sorted((trial for trial in scored if costs[trial.number] <= limit), key=lambda trial: trial.number)
    best, steps = -float("inf"), []
    for trial in within:
        best = max(best, trial.score or 0.0)
        steps.append((float(trial.number), best))
    dots = _thinned(within)
    return chart(
        "The search: the score of every trial within the budget, and the best so far",
        "trial",
        "score",
        [
            Data("trial", "faint", [(t.number, t.score or 0.0) for t in dots], [f"{t.number}: {t.note}" for t in dots]),
            Data("best so far", "strong", steps, line=True, steps=True, dots=False),
        ],
    )


def _training(events: Sequence[Event]) -> Chart | None:
    """The winner's fine-tuning, from what the job said of each epoch."""
    told = [event.data for event in events if "loss" in event.data]
    points = [(each["epoch"], each["loss"]) for each in told]
    titles = [f"epoch {epoch}: {loss:.4f}" for epoch, loss in points]
    loss = Data("loss", "strong", points, titles, line=True)
    return chart("Fine-tuning of the winner", "epoch", "training loss", [loss], depths=True)


def _sensitivity(scored: Sequence[Trial], model: Model, sparsity: bool) -> Chart | None:
    """What cutting one group alone costs: the groups that lose the most."""
    found = curves(scored, searched_groups(model, sparsity))
    worst = found[:_CURVES]
    return chart(
        f"Sensitivity: the score with one group of channels cut alone ({len(worst)} of {len(found)} groups)",
        "channels removed, %",
        "score",
        [
            Data(
                curve.name,
                f"hue{number}",
                [(x, y) for x, y, _ in curve.points],
                [f"{curve.name}: {x:.0f} %, {y:.3f}" for x, y, _ in curve.points],
                line=True,
            )
            for number, curve in enumerate(worst)
        ],
        depths=True,
    )


def _thinned(trials: Sequence[Trial]) -> list[Trial]:
    """As many as a plot can hold, the best-scored ones among them."""
    if len(trials) <= _MOST_DOTS:
        return list(trials)
    best = sorted(trials, key=lambda trial: -(trial.score or 0.0))[: _MOST_DOTS // 3]
    every = len(trials) // (_MOST_DOTS - len(best)) + 1
    return list({trial.number: trial for trial in [*trials[::every], *best]}.values())


def _request(job: JobView) -> dict[str, Any]:
    """What to POST to get the same network again: all that was stated, and nothing that is as by default."""
    stated = job.spec.model_dump(mode="json", exclude_defaults=True)
    return {"name": job.name, "model": job.model, "dataset": job.dataset, **stated}
