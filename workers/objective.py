"""Which objective a task has; that of a custom one is code of its sender's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pruners.errors import JobFailed, reason
from workers.quality import Objective, OfClasses, OfValues
from workers.spec import Task
from workers.tasks import functions_of, is_classes, resolved
from workers.time_limit import TimeLimitReached, time_limit

CALL_SECONDS = 60.0  # for a call of task.code: a metric takes milliseconds, one that matches thousands of boxes some seconds


def make_objective(task: Task, reference: Tensor) -> Objective:
    """A task's objective.

    Args:
        task: as the job states it.
        reference: outputs of the dense network, enough to tell how much they vary.
    """
    task = resolved(task, tuple(reference.shape))
    if task.code is not None:
        return OfCode(task, task.code, reference)
    if task.type == "regression" or task.metric == "relative_error":
        return OfValues(task, reference)
    return OfClasses(task)


class CodeFailed(JobFailed, ValueError):
    """What a custom task's code did wrong: a trial fails with it, and so does a job whose end it is."""


class OfCode(Objective):
    """What is reported, and maybe the loss, are functions of ``task.code``; what it leaves open is as the outputs are.

    Args:
        task: with its metric.
        code: is run here.
        reference: outputs of the dense network.

    Raises:
        CodeFailed: by itself, or in any of its functions.
    """

    def __init__(self, task: Task, code: str, reference: Tensor) -> None:
        super().__init__(task)
        self._functions: dict[str, Any] = {"__name__": "task", "torch": torch}
        defined = functions_of(code)
        self._called(lambda: exec(compile(code, "task.code", "exec"), self._functions))  # noqa: S102  (what it is for)
        self._like: Objective = OfClasses(task) if is_classes(tuple(reference.shape)) else OfValues(task, reference)
        self.learns_labels = "loss" in defined

    def figures(self, outputs: Tensor, reference: Tensor, labels: Tensor) -> Tensor:
        value: float = self._called(lambda: float(self._functions["metric"](outputs.float(), labels)))
        return torch.tensor([value], dtype=torch.float64)

    def labels(self, labels: Tensor | None, reference: Tensor) -> Tensor:
        return self._like.answers(reference) if labels is None else labels

    def distances(self, outputs: Tensor, reference: Tensor) -> Tensor:
        return self._like.distances(outputs, reference)

    def answers(self, reference: Tensor) -> Tensor:
        return self._like.answers(reference)

    def loss(self, outputs: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
        if not self.learns_labels:
            return self._like.loss(outputs, labels, smoothing)
        found: Tensor = self._called(lambda: self._functions["loss"](outputs, labels))
        return found

    def soft_loss(self, outputs: Tensor, reference: Tensor) -> Tensor:
        return self._like.soft_loss(outputs, reference)

    def _called(self, function: Callable[[], Any]) -> Any:
        try:
            with time_limit(CALL_SECONDS):
                return function()
        except TimeLimitReached as error:
            raise CodeFailed(f"task.code took more than {CALL_SECONDS:g} s for one call.") from error
        except Exception as error:
            raise CodeFailed(f"task.code failed with {type(error).__name__}: {reason(error)}.") from error
