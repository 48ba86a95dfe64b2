"""``/metrics`` for Prometheus: what this process answered, and what the rows of all jobs add up to.

Only totals are shown: no user, job or model is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.types import Scope

from service.database import Database, now
from service.database.tables import Delivery, Job, Trial
from service.jobs.states import State
from workers.spec import JobSpec

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}  # what else is sent is one label
_TRIAL_STATES = ("pending", "running", "succeeded", "failed")
_WAIT_BUCKETS = (1, 5, 30, 60, 300, 900, 3600, 6 * 3600, 24 * 3600)  # seconds: a start takes some, a queue hours


class RequestMetrics:
    """Counts and times of this process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        labels = ("method", "route", "status")
        self._requests = Counter("secateur_http_requests", "Calls that were answered.", labels, registry=self.registry)
        self._seconds = Histogram(
            "secateur_http_request_seconds", "From a call to the end of its answer.", labels[:2], registry=self.registry
        )
        self._waits = Histogram(
            "secateur_queue_seconds",
            "From a job's creation to the beginning of its first attempt, of jobs that this service started.",
            buckets=_WAIT_BUCKETS,
            registry=self.registry,
        )

    def observe(self, scope: Scope, status: int | None, seconds: float) -> None:
        """A call that is over; without a status its caller went away before the answer."""
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = getattr(scope.get("route"), "path", "none")  # the template: a label per job would be without end
        self._requests.labels(method, route, str(status or "none")).inc()
        self._seconds.labels(method, route).observe(seconds)

    def waited(self, wait: timedelta) -> None:
        """A job that left the queue."""
        self._waits.observe(wait.total_seconds())


class RowMetrics(Collector):
    """What the rows say, asked when it is wanted; the same from every service on one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def collect(self) -> Iterator[Metric]:
        """Raises ``DatabaseAway``."""
        with self._database.read() as session:
            jobs: dict[str, int] = dict(session.execute(select(Job.state, func.count()).group_by(Job.state)).all())
            seconds = func.sum(Trial.evaluate_seconds), func.count(Trial.evaluate_seconds)
            trials = session.execute(select(Trial.state, func.count(), *seconds).group_by(Trial.state)).all()
            slots, busy = slots_and_busy(session)
            oldest = session.scalar(select(func.min(Job.created_at)).where(Job.state == State.QUEUED))
            untold = session.scalar(select(func.count()).select_from(Delivery)) or 0
            age = 0.0 if oldest is None else (now(session) - oldest).total_seconds()
        by_state = {state: count for state, count, _, _ in trials}
        yield _by_state("secateur_jobs", "Jobs on record.", {state: jobs.get(state, 0) for state in State})
        yield _by_state("secateur_trials", "Trials on record.", {state: by_state.get(state, 0) for state in _TRIAL_STATES})
        yield SummaryMetricFamily(
            "secateur_evaluation_seconds",
            "Evaluations of the trials on record; both fall when a job is deleted.",
            count_value=sum(count for *_, count in trials),
            sum_value=sum(total or 0.0 for _, _, total, _ in trials),
        )
        yield GaugeMetricFamily("secateur_oldest_queued_seconds", "Since the longest waiting job was made; 0: none waits.", age)
        yield GaugeMetricFamily("secateur_webhook_deliveries_waiting", "Events that webhooks are still to be told.", untold)
        yield GaugeMetricFamily("secateur_workers", "Trials that running jobs may run at once.", slots)
        yield GaugeMetricFamily("secateur_workers_busy", "Trials that run.", busy)
        share = busy / slots if slots else 0.0
        yield GaugeMetricFamily("secateur_worker_busy_share", "Of the former, of the latter; 0: no job runs.", share)


def slots_and_busy(session: Session) -> tuple[int, int]:
    """Trials that running jobs may run at once, and those that run."""
    searching = select(Job.spec).where(Job.state.in_((State.RUNNING, State.STOPPING)))
    slots = sum(JobSpec.model_validate(spec).limits.max_concurrent for spec in session.scalars(searching))
    return slots, session.scalar(select(func.count()).select_from(Trial).where(Trial.state == "running")) or 0


def _by_state(name: str, text: str, counts: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=["state"])
    for state, count in counts.items():
        family.add_metric([str(state)], count)
    return family
