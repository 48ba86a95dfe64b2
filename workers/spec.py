"""What a job is asked to do, as plain validated data: the part of ``POST /jobs`` that the workers act on.

Unknown fields are refused by name, so that nothing a user states is ever ignored. Imports neither torch nor ray: the
API validates with the same classes.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

SCORING = 2
"""Version of what a trial's score means: raised when the same cut would score otherwise; scores of two are not compared."""


class Strict(BaseModel):
    """Base of the spec's parts: immutable, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Task(Strict):
    """What the network is for, hence how it is scored."""

    type: Literal["classification"] = Field(
        "classification",
        description="Top-1 accuracy is reported; searched by −KL to the dense network at the best temperature.",
    )


class Budget(Strict):
    """The most that the pruned network may cost: a share of the dense network or an absolute figure, never both."""

    metric: Literal["macs", "params", "size_bytes", "sparsity"] = Field(
        "macs",
        description="MACs of one input, parameters, bytes of weights and buffers (a file adds what describes them), or the "
        "share of weights that are zero.",
    )
    ratio: float | None = Field(None, gt=0, lt=1, description="Share of the dense network's cost; of sparsity, of its weights.")
    max: int | None = Field(None, gt=0, description="Absolute cost; of sparsity, the weights that stay.")

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.ratio is None) == (self.max is None):
            raise ValueError("give either ratio or max")
        return self


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
        "has it (avx512_bf16, amx_bf16, GPUs since 2020) and shifts scores a little; training and the winner are float32.",
    )
    reuse: bool = Field(
        True, description="Take from earlier jobs on this model and data what evaluating again would find just the same."
    )


class JobSpec(Strict):
    """Everything a job states besides the model and the data themselves."""

    task: Task = Task()
    budget: Budget
    searcher: SearcherChoice = SearcherChoice()
    pruner: PrunerChoice = PrunerChoice()
    recovery: Recovery = Recovery()
    limits: Limits = Limits()
    resources: Resources = Resources()
    seed: int = Field(0, ge=0, lt=2**31)
