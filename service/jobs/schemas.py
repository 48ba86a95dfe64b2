"""Jobs as they are sent and shown."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from service.database.tables import NAME_LENGTH
from service.jobs.states import State
from service.uploads import printable
from service.webhooks.schemas import Webhook, WebhookView
from workers.spec import JobSpec, Task

EXAMPLE_SPEC: dict[str, Any] = {
    "task": {"type": "classification", "metric": "top1"},
    "budget": {"metric": "macs", "ratio": 0.5},
    "searcher": {"name": "auto", "params": {}},
    "pruner": {"name": "l1", "params": {}, "config_list": [{"op_types": ["Conv2d"]}], "round_to": 1},
    "recovery": {"batchnorm_images": 256, "final_epochs": 0, "distill": True},
    "limits": {"max_trials": 200, "max_concurrent": 2, "max_seconds": 3600},
    "resources": {"cpus": 1, "gpus": 0},
    "seed": 0,
}
EXAMPLE_MODEL, EXAMPLE_DATASET = "model-18c1b5a0c3d2e1f0a1b2c3d4", "dataset-18c1b5a0c3d2e1f0a1b2c3d4"


class JobRequest(JobSpec):
    """What to prune, with which data, how far and how."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": "resnet20-half", "model": EXAMPLE_MODEL, "dataset": EXAMPLE_DATASET, **EXAMPLE_SPEC}]
        }
    )

    name: Annotated[str, AfterValidator(printable)] | None = Field(
        None, max_length=NAME_LENGTH, description="For people; unset: the model's name."
    )
    model: str = Field(description="Id of a model.")
    dataset: str = Field(description="Id of a data set.")
    webhook: Webhook | None = Field(None, description="Where to tell what happens to the job; null: nowhere.")

    def spec(self) -> JobSpec:
        """The part that the workers act on."""
        return JobSpec.model_validate(self.model_dump(exclude={"name", "model", "dataset", "webhook"}))


class PlannedGroup(BaseModel):
    """A group of channels in a plan."""

    name: str
    width: int
    least: int = Field(description="The narrowest it may become.")
    layers: list[str]
    residual: bool
    kept_because: str | None = Field(description="Why it is not searched; null: it is.")


class PlanView(BaseModel):
    """What a job would do: `POST /jobs?dry_run=true`."""

    task: Task = Field(description="As it will be judged, the metric filled in.")
    metric: str = Field(description="The budget's; the three costs are in it.", examples=["macs"])
    dense: int | None = Field(
        description="Cost of the network as it is; the three are null for milliseconds: the job times them."
    )
    limit: int | None = Field(description="The most that the pruned network may cost; of several budgets, within the largest.")
    least: int | None = Field(description="The smallest cost that these layers allow.")
    planned_trials: int = Field(description="Of this job's own, at most.")
    given_trials: int = Field(0, description="Of the earlier job that `searcher.params.warm_start` names.")
    groups: list[PlannedGroup]


class Figures(BaseModel):
    """A finished network, measured."""

    trial: int | None = Field(description="null: the dense network.")
    metric: float = Field(description="The task's, on the test split; the job's `metric` says which and which way is better.")
    macs: int
    params: int
    size_bytes: int = Field(description="Of its `.pt2` file: weights, buffers and what describes them.")
    latency_ms: float = Field(
        description="Median for one input: on a worker if trials have a GPU or the budget is milliseconds, otherwise on one "
        "thread of the machine that ran the job."
    )
    latency_spread_ms: float | None = Field(
        None, description="Interquartile range of the passes that were timed; null: from before it was recorded."
    )
    budget_ratio: float = Field(description="Its cost in the budget's metric as a share of the dense network's.")
    max_drop: float | None = Field(
        None,
        description="Of a job with a constraint: what the metric dropped by at most against the dense network, with 95 % "
        "confidence, by paired differences on the test split.",
    )


class Counts(BaseModel):
    """Trials by state."""

    pending: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0


class Progress(BaseModel):
    """How far the search is."""

    planned: int = Field(description="Trials that there will be at most, those of an earlier job included.")
    finished: int
    succeeded: int
    failed: int
    running: int
    best_trial: int | None = Field(
        description="The highest score so far among trials within the budget (the largest, of several); of a job with a "
        "constraint alone, the smallest network that kept it on the search inputs."
    )
    best_score: float | None
    best_metric: float | None = Field(description="That trial's metric on the search inputs.")
    message: str | None = Field(description="What the job said last: an epoch of training, for instance.")


class MetricView(BaseModel):
    """What a job's `metric` figures are."""

    name: str = Field(examples=["top1"])
    title: str = Field(examples=["top-1 accuracy"], description="For people.")
    better: Literal["higher", "lower"]


class ParetoPoint(BaseModel):
    """A trial that no other one beats in both score and cost."""

    trial: int
    score: float
    metric: float | None
    macs: int
    params: int
    size_bytes: int | None = Field(description="Of weights and buffers; null: from before it was recorded.")
    latency_ms: float | None = Field(None, description="Foretold for one input, if the budget is milliseconds; otherwise null.")


