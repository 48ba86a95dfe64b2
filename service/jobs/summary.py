"""What a job's trials add up to, worked out by the database: some searches have ten thousand.

The best one and the front change when a trial is told, and so does the job's ``sequence``, or when the budget is timed. What
was worked out for one is remembered, so that a job that many look at is not worked out for each of them.
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

_State: TypeAlias = "tuple[int, int | None]"
_remembered: OrderedDict[str, tuple[_State, Scored | None, list[Scored]]] = OrderedDict()  # by job, what it last was
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
    _work_out(session, _recall(jobs, found), found)
    with _turn:
        for job in jobs:
            _remembered[job.id] = _state(job), found[job.id].best, found[job.id].front
        while len(_remembered) > REMEMBERED:
            _remembered.popitem(last=False)
    return found


def _state(job: Job) -> _State:
    return job.sequence, job.budget_limit


def _recall(jobs: Sequence[Job], found: Mapping[str, Summary]) -> list[Job]:
    """Fills in what is remembered; the jobs of which nothing is."""
    left = []
    with _turn:
        for job in jobs:
            state, best, front = _remembered.pop(job.id, (None, None, []))  # to be put back as the latest
            if state == _state(job):
                found[job.id].best, found[job.id].front = best, front
            else:
                left.append(job)
    return left


def _work_out(session: Session, jobs: Sequence[Job], found: Mapping[str, Summary]) -> None:
    by_metric: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        by_metric[_budget(job).get("metric", "macs")].append(job)
    for metric, alike in by_metric.items():
        if metric == SPARSITY:
            _add_by_hand(session, alike, found)
            continue
        ids = [job.id for job in alike]
        cost: Column = Trial.latency_ns if metric == LATENCY_MS else getattr(Trial, metric)
        for job_id, *row in session.execute(_best(ids, cost)):
            found[job_id].best = Scored(*row)
        for job_id, *row in session.execute(_front(ids, cost)):
            found[job_id].front.append(Scored(*row))
    for job in jobs:
        if (constraint := job.spec.get("constraint")) and not (_budget(job).get("ratio") or _budget(job).get("max")):
            found[job.id].best = _smallest(session, job, constraint["max_metric_drop"])


def _budget(job: Job) -> dict[str, Any]:
    """The first of a job's budgets, as it was stated."""
    budget: Any = job.spec["budget"]
    first: dict[str, Any] = budget[0] if isinstance(budget, list) else budget
    return first


def _smallest(session: Session, job: Job, most_drop: float) -> Scored | None:
    """Of a job that looks for the smallest network that keeps a constraint: the smallest so far."""
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
        summary = found[job.id]
        within = [trial for cost, trial in costly if job.budget_limit is not None and cost <= job.budget_limit]
        summary.best = max(within, key=lambda trial: (trial.score, -trial.number), default=None)
        for _, trial in sorted(costly, key=lambda entry: (entry[0], -entry[1].score, entry[1].number)):
            if not summary.front or trial.score > summary.front[-1].score:
                summary.front.append(trial)
