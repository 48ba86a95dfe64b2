"""What a job is asked to do, as plain validated data: the part of ``POST /jobs`` that the workers act on.

Unknown fields are refused by name, so that nothing a user states is ever ignored. Imports neither torch nor ray: the
API validates with the same classes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from pruners.errors import InvalidInput

SCORING = 2
"""Version of what a trial's score means: raised when the same cut would score otherwise; scores of two are not compared."""

LATENCY_MS = "latency_ms"
"""The budget's metric that is measured before it can be searched on, in the unit that users state it in."""

_MOST_BUDGETS = 10
"""Sizes in one job: each takes its part of the trials, and its files their room in the store."""


class Strict(BaseModel):
    """Base of the spec's parts: immutable, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


METRICS_OF: dict[str, tuple[str, ...]] = {
    "classification": ("top1", "top5", "cross_entropy"),
    "regression": ("mse", "mae"),
    "label_free": ("agreement", "kl", "relative_error"),
    "custom": ("custom_score", "custom_error"),
}
"""By ``task.type``, what may be reported; the first is reported unless another one is asked for."""


class Task(Strict):
    """What the network is for, hence what is reported and what a search maximises."""

    type: Literal["classification", "regression", "label_free", "custom"] = Field(
        "classification",
        description="Searched by nearness to the dense network's outputs: of classes, −KL at the best temperature; of values, "
        "minus the squared distance as a share of their variance. label_free needs no labels at all. custom is reported "
        "by code of your own.",
    )
    metric: (
        Literal["top1", "top5", "cross_entropy", "mse", "mae", "agreement", "kl", "relative_error"]
        | Literal["custom_score", "custom_error"]
        | None
    ) = Field(
        None,
        description="What is reported. classification: top1, top5 or cross_entropy; regression: mse or mae; label_free, all "
        "against the dense network's outputs: agreement or kl of classes, relative_error of anything. null: the first of "
        "them, but relative_error where outputs are no classes. custom: custom_score (higher is better) or custom_error.",
    )
    code: str | None = Field(
        None,
        max_length=2**14,
        description="Of a custom task: Python that defines metric(outputs, labels), which returns a number, and maybe "
        "loss(outputs, labels), which returns a tensor to train by. Refused unless the operator allows it.",
    )

    @model_validator(mode="before")
    @classmethod
    def _with_metric(cls, given: Any) -> Any:
        """Without labels it depends on the network as well; see ``workers.tasks.resolved``."""
        if isinstance(given, dict) and given.get("metric") is None:
            kind = given.get("type", "classification")
            if kind in ("classification", "regression", "custom"):
                return {**given, "metric": METRICS_OF[kind][0]}
        return given

    @model_validator(mode="after")
    def _of_its_type(self) -> Self:
        if self.metric is not None and self.metric not in METRICS_OF[self.type]:
            raise ValueError(f"{self.type} reports {', '.join(METRICS_OF[self.type])}, not {self.metric}")
        if (self.type == "custom") != (self.code is not None):
            raise ValueError("code and type custom go together")
        return self


class Budget(Strict):
    """The most that the pruned network may cost: a share of the dense network or an absolute figure, never both.

    With neither it is open: as little as ``constraint`` allows.
    """

    metric: Literal["macs", "params", "size_bytes", "latency_ms", "sparsity"] = Field(
        "macs",
        description="MACs of one input, parameters, bytes of weights and buffers (a file adds what describes them), "
        "milliseconds of one input on a worker (one thread of its CPU, or its GPU), or the share of weights that are zero.",
    )
    ratio: float | None = Field(None, gt=0, lt=1, description="Share of the dense network's cost; of sparsity, of its weights.")
    max: Annotated[int, Field(gt=0)] | Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="Absolute cost, a whole number but in milliseconds; of sparsity, the weights that stay."
    )

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if self.ratio is not None and self.max is not None:
            raise ValueError("give either ratio or max")
        if self.max is not None and self.metric != LATENCY_MS and self.max % 1:
            raise ValueError(f"max counts {self.metric}; give a whole number")
        return self

    @property
    def open(self) -> bool:
        """Whether it states no limit."""
        return self.ratio is None and self.max is None


Budgets = Annotated[
    Annotated[Budget, Tag("one size")] | Annotated[tuple[Budget, ...], Tag("several sizes")],
    Discriminator(lambda sent: "several sizes" if isinstance(sent, list | tuple) else "one size"),
]
"""One or several; pydantic puts the tag into the place that an error names (``workers.plan.refusal`` leaves it out)."""


class Constraint(Strict):
    """What the pruned network must keep."""

    max_metric_drop: float = Field(
        gt=0,
        description="The most that the task's metric may get worse by, in its own unit (0.01 of top1: one point). The winner "
        "is the smallest network found for which that is certain to 95 % on the test inputs, which no search sees; the job "
        "fails if there is none. With a budget that states a limit, the network for that budget is held to it.",
    )


class SearcherChoice(Strict):
    """The search algorithm and its parameters (``GET /searchers`` lists both)."""

    name: str = "auto"
    params: dict[str, Any] = {}


class LayerRule(Strict):
    """Which layers may be pruned; of several rules the last that names a layer decides."""

    op_types: list[str] = Field([], description='Layer types such as "Conv2d"; "default" stands for every type.')
    op_names: list[str] = Field([], description="Layers by name.")
    exclude: bool = Field(False, description="Keep these layers whole instead.")

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if not self.op_types and not self.op_names:
            raise ValueError("name layers by op_types or op_names")
        return self


class PrunerChoice(Strict):
    """How channels are ranked within a group, and which layers take part."""

    name: str = "l1"
    params: dict[str, Any] = {}
    config_list: list[LayerRule] = Field([LayerRule(op_types=["default"])], min_length=1)
    round_to: int = Field(1, ge=1, description="Widths are multiples of this where the layer's own width is.")


class Recipe(Strict):
    """How networks are trained: the winner, and candidates where those are."""

    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="sgd has Nesterov momentum 0.9 and weight decay 1e-4.")
    learning_rate: float | None = Field(
        None,
        gt=0,
        description="The highest; it falls to 0 along a cosine. null: 0.02 for sgd, 0.001 for adamw. Trainings of fewer "
        "than four epochs take as much less of it, a quarter for one epoch or less.",
    )
    warmup: float = Field(0.0, ge=0, lt=1, description="Share of the steps in which the learning rate rises to it.")
    augment: tuple[Literal["flips", "crops", "cutmix"], ...] = Field(
        (),
        description="Training images are mirrored at random, or shifted by up to an eighth of their size. With cutmix, half of "
        "the batches have a rectangle of another image in each, answered by the dense network: of distillation alone.",
    )
    features: float = Field(
        0.0,
        ge=0,
        description="Weight of the loss that pulls what each layer takes in towards what it takes in in the dense network; of "
        "distillation alone.",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="Of the passes of training. In bfloat16, convolutions and products take about half the time where the "
        "processor has it (avx512_bf16, amx_bf16, GPUs since 2020; elsewhere it stays float32, and the job's events say so); "
        "weights, and the loss of outputs, stay float32.",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of a label that is spread over all classes.")
    average: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="The winner's weights are a running average that keeps this share a step; 0: the last ones.",
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="The winner's training ends behind so many epochs in a row without progress on the search split.",
    )


class Recovery(Strict):
    """What is done to a pruned network before it is judged, and to the winner in the end."""

    batchnorm_images: int = Field(256, ge=0, description="Training images for new BatchNorm statistics; 0 leaves them.")
    short_steps: int = Field(
        0,
        ge=0,
        description="Training steps of each candidate before it is judged; netadapt cuts the next one from what was trained.",
    )
    least_squares: bool | None = Field(
        None,
        description="What stays of a layer makes up for lost inputs, by least squares over training images; null: it does, but "
        "not where a schedule has trained the network for the cut.",
    )
    final_epochs: int = Field(0, ge=0, description="Epochs of fine-tuning of the winner.")
    finalists: int | None = Field(
        None,
        ge=0,
        description="Plans that scored highest, each trained for an epoch before the winner is chosen among them. They count "
        "as trials. null: 4 if final_epochs is set and max_trials is 40 or more, otherwise none.",
    )
    distill: bool = Field(True, description="Train towards the dense network's outputs, not the labels alone.")
    recipe: Recipe = Recipe()

    @model_validator(mode="after")
    def _distilled(self) -> Self:
        if self.recipe.features and not self.distill:
            raise ValueError(
                f"recipe.features {self.recipe.features} are the dense network's: set distill to true, or take it out"
            )
        if "cutmix" in self.recipe.augment and not self.distill:
            raise ValueError(
                "recipe.augment 'cutmix' makes images that only the dense network has an answer to: set distill to true, or "
                "take it out"
            )
        return self


class Limits(Strict):
    """Where a search ends at the latest."""

    max_trials: int = Field(200, ge=1)
    max_concurrent: int = Field(2, ge=1, description="Trials that run at once.")
    max_seconds: int | None = Field(
        None,
        ge=1,
        description="No trial starts after this long; time in which the job was paused or without a process is none.",
    )
    max_failed_trials: int | None = Field(
        None, ge=1, description="So many failed trials, and the job fails with what the last of them said."
    )


class Resources(Strict):
    """What one trial takes of a worker."""

    cpus: int = Field(1, ge=1)
    gpus: float = Field(
        0, ge=0, le=1, description="Share of a GPU that a trial computes on and that Ray keeps for it; 0: a CPU."
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="Of the passes of a trial's network over images. bfloat16 takes two thirds of the time where the processor "
        "has it (avx512_bf16, amx_bf16, GPUs since 2020; elsewhere it stays float32, and the job's events say so) and shifts "
        "scores a little; the winner is float32, and training is as recovery.recipe says.",
    )
    reuse: bool = Field(
        True, description="Take from earlier jobs on this model and data what evaluating again would find just the same."
    )


class Exports(Strict):
    """What there is of the best network beside ``.pt2``, ``.safetensors`` and the recipe, which are always there."""

    onnx: bool = Field(True, description="ONNX, if all of the network's operators have one there; checked in onnxruntime.")
    int8: bool = Field(
        False,
        description="ONNX of which weights and activations are 8-bit integers, calibrated on training inputs; offered if its "
        "metric on the test inputs, which its card states, is near enough to the network's.",
    )
    pareto: bool = Field(
        True,
        description="Keep other networks beside the best: those of trials that none beats in both score and cost, a tenth of "
        "the dense cost or more apart. They stay as they were scored, and have no ONNX.",
    )

    @model_validator(mode="after")
    def _int8_of_onnx(self) -> Self:
        if self.int8 and not self.onnx:
            raise ValueError("int8 is made from the ONNX file; leave onnx on")
        return self


class JobSpec(Strict):
    """Everything a job states besides the model and the data themselves."""

    task: Task = Task()
    budget: Budgets = Field(
        Budget(),
        description="Of several, all in one metric, each gets a network of its own, from one search; the largest budget's is "
        "the best one, the others are among the job's checkpoints.",
    )
    constraint: Constraint | None = None
    searcher: SearcherChoice = SearcherChoice()
    pruner: PrunerChoice = PrunerChoice()
    recovery: Recovery = Recovery()
    limits: Limits = Limits()
    resources: Resources = Resources()
    exports: Exports = Exports()
    seed: int = Field(0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _budgets_together(self) -> Self:
        """Each error names its field, which pydantic's own would not."""
        several = self.budgets[1:]
        if not self.budgets or len(self.budgets) > _MOST_BUDGETS:
            raise InvalidInput("budget", None, f"lists {len(self.budgets)} sizes; state one to {_MOST_BUDGETS}")
        if several and self.constraint is not None:
            problem = "goes with one budget, or none that states a limit; leave it out, or post a job for each size"
            raise InvalidInput("constraint", None, problem)
        if self.constraint is None and any(budget.open for budget in self.budgets):
            raise InvalidInput("budget", None, "states no limit; give ratio or max, or a constraint to minimise it under")
        if self.metric == LATENCY_MS and (several or self.minimises):
            problem = "is timed around one limit; state one budget with ratio or max, or another metric"
            raise InvalidInput("budget.metric", LATENCY_MS, problem)
        if any(budget.metric != self.metric for budget in several):
            found = ", ".join(dict.fromkeys(budget.metric for budget in self.budgets))
            raise InvalidInput("budget", None, f"lists sizes in unlike metrics ({found}); post a job for each metric")
        return self

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """All that are stated, in the order in which they are."""
        return self.budget if isinstance(self.budget, tuple) else (self.budget,)

    @property
    def metric(self) -> str:
        """The budgets'."""
        return self.budgets[0].metric

    @property
    def minimises(self) -> bool:
        """Whether the job looks for the smallest network that keeps the constraint, rather than for a given size."""
        return self.constraint is not None and self.budgets[0].open
