"""Lottery Ticket: prune a part, rewind, train again."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from pruners.schedules.lottery_ticket import LotteryTicketPruner
from workers.schedules.base import SCHEDULES, Schedule, Task


@SCHEDULES.register("lottery_ticket")
class LotteryTicket(Schedule):
    """Schedule: train, prune a part, put what is left back to where it began, and train again."""

    reference: ClassVar[str] = "Frankle and Carbin, The Lottery Ticket Hypothesis, arXiv 1803.03635"

    rounds: int = Field(3, ge=1, description="Of pruning.")
    epochs: int = Field(2, ge=1, description="Of training behind each round.")
    rewind: Literal["weights", "lr"] = Field("weights", description="What goes back to its beginning: the uploaded weights.")

    def run(self, task: Task) -> None:
        pruner = LotteryTicketPruner(
            task.module, task.config_list(prune_iterations=self.rounds), task.trainer.optimizer,
            rewind=self.rewind, pruning_algorithm=self.criterion, **task.options,
        )  # fmt: skip
        pruner.compress()
        for number in pruner.get_prune_iterations():
            pruner.prune_iteration_start()
            if number == 0:
                continue  # the dense network, which is trained already
            task.silence(pruner.masks)
            for epoch in range(self.epochs):
                task.train(epoch, self.epochs, f"Lottery ticket, round {number} of {self.rounds}")
