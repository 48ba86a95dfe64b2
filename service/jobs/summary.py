"""What a job's trials add up to, worked out by the database: some searches have ten thousand.

The best one and the front change when a trial is told, and so does the job's ``sequence``, or when the budget is timed. What
was worked out is remembered, and trials told since are added to it: a job that many look at while it runs is worked out once,
not for each of them and not anew after each trial.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy import Select, bindparam, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from pruners.cost import SPARSITY
from service.database.tables import Job, Trial
from workers.spec import LATENCY_MS

Column: TypeAlias = "InstrumentedAttribute[int] | InstrumentedAttribute[int | None]"


class Scored(NamedTuple):
    """A trial that succeeded."""

    number: int
    score: float
    metric: float | None
    macs: int
    params: int
    size_bytes: int | None
    latency_ns: int | None


_Costly: TypeAlias = "tuple[int, Scored]"  # with what it costs in the budget's metric


@dataclass
class Summary:
    """The trials of one job.

    Attributes:
        counts: by state.
        best: the highest score within the budget, of equals the earliest.
        front: those that no other one beats in both score and cost, by rising cost in the budget's metric.
    """

    counts: dict[str, int] = field(default_factory=dict)
    best: Scored | None = None
    front: list[Scored] = field(default_factory=list)


REMEMBERED = 1000  # jobs, of some kilobytes each: what a few users look at


@dataclass(frozen=True)
class _Known:
    """What was worked out for a job: of all trials told up to ``sequence``, under a budget of ``limit``."""

    sequence: int
    limit: int | None
    best: Scored | None
    front: list[Scored]


_remembered: OrderedDict[str, _Known] = OrderedDict()  # by job
_turn = threading.Lock()

_TRIALS = Trial.__table__.c
# Every look at a job asks this anew, of the bare table: what a session does around a query takes longer than this one.
_COUNTED = (
    select(_TRIALS.job_id, _TRIALS.state, func.count())
    .where(_TRIALS.job_id.in_(bindparam("ids", expanding=True)))
    .group_by(_TRIALS.job_id, _TRIALS.state)
)
_SCORED = (Trial.number, Trial.score, Trial.metric, Trial.macs, Trial.params, Trial.size_bytes, Trial.latency_ns)


def summaries(session: Session, jobs: Sequence[Job]) -> Mapping[str, Summary]:
    """By job id, of each of these jobs."""
    found: dict[str, Summary] = {job.id: Summary() for job in jobs}
    for job_id, state, count in session.connection().execute(_COUNTED, {"ids": list(found)}):
        found[job_id].counts[state] = count
    _work_out(session, [job for job in jobs if not _recalled(session, job, found[job.id])], found)
    with _turn:
        for job in jobs:
            _remembered[job.id] = _Known(job.sequence, job.budget_limit, found[job.id].best, found[job.id].front)
        while len(_remembered) > REMEMBERED:
            _remembered.popitem(last=False)
    return found


def _recalled(session: Session, job: Job, summary: Summary) -> bool:
    """Fills in what is remembered, and what was told since; whether anything is."""
    with _turn:
        known = _remembered.pop(job.id, None)  # to be put back as the latest
    if known is None or known.limit != job.budget_limit or known.sequence > job.sequence:
        return False
    metric = _budget(job).get("metric", "macs")
    if known.sequence < job.sequence and (metric == SPARSITY or _minimises(job)):
        return False
    summary.best, summary.front = known.best, known.front
    if known.sequence < job.sequence:
        cost: Column = cost_column(metric)
        since = (Trial.job_id == job.id, Trial.told_sequence > known.sequence, Trial.told_sequence <= job.sequence)
        told: Iterator[Any] = iter(session.execute(select(*_SCORED, cost).where(*since, Trial.state == "succeeded")))
        new = [(trial[-1], Scored(*trial[:-1])) for trial in told]
        old = [(getattr(trial, cost.key), trial) for trial in summary.front]
        _add(summary, old, new, job.budget_limit)
    return True


def _add(summary: Summary, front: Sequence[_Costly], told: Sequence[_Costly], limit: int | None) -> None:
    """Adds trials that succeeded to what is there, as the queries would have."""
    within = [trial for cost, trial in told if limit is not None and cost <= limit]
    best = [] if summary.best is None else [summary.best]
    summary.best = max([*best, *within], key=lambda trial: (trial.score, -trial.number), default=None)
    summary.front = []
    for _, trial in sorted([*front, *told], key=lambda entry: (entry[0], -entry[1].score, entry[1].number)):
        if not summary.front or trial.score > summary.front[-1].score:
            summary.front.append(trial)


def _work_out(session: Session, jobs: Sequence[Job], found: Mapping[str, Summary]) -> None:
    by_metric: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        by_metric[_budget(job).get("metric", "macs")].append(job)
    for metric, alike in by_metric.items():
        if metric == SPARSITY:
            _add_by_hand(session, alike, found)
            continue
        ids = [job.id for job in alike]
        cost: Column = cost_column(metric)
        for job_id, *row in session.execute(_best(ids, cost)):
            found[job_id].best = Scored(*row)
        for job_id, *row in session.execute(_front(ids, cost)):
            found[job_id].front.append(Scored(*row))
    for job in jobs:
        if _minimises(job):
            found[job.id].best = _smallest(session, job, job.spec["constraint"]["max_metric_drop"])


def cost_column(metric: str) -> Any:
    """The column of trials that holds what a budget's metric counts; of sparsity the plan, in which it is."""
    return getattr(Trial, {LATENCY_MS: "latency_ns", SPARSITY: "plan"}.get(metric, metric))


