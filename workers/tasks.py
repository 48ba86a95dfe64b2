"""What networks are for, hence by which figure they are reported, and whether model and data are up to it.

The API checks jobs with this before it accepts them. Imports neither torch nor ray.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pruners.errors import InvalidInput
from workers.spec import JobSpec, Task

_TOP = 5  # of top5


@dataclass(frozen=True)
class Metric:
    """A figure of merit.

    Attributes:
        title: its name in tables.
        higher_is_better: whether the largest figure is the best one; otherwise the smallest is.
        share: whether it is a share of rows, 0…1.
        by_input: whether it is a mean over inputs.
    """

    title: str
    higher_is_better: bool
    share: bool = False
    by_input: bool = True

    def better(self, one: float, other: float) -> bool:
        """Whether the one figure is better than the other."""
        return one > other if self.higher_is_better else one < other


METRICS = {
    "top1": Metric("top-1 accuracy", True, share=True),
    "top5": Metric("top-5 accuracy", True, share=True),
    "cross_entropy": Metric("cross-entropy", False),
    "mse": Metric("MSE", False),
    "mae": Metric("MAE", False),
    "agreement": Metric("agreement", True, share=True),
    "kl": Metric("KL", False),
    "relative_error": Metric("relative error", False, by_input=False),
    "custom_score": Metric("custom score", True, by_input=False),
    "custom_error": Metric("custom error", False, by_input=False),
}
"""By name, what ``task.metric`` may be."""


def resolved(task: Task, output: Sequence[int | None]) -> Task:
    """The task with its metric: without labels that depends on what the network returns.

    Args:
        task: as it was sent.
        output: shape of the network's outputs, batch first.
    """
    if task.metric is not None:
        return task
    return task.model_copy(update={"metric": "agreement" if is_classes(output) else "relative_error"})


def check_task(spec: JobSpec, outputs: Sequence[Mapping[str, Any]], data: Mapping[str, Any]) -> Task:
    """The job's task with its metric, once model and data are found to fit it.

    Args:
        spec: the job's.
        outputs: ``outputs`` of ``workers.inspection.inspect_model``.
        data: what ``workers.formats.convert.convert`` found.

    Raises:
        InvalidInput: the first thing that does not fit.
    """
    output = outputs[0]["shape"]
    task = resolved(spec.task, output)
    if task.metric in ("top1", "top5", "cross_entropy", "agreement", "kl") and not is_classes(output):
        other = "task.type regression" if task.type == "classification" else "task.metric relative_error"
        problem = f"goes with outputs of shape [batch, classes], but the model returns {_show(output)}; use {other}"
        raise InvalidInput("task.metric", task.metric, problem)
    if task.metric == "top5" and output[1] <= _TOP:
        raise InvalidInput("task.metric", "top5", f"is always 1 for a model of {output[1]} classes; use top1")
    if task.code is not None:
        _check_code(spec, task.code)
    elif task.type == "label_free":
        _check_label_free(spec, task)
    elif data["targets"] is None:
        problem = f"has no labels, which {task.type} needs; add them, or use task.type label_free"
        raise InvalidInput("dataset", None, problem)
    elif task.type == "classification":
        _check_classes(output[1], data)
    else:
        _check_targets(output, data["targets"])
    rewarded = spec.searcher.name == "amc" and spec.searcher.params.get("reward") == "guaranteed"
    if rewarded and not METRICS[str(task.metric)].share:
        problem = f"needs an accuracy to guarantee, which {task.metric} is not; leave it out"
        raise InvalidInput("searcher.params.reward", "guaranteed", problem)
    return task


def functions_of(code: str) -> set[str]:
    """The names of the functions that a custom task's code defines, read and not run.

    Raises:
        InvalidInput: it is no Python, or defines no ``metric``.
    """
    try:
        parts = ast.parse(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InvalidInput("task.code", None, f"is no Python: {error}") from error
    names = {part.name for part in parts if isinstance(part, ast.FunctionDef)}
    if "metric" not in names:
        raise InvalidInput("task.code", None, "defines no function metric(outputs, labels); add it")
    return names


def _check_code(spec: JobSpec, code: str) -> None:
    if "loss" not in functions_of(code) and not spec.recovery.distill:
        problem = "leaves nothing to train towards where task.code defines no loss(outputs, labels); leave it out, or add one"
        raise InvalidInput("recovery.distill", False, problem)


def _check_label_free(spec: JobSpec, task: Task) -> None:
    if not spec.recovery.distill:
        problem = "leaves nothing to train towards where there are no labels; leave it out"
        raise InvalidInput("recovery.distill", False, problem)
    if spec.pruner.name == "taylorfo" and task.metric == "relative_error":
        problem = "asks for the slope towards the labels, which is 0 towards the network's own outputs; use another pruner"
        raise InvalidInput("pruner.name", "taylorfo", problem)


def _check_classes(classes: int, data: Mapping[str, Any]) -> None:
    if data["labels"] is None:
        found = data["targets"]
        problem = f"has {found['dtype']} targets of shape {found['shape']}, not one class number for each input"
        raise InvalidInput("dataset", None, f"{problem}; use task.type regression, or number the classes from 0")
    lowest, highest = data["labels"]
    if lowest < 0 or highest >= classes:
        wrong = lowest if lowest < 0 else highest
        problem = f"has the label {wrong}, but the model's {classes} outputs stand for labels 0 to {classes - 1}"
        raise InvalidInput("dataset", None, f"{problem}; renumber the labels")


def _check_targets(output: Sequence[int | None], targets: Mapping[str, Any]) -> None:
    wanted, found = list(output[1:]), targets["shape"]
    if wanted != found and not (wanted in ([], [1]) and found in ([], [1])):
        problem = f"has targets of shape {found}, but the model returns {_show(output)}; make them alike"
        raise InvalidInput("dataset", None, problem)


def is_classes(output: Sequence[int | None]) -> bool:
    """Whether outputs of this shape may be classes: ``[batch, classes]``."""
    return len(output) == 2 and output[1] is not None and output[1] > 1


def _show(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("batch" if size is None else str(size) for size in shape) + "]"
