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
from service.database.tables import Job, Model, Trial
from service.texts import limit_text
from workers.plan import budget_of
from workers.spec import LATENCY_MS, JobSpec

Column: TypeAlias = "InstrumentedAttribute[int] | InstrumentedAttribute[int | None]"


class Scored(NamedTuple):
    """A trial that succeeded; ``cost`` is what it costs in the budgets' metric, of latency in nanoseconds."""

    number: int
    score: float
    metric: float | None
    macs: int
    params: int
    size_bytes: int | None
    latency_ns: int | None
    cost: int


class Limit(NamedTuple):
    """A budget: as it was stated, in words, and the most that a network may cost, in the unit of ``Scored.cost``."""

    text: str
    most: int


@dataclass
class Summary:
    """The trials of one job.

    Attributes:
        counts: by state.
        limits: the budgets, the largest first; none before milliseconds are timed.
        bests: within each of these, the highest score so far, of equals the earliest.
        front: those that no other one beats in both score and cost, by rising cost in the budgets' metric.
    """

    counts: dict[str, int] = field(default_factory=dict)
    limits: Sequence[Limit] = ()
    bests: list[Scored | None] = field(default_factory=list)
    front: list[Scored] = field(default_factory=list)

    @property
    def best(self) -> Scored | None:
        """Of the largest budget."""
        return self.bests[0] if self.bests else None


REMEMBERED = 1000  # jobs, of some kilobytes each: what a few users look at


@dataclass(frozen=True)
class _Known:
    """What was worked out for a job: of all trials told up to ``sequence``, under these budgets."""

    sequence: int
    limits: Sequence[Limit]
    bests: list[Scored | None]
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


def counted(session: Session, ids: Sequence[str]) -> Mapping[str, dict[str, int]]:
    """By job id, of each of these jobs, the trials by state."""
    found: dict[str, dict[str, int]] = {job_id: {} for job_id in ids}
    for job_id, state, count in session.connection().execute(_COUNTED, {"ids": ids}):
        found[job_id][state] = count
    return found


def summaries(
    session: Session, jobs: Sequence[Job], counts: Mapping[str, dict[str, int]] | None = None
) -> Mapping[str, Summary]:
    """By job id, of each of these jobs; ``counts``, if they are known, are theirs by ``counted``."""
    if counts is None:
        counts = counted(session, [job.id for job in jobs])
    found: dict[str, Summary] = {job.id: Summary(counts[job.id]) for job in jobs}
    _work_out(session, [job for job in jobs if not _recalled(session, job, found[job.id])], found)
    with _turn:
        for job in jobs:
            summary = found[job.id]
            _remembered[job.id] = _Known(job.sequence, summary.limits, summary.bests, summary.front)
        while len(_remembered) > REMEMBERED:
            _remembered.popitem(last=False)
    return found


def _recalled(session: Session, job: Job, summary: Summary) -> bool:
    """Fills in what is remembered, and what was told since; whether anything is."""
    with _turn:
        known = _remembered.pop(job.id, None)  # to be put back as the latest
    if known is None or [limit.most for limit in known.limits[:1]] != _largest(job) or known.sequence > job.sequence:
        return False
    metric = _budget(job).get("metric", "macs")
    if known.sequence < job.sequence and (metric == SPARSITY or _minimises(job)):
        return False
    summary.limits, summary.bests, summary.front = known.limits, known.bests, known.front
    if known.sequence < job.sequence:
        cost: Column = cost_column(metric)
        since = (Trial.job_id == job.id, Trial.told_sequence > known.sequence, Trial.told_sequence <= job.sequence)
        told: Iterator[Any] = iter(session.execute(select(*_SCORED, cost).where(*since, Trial.state == "succeeded")))
        _add(summary, [Scored(*trial) for trial in told])
    return True


def _largest(job: Job) -> list[int]:
    """The most that a network may cost under the largest budget; nothing while it is not timed."""
    return [] if job.budget_limit is None else [job.budget_limit]


def _add(summary: Summary, told: Sequence[Scored]) -> None:
    """Adds trials that succeeded to what is there, as the queries would have."""
    summary.bests = [
        max(
            [*([] if best is None else [best]), *(trial for trial in told if trial.cost <= limit.most)],
            key=lambda trial: (trial.score, -trial.number),
            default=None,
        )
        for limit, best in zip(summary.limits, summary.bests, strict=True)
    ]
    front, summary.front = summary.front, []
    for trial in sorted([*front, *told], key=lambda trial: (trial.cost, -trial.score, trial.number)):
        if not summary.front or trial.score > summary.front[-1].score:
            summary.front.append(trial)


