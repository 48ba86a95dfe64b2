"""What a report says, worked out of a job's rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from itertools import accumulate
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from pruners.cost import SPARSITY
from service.database.tables import Dataset, Event, Model, Trial
from service.jobs.figures import difference, figure, stated
from service.jobs.layers import layer_widths
from service.jobs.schemas import CheckpointView, Figures, JobView
from service.jobs.sensitivity import curves, searched_groups
from service.jobs.summary import Summary
from service.jobs.views import best_trials, milliseconds
from service.report.charts import Chart, Data, chart, short
from service.texts import UNITS
from workers.spec import LATENCY_MS
from workers.tasks import METRICS

_MOST_DOTS = 1500
"""Trials drawn one by one; of more, evenly many are, beside the best ones. A file of ten thousand would open slowly."""
_CURVES = 12  # sensitivity curves that can still be told apart


def report(
    job: JobView,
    summary: Summary,
    trials: Sequence[Trial],
    events: Sequence[Event],
    model: Model,
    dataset: Dataset,
    checkpoints: Sequence[CheckpointView],
) -> str:
    """The HTML document of a job that succeeded.

    Args:
        job: as the API shows it.
        summary: what its trials add up to.
        trials: all of them.
        events: all that it said of its work.
        model, dataset: what was uploaded.
        checkpoints: the networks that it kept.
    """
    metric = job.spec.metric
    limits = [stated(limit.most, metric) for limit in summary.limits]
    costs = {trial.number: _cost(trial, metric) for trial in trials}
    scored = [trial for trial in trials if trial.score is not None]
    best = next((trial for trial in trials if job.best is not None and trial.number == job.best.trial), None)
    charts = [
        _pareto(job, scored, costs, limits, best_trials(job, summary)),
        _history(scored, costs, limits),
        _training(events, limits),
        _sensitivity(scored, model, metric == SPARSITY),
    ]
    page: str = _template().render(
        job=job,
        model=model,
        dataset=dataset,
        metric=UNITS[metric],
        limits="; ".join(f"{limit:,.4g}" if metric == LATENCY_MS else f"{limit:,.0f}" for limit in limits),
        speed=None if job.baseline is None or job.best is None else _speed(job.baseline, job.best),
        layers=[] if best is None else layer_widths(best),
        charts=[each for each in charts if each is not None],
        sizes=_sizes(job, summary, checkpoints),
        guarantee=_guarantee(job, dataset),
        files=checkpoints[0].files if checkpoints else [],
        spec=json.dumps(_request(job), indent=2),
        versions={package: version(package) for package in ("secateur", "torch", "ray", "optuna")},
        short=short,
        figure=partial(figure, metric=job.metric.name),
        difference=partial(difference, metric=job.metric.name),
        spread=_spread,
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


def _sizes(job: JobView, summary: Summary, checkpoints: Sequence[CheckpointView]) -> list[Size]:
    """The costliest first; none of a job that kept a single network."""
    if len(checkpoints) < 2 or job.baseline is None:
        return []
    asked: dict[int | None, list[str]] = {}
    for limit, best in () if job.spec.minimises else zip(summary.limits, best_trials(job, summary), strict=True):
        asked.setdefault(best, []).append(limit.text)
    ordered = sorted(checkpoints, key=lambda kept: -kept.budget_ratio)
    return [Size(asked.get(kept.trial, []), kept, _lost(job, job.baseline, kept)) for kept in ordered]


def _lost(job: JobView, dense: Figures, pruned: Figures) -> str:
    """How much worse the metric is; what it gained has a minus."""
    about = METRICS[job.metric.name]
    lost = dense.metric - pruned.metric if about.higher_is_better else pruned.metric - dense.metric
    return difference(lost, job.metric.name)


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
        difference(job.spec.constraint.max_metric_drop, job.metric.name),
        _lost(job, job.baseline, job.best),
        difference(job.best.max_drop, job.metric.name),
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


def _spread(figures: Figures) -> str:
    return "–" if figures.latency_spread_ms is None else f"{figures.latency_spread_ms:.3f} ms"


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
    job: JobView, scored: Sequence[Trial], costs: Mapping[int, float], limits: Sequence[float], best: Sequence[int | None]
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
            data("best within the budget", "winner", [trial for trial in measured if trial.number in best]),
        ],
        [(limit, short(limit) if len(limits) > 1 else "budget") for limit in limits],
    )


def _history(scored: Sequence[Trial], costs: Mapping[int, float], limits: Sequence[float]) -> Chart | None:
    def within(limit: float) -> list[Trial]:
        return sorted((trial for trial in scored if costs[trial.number] <= limit), key=lambda trial: trial.number)

    def line(place: int, limit: float) -> Data:
        scores = accumulate((trial.score or 0.0 for trial in within(limit)), max)
        steps = [(float(trial.number), best) for trial, best in zip(within(limit), scores, strict=True)]
        name, style = ("best so far", "strong") if len(limits) == 1 else (f"best within {short(limit)}", f"hue{place}")
        return Data(name, style, steps, line=True, steps=True, dots=False)

    dots = _thinned(within(max(limits, default=0.0)))
    return chart(
        "The search: the score of every trial within the budget, and the best so far",
        "trial",
        "score",
        [
            Data("trial", "faint", [(t.number, t.score or 0.0) for t in dots], [f"{t.number}: {t.note}" for t in dots]),
            *(line(place, limit) for place, limit in enumerate(limits)),
        ],
    )


def _training(events: Sequence[Event], limits: Sequence[float]) -> Chart | None:
    """The fine-tuning of each budget's winner, the largest first, from what the job said of each epoch."""
    runs: list[list[tuple[float, float]]] = []
    for event in events:
        if "loss" not in event.data:
            continue
        epoch, loss = event.data["epoch"], event.data["loss"]
        if not runs or epoch <= runs[-1][-1][0]:
            runs.append([])
        runs[-1].append((epoch, loss))
    # Budgets that share a winner, and epochs that were done again, have no run of their own.
    names = [f"best within {short(limit)}" for limit in limits] if 1 < len(runs) == len(limits) else ["loss"] * len(runs)
    losses = [
        Data(
            name, f"hue{place}" if len(runs) > 1 else "strong", run, [f"epoch {epoch}: {loss:.4f}" for epoch, loss in run], True
        )
        for place, (name, run) in enumerate(zip(names, runs, strict=True))
    ]
    return chart(f"Fine-tuning of the winner{'s' if len(limits) > 1 else ''}", "epoch", "training loss", losses, depths=True)


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