class JobView(BaseModel):
    """A job, how far it is and what it found."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "job-18c1b5a0c3d2e1f0a1b2c3d4",
                    "owner": "alice",
                    "name": "resnet20-half",
                    "model": EXAMPLE_MODEL,
                    "dataset": EXAMPLE_DATASET,
                    "state": "running",
                    "reason": None,
                    "progress": {
                        "planned": 100,
                        "finished": 12,
                        "succeeded": 11,
                        "failed": 1,
                        "running": 2,
                        "best_trial": None,
                        "best_score": None,
                        "best_metric": None,
                    },
                    "metric": {"name": "top1", "title": "top-1 accuracy", "better": "higher"},
                    "baseline": None,
                    "best": None,
                    "pareto": [],
                    "counts": {"pending": 0, "running": 2, "succeeded": 11, "failed": 1},
                    "spec": EXAMPLE_SPEC,
                    "webhook": {"url": "https://example.org/hooks/secateur", "signed": True, "events": ["state"]},
                    "created_at": "2026-01-31T12:00:00Z",
                    "started_at": "2026-01-31T12:00:05Z",
                    "finished_at": None,
                    "links": {"self": "/jobs/job-18c1b5a0c3d2e1f0a1b2c3d4"},
                }
            ]
        }
    )

    id: str
    owner: str = Field(description="The user whose it is.")
    name: str
    model: str
    dataset: str
    state: State
    reason: str | None = Field(description="Why it failed, was cancelled, paused or stopped, or starts again.")
    metric: MetricView
    progress: Progress
    baseline: Figures | None = Field(description="The dense network; null until the job succeeded.")
    best: Figures | None = Field(description="The network to pull; null until the job succeeded.")
    pareto: list[ParetoPoint] = Field(description="By rising cost in the budget's metric.")
    counts: Counts
    spec: JobSpec
    webhook: WebhookView | None = Field(description="Where its events are told; null: nowhere.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    links: dict[str, str] = Field(description="Of this API; and `ray`, the job in Ray's dashboard, which asks for Ray's token.")


class ProposalView(BaseModel):
    """What a trial tries."""

    widths: dict[str, int] = Field(description="Output channels kept, per layer.", examples=[{"layer1.0.conv1": 9}])
    sparsity: dict[str, float] = Field(description="Share of them removed, per layer.")
    macs: int
    params: int
    size_bytes: int | None = Field(description="Of weights and buffers; null: from before it was recorded.")


class OutcomeView(BaseModel):
    """What came of a trial."""

    score: float | None = Field(description="What the search maximises; null: the trial failed.")
    metric: float | None = Field(description="The task's, on the search inputs; null: it failed, or ended early.")
    macs: int
    params: int
    size_bytes: int | None = Field(description="Of weights and buffers; null: from before it was recorded.")
    latency_ms: float | None = Field(description="Foretold for one input, if the budget is milliseconds; otherwise null.")
    error: str | None
    drop: float | None = Field(
        None,
        description="Of a job with a constraint: an upper bound of what the metric dropped by, as it would be with as many "
        "search inputs as there are test inputs.",
    )


class WorkerView(BaseModel):
    """Where a trial ran."""

    node: str
    pid: int


class TrainingView(BaseModel):
    """How a trial trains."""

    schedule: str | None = Field(examples=["admm"], description="That it trains by for the cut; null: it cuts at once.")
    params: dict[str, Any]
    retrain: int = Field(description="Epochs of training behind the cut.")


class LossView(BaseModel):
    """A worker that was lost with a trial."""

    at: datetime
    attempt: int = Field(description="Of the job.")
    reason: str


class TrialView(BaseModel):
    """One network that the search tried."""

    number: int
    state: str = Field(examples=["succeeded"], description="pending, running, succeeded or failed")
    note: str = Field(description="Why the searcher proposed it.")
    parent: int | None = Field(description="The trial whose network this one started from; null: the dense network.")
    training: TrainingView | None = Field(description="null: cut at once, and not trained.")
    proposal: ProposalView
    outcome: OutcomeView | None = Field(description="null: not finished.")
    started_at: datetime | None
    finished_at: datetime | None
    evaluate_seconds: float | None
    worker: WorkerView | None
    attempts: int = Field(description="Times that a worker took it up.")
    losses: list[LossView] = Field(description="Workers that were lost with it; after the fourth it counts as failed.")


class EventView(BaseModel):
    """Something that happened to a job."""

    id: int
    type: str = Field(examples=["state"], description="state, trial or progress; or webhook, which is told nobody by itself")
    data: dict[str, Any]
    created_at: datetime


class CheckpointFile(BaseModel):
    """One downloadable form of a network."""

    format: str = Field(examples=["pt2"])
    sha256: str
    size: int
    metric: float | None = Field(
        None,
        description="On the test split, of a form that computes a little otherwise (int8); null: the network's own.",
    )
    href: str


class CheckpointView(Figures):
    """A network that was kept, in figures and files."""

    files: list[CheckpointFile]
    created_at: datetime
