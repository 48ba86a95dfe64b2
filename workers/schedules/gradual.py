"""AGP and linear: sparsity grows from epoch to epoch while the network trains."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from pruners.schedules.agp import AGPPruner
from pruners.schedules.gradual import GradualPruner
from pruners.schedules.linear import LinearPruner
from workers.schedules.base import SCHEDULES, Schedule, Task


class Gradual(Schedule):
    """Base of the schedules whose sparsity follows a curve over the epochs."""

    epochs: int = Field(6, ge=2, description="Of training; the last one at the full sparsity.")

    def gradually(self, task: Task, kind: type[GradualPruner]) -> None:
        """Trains with sparsity growing from epoch to epoch."""
        config = [
            {"final_sparsity": share, "op_names": [layer], "end_epoch": self.epochs + 1}
            for layer, share in task.sparsity.items()
        ]
        pruner = kind(task.module, config, task.trainer.optimizer, self.criterion, **task.options)
        for epoch in range(1, self.epochs + 1):  # epoch 0 would train the dense network, which is trained already
            pruner.update_epoch(epoch)
            task.silence(pruner.masks)
            mean = sum(pruner.sparsity_at(epoch).values()) / max(len(task.sparsity), 1)
            task.train(epoch - 1, self.epochs, f"{kind.__name__.removesuffix('Pruner')} at {mean:.0%} sparsity")


@SCHEDULES.register("agp")
class AGP(Gradual):
    """Schedule: sparsity grows while the network trains, fast at first and slower towards the end."""

    reference: ClassVar[str] = "Zhu and Gupta, To Prune, or Not to Prune, arXiv 1710.01878"

    def run(self, task: Task) -> None:
        self.gradually(task, AGPPruner)


@SCHEDULES.register("linear")
class Linear(Gradual):
    """Schedule: sparsity grows by the same amount every epoch while the network trains; the control for agp."""

    reference: ClassVar[str] = "Control: the straight line between no sparsity and all of it."

    def run(self, task: Task) -> None:
        self.gradually(task, LinearPruner)
