"""ADMM: training prepares the network for the cut."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import nn

from pruners.schedules.admm import ADMMPruner
from workers.schedules.base import SCHEDULES, Schedule, Task


@SCHEDULES.register("admm")
class ADMM(Schedule):
    """Schedule: training pulls the weights towards a pruned copy of themselves, then what the copy lost is cut."""

    reference: ClassVar[str] = "Zhang et al., A Systematic DNN Weight Pruning Framework using ADMM, arXiv 1804.03294"

    criterion: Literal["l1", "l2"] = Field("l2", description="The norm by which channels go.")
    iterations: int = Field(3, ge=1, description="How often the pruned copy is renewed.")
    epochs: int = Field(2, ge=1, description="Of training in each iteration.")
    rho: float = Field(0.1, gt=0, description="How hard the weights are pulled at first.")
    rho_growth: float = Field(1.5, ge=1, description="By what rho is multiplied behind each iteration.")

    def run(self, task: Task) -> None:
        done = iter(range(self.iterations * self.epochs))

        def train(model: nn.Module, **_: Any) -> None:
            task.train(next(done), self.iterations * self.epochs, "ADMM")

        pruner = ADMMPruner(
            task.module, task.config_list(), train, self.iterations, self.epochs, self.rho, self.criterion,
            optimizer=task.trainer.optimizer, rho_growth=self.rho_growth, **task.options,
        )  # fmt: skip
        pruner.compress()
        task.silence(pruner.masks)