def _minimises(job: Job) -> bool:
    """Whether it looks for the smallest network that keeps a constraint."""
    budget = _budget(job)
    return bool(job.spec.get("constraint")) and not (budget.get("ratio") or budget.get("max"))


def _budget(job: Job) -> dict[str, Any]:
    """The first of a job's budgets, as it was stated."""
    budget: Any = job.spec["budget"]
    first: dict[str, Any] = budget[0] if isinstance(budget, list) else budget
    return first


def _smallest(session: Session, job: Job, most_drop: float) -> Scored | None:
    """Of a job that minimises: the smallest network so far."""
    metric = _budget(job).get("metric", "macs")
    if metric == SPARSITY:
        return None
    kept = select(*_SCORED).where(Trial.job_id == job.id, Trial.state == "succeeded", Trial.metric_drop <= most_drop)
    rows: Iterator[Any] = iter(session.execute(kept.order_by(getattr(Trial, metric), Trial.number).limit(1)))
    return next((Scored(*row) for row in rows), None)


def _best(ids: Sequence[str], cost: Column) -> Select[Any]:
    """Scores over the budget would mislead: the less a trial prunes, the better it scores."""
    place = func.row_number().over(partition_by=Trial.job_id, order_by=(Trial.score.desc(), Trial.number)).label("place")
    ranked = select(Trial.job_id, *_SCORED, place).join(Job, Job.id == Trial.job_id)
    table = ranked.where(Trial.job_id.in_(ids), Trial.state == "succeeded", cost <= Job.budget_limit).subquery()
    return select(*[column for column in table.c if column.key != "place"]).where(table.c.place == 1)


def _front(ids: Sequence[str], cost: Column) -> Select[Any]:
    """A trial is on it if it scores higher than all that come before it: the cheapest first, of equals the best."""
    order = (cost, Trial.score.desc(), Trial.number)
    before = func.max(Trial.score).over(partition_by=Trial.job_id, order_by=order, rows=(None, -1)).label("before")
    rows = select(Trial.job_id, *_SCORED, before, cost.label("cost"))
    table = rows.where(Trial.job_id.in_(ids), Trial.state == "succeeded").subquery()
    shown = [column for column in table.c if column.key not in ("before", "cost")]
    better = (table.c.before.is_(None)) | (table.c.score > table.c.before)
    return select(*shown).where(better).order_by(table.c.job_id, table.c.cost)


def _add_by_hand(session: Session, jobs: Sequence[Job], found: Mapping[str, Summary]) -> None:
    """Of jobs of sparsity, whose cost, the weights that stay, is in the plans alone; they try few."""
    for job in jobs:
        rows = session.execute(select(*_SCORED, Trial.plan).where(Trial.job_id == job.id, Trial.state == "succeeded"))
        costly = [(sum(plan["widths"].values()), Scored(*scored)) for *scored, plan in rows]
        _add(found[job.id], [], costly, job.budget_limit)
