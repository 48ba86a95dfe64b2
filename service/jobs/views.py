"""From rows to what the API shows of a job."""

from __future__ import annotations

from collections.abc import Sequence

from pruners.cost import NANOSECONDS
from service.database.tables import Checkpoint, Event, Job, Trial
from service.jobs.schemas import (
    CheckpointFile,
    CheckpointView,
    Counts,
    EventView,
    Figures,
    JobView,
    LossView,
    MetricView,
    OutcomeView,
    ParetoPoint,
    Progress,
    ProposalView,
    TrainingView,
    TrialView,
    WorkerView,
)
from service.jobs.states import State
from service.jobs.summary import Scored, Summary
from service.webhooks.schemas import WebhookView
from workers.spec import JobSpec, Task
from workers.tasks import METRICS

_PARTS = ("trials", "events", "checkpoint", "checkpoints", "report")


def job_view(job: Job, summary: Summary, dashboard: str | None = None) -> JobView:
    """A job with what its trials add up to, and its page in Ray's dashboard."""
    spec = JobSpec.model_validate(job.spec)
    counts = Counts.model_validate(summary.counts)
    return JobView(
        id=job.id,
        owner=job.owner,
        name=job.name,
        model=job.model_id,
        dataset=job.dataset_id,
        state=State(job.state),
        reason=job.reason,
        metric=_metric(spec.task),
        progress=_progress(job, summary.best, counts),
        baseline=None if job.baseline is None else Figures.model_validate(job.baseline),
        best=None if job.best is None else Figures.model_validate(job.best),
        pareto=[_point(trial) for trial in summary.front],
        counts=counts,
        spec=spec,
        webhook=WebhookView.of(job),
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        links={"self": f"/jobs/{job.id}"}
        | {name: f"/jobs/{job.id}/{name}" for name in (*_PARTS, "cancel", "stop", "pause", "resume")}
        | ({} if dashboard is None else {"ray": dashboard}),
    )


def trial_view(trial: Trial) -> TrialView:
    """A trial; its outcome once it is known."""
    outcome = None
    if trial.told_sequence is not None:
        outcome = OutcomeView(
            score=trial.score,
            metric=trial.metric,
            macs=trial.macs,
            params=trial.params,
            size_bytes=trial.size_bytes,
            latency_ms=milliseconds(trial.latency_ns),
            error=trial.error,
            drop=trial.metric_drop,
        )
    return TrialView(
        number=trial.number,
        state=trial.state,
        note=trial.note,
        parent=trial.parent,
        training=None if trial.training is None else TrainingView.model_validate(trial.training),
        proposal=ProposalView(**trial.plan, macs=trial.macs, params=trial.params, size_bytes=trial.size_bytes),
        outcome=outcome,
        started_at=trial.started_at,
        finished_at=trial.finished_at,
        evaluate_seconds=trial.evaluate_seconds,
        worker=None if trial.node is None or trial.pid is None else WorkerView(node=trial.node, pid=trial.pid),
        attempts=trial.attempts,
        losses=[LossView.model_validate(loss) for loss in trial.losses],
    )


def best_trial(job: JobView) -> int | None:
    """That of the best network of the largest budget: the one that was kept, once the job has succeeded."""
    return job.progress.best_trial if job.best is None else job.best.trial


def best_trials(job: JobView, summary: Summary) -> list[int | None]:
    """By budget, the largest first, that of the best network so far."""
    return [best_trial(job), *(best and best.number for best in summary.bests[1:])]


def kept_figures(job: Job) -> list[Figures]:
    """Of all networks that a job kept, the best one first."""
    return [Figures.model_validate(figures) for figures in job.kept or ([] if job.best is None else [job.best])]


def event_view(event: Event) -> EventView:
    """An event."""
    return EventView(id=event.id, type=event.type, data=event.data, created_at=event.created_at)


def checkpoint_views(job: Job, files: Sequence[Checkpoint]) -> list[CheckpointView]:
    """The networks that a job kept, the best one first, each in all of its forms."""
    if not files or job.best is None:
        return []
    views = []
    for figures in job.kept or [job.best]:
        own = [file for file in files if file.trial == figures["trial"]]
        href = f"/jobs/{job.id}/checkpoint?trial={figures['trial']}&format="
        forms = [
            CheckpointFile(format=file.format, sha256=file.sha256, size=file.size, metric=file.metric, href=href + file.format)
            for file in own
        ]
        views.append(CheckpointView(**figures, files=forms, created_at=own[0].created_at))
    return views


def _metric(task: Task) -> MetricView:
    name = str(task.metric)
    metric = METRICS[name]
    return MetricView(name=name, title=metric.title, better="higher" if metric.higher_is_better else "lower")


def _progress(job: Job, best: Scored | None, counts: Counts) -> Progress:
    return Progress(
        planned=job.planned_trials,
        finished=counts.succeeded + counts.failed,
        succeeded=counts.succeeded,
        failed=counts.failed,
        running=counts.running,
        best_trial=best and best.number,
        best_score=best and best.score,
        best_metric=best and best.metric,
        message=job.message,
    )


def _point(trial: Scored) -> ParetoPoint:
    return ParetoPoint(
        trial=trial.number,
        score=trial.score,
        metric=trial.metric,
        macs=trial.macs,
        params=trial.params,
        size_bytes=trial.size_bytes,
        latency_ms=milliseconds(trial.latency_ns),
    )


def milliseconds(nanoseconds: int | None) -> float | None:
    """A latency as it is stated."""
    return None if nanoseconds is None else nanoseconds / NANOSECONDS