def _limits(session: Session, job: Job) -> list[Limit]:
    budgets = job.spec["budget"]
    if not isinstance(budgets, list) or len(budgets) == 1:
        return [Limit(limit_text(_budget(job)), most) for most in _largest(job)]
    spec, model = JobSpec.model_validate(job.spec), session.get_one(Model, job.model_id).inspection
    dense = sum(layer["weights"] for layer in model["layers"]) if spec.metric == SPARSITY else model[spec.metric]
    limits = [Limit(limit_text(budget.model_dump()), budget_of(budget, dense).limit) for budget in spec.budgets]
    return sorted(limits, key=lambda limit: -limit.most)


def _work_out(session: Session, jobs: Sequence[Job], found: Mapping[str, Summary]) -> None:
    by_metric: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        by_metric[_budget(job).get("metric", "macs")].append(job)
        summary = found[job.id]
        summary.limits = _limits(session, job)
        summary.bests = [None] * len(summary.limits)
    for metric, alike in by_metric.items():
        if metric == SPARSITY:
            _add_by_hand(session, alike, found)
            continue
        ids = [job.id for job in alike]
        cost: Column = cost_column(metric)
        for job_id, *row in session.execute(_best(ids, cost, Job.budget_limit)):
            found[job_id].bests[0] = Scored(*row)
        for job_id in ids:
            for place, limit in enumerate(found[job_id].limits[1:], start=1):
                for _, *row in session.execute(_best([job_id], cost, limit.most)):
                    found[job_id].bests[place] = Scored(*row)
        for job_id, *row in session.execute(_front(ids, cost)):
            found[job_id].front.append(Scored(*row))
    for job in jobs:
        if _minimises(job):
            found[job.id].bests = [_smallest(session, job, job.spec["constraint"]["max_metric_drop"])]


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
    cost, keeps = cost_column(metric), Trial.metric_drop <= most_drop
    kept = select(*_SCORED, cost).where(Trial.job_id == job.id, Trial.state == "succeeded", keeps)
    rows: Iterator[Any] = iter(session.execute(kept.order_by(cost, Trial.number).limit(1)))
    return next((Scored(*row) for row in rows), None)


def _best(ids: Sequence[str], cost: Column, limit: Any) -> Select[Any]:
    """Scores over the budget would mislead: the less a trial prunes, the better it scores."""
    place = func.row_number().over(partition_by=Trial.job_id, order_by=(Trial.score.desc(), Trial.number)).label("place")
    ranked = select(Trial.job_id, *_SCORED, cost.label("cost"), place).join(Job, Job.id == Trial.job_id)
    table = ranked.where(Trial.job_id.in_(ids), Trial.state == "succeeded", cost <= limit).subquery()
    return select(*[column for column in table.c if column.key != "place"]).where(table.c.place == 1)


def _front(ids: Sequence[str], cost: Column) -> Select[Any]:
    """A trial is on it if it scores higher than all that come before it: the cheapest first, of equals the best."""
    order = (cost, Trial.score.desc(), Trial.number)
    before = func.max(Trial.score).over(partition_by=Trial.job_id, order_by=order, rows=(None, -1)).label("before")
    rows = select(Trial.job_id, *_SCORED, cost.label("cost"), before)
    table = rows.where(Trial.job_id.in_(ids), Trial.state == "succeeded").subquery()
    shown = [column for column in table.c if column.key != "before"]
    better = (table.c.before.is_(None)) | (table.c.score > table.c.before)
    return select(*shown).where(better).order_by(table.c.job_id, table.c.cost)


def _add_by_hand(session: Session, jobs: Sequence[Job], found: Mapping[str, Summary]) -> None:
    """Of jobs of sparsity, whose cost, the weights that stay, is in the plans alone; they try few."""
    for job in jobs:
        rows = session.execute(select(*_SCORED, Trial.plan).where(Trial.job_id == job.id, Trial.state == "succeeded"))
        costly = ([*scored, sum(plan["widths"].values())] for *scored, plan in rows)
        _add(found[job.id], [Scored(*trial) for trial in costly])
