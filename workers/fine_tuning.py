"""The winner's training: epoch by epoch, watched on the search split, and gone on with where a lost process left it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor, fx, nn

from workers.augment import redrawn
from workers.data import Split
from workers.pruned import save_whole
from workers.quality import Objective, Quality
from workers.spec import Recovery
from workers.training import Progress, Trainer

Weights = dict[str, Tensor]


class _Saved(TypedDict):
    """What a file holds: how far the training is, and the best that it came to."""

    epoch: int
    trainer: Progress
    weights: Weights
    average: Weights
    best: Weights
    best_figures: tuple[float, float]
    idle: int


class FineTuning:
    """Trains a network in place for some epochs, and leaves it as it was best on the search split.

    Best is what is nearest to the dense network, or by the metric where training is by the labels alone; the network before the
    training is among those compared. They are compared on images changed as the recipe changes those that it trains on: the
    network as cut was chosen on the images as they are.

    Args:
        network: what is trained.
        trainer: of it, a fresh one.
        judge: how a network does on a split.
        search: that split.
        objective: says which metric is better.
        recovery: the job's: epochs, distillation, recipe.
        file: written behind every epoch; training goes on from what an earlier process left in it. Of this network alone.
        progress: told one line after each epoch, with the figures in it by name.
    """

    def __init__(
        self,
        network: fx.GraphModule,
        trainer: Trainer,
        judge: Callable[[fx.GraphModule, Split], Quality],
        search: Split,
        objective: Objective,
        recovery: Recovery,
        file: Path,
        progress: Callable[..., None],
    ) -> None:
        self._network = network
        self._trainer = trainer
        self._judge = judge
        self._search = search
        self._compared = redrawn(search, recovery.recipe.augment)
        self._objective = objective
        self._recovery = recovery
        self._file = file
        self._progress = progress
        self._averaged = copy.deepcopy(network) if recovery.recipe.average else network

    def run(self) -> None:
        """To its end."""
        recipe, epochs = self._recovery.recipe, self._recovery.final_epochs
        state = self._begun()
        scheduler = self._trainer.falling(epochs * self._trainer.steps, state["epoch"] * self._trainer.steps)

        def after_step() -> None:
            scheduler.step()
            if recipe.average:
                _mix(self._averaged, self._network, recipe.average)

        while state["epoch"] < epochs and (recipe.patience is None or state["idle"] < recipe.patience):
            loss = self._trainer.epoch(after_step)
            state["epoch"] += 1
            judged = self._averaged.eval()
            quality = self._judge(judged, self._search)
            said = f"{self._objective.metric.title} {quality.metric:.4f} on the search split"
            self._progress(
                f"Fine-tuning: epoch {state['epoch']} of {epochs}, loss {loss:.4f}, {said}.",
                epoch=state["epoch"],
                epochs=epochs,
                loss=loss,
                metric=quality.metric,
            )
            alike = self._compared is self._search
            figures = self._figures(quality if alike else self._judge(judged, self._compared))
            state["idle"] += 1
            if figures > state["best_figures"]:
                state |= {"best": _copy(judged), "best_figures": figures, "idle": 0}
            state |= {
                "trainer": self._trainer.progress(),
                "weights": self._network.state_dict(),
                "average": judged.state_dict(),
            }
            save_whole(state, self._file)
        if state["epoch"] < epochs:
            self._progress(f"Fine-tuning ends: no progress on the search split in {state['idle']} epochs.")
        self._network.load_state_dict(state["best"])
        self._network.eval()

    def _begun(self) -> _Saved:
        """Where the last process left the training, or its beginning."""
        if self._file.exists():
            saved: _Saved = torch.load(self._file, map_location="cpu", weights_only=True)
            self._network.load_state_dict(saved["weights"])
            self._averaged.load_state_dict(saved["average"])
            self._trainer.resume(saved["trainer"])
            return saved
        start = _copy(self._network)
        return _Saved(
            epoch=0,
            trainer=self._trainer.progress(),
            weights=start,
            average=start,
            best=start,
            best_figures=self._figures(self._judge(self._network, self._compared)),
            idle=0,
        )

    def _figures(self, quality: Quality) -> tuple[float, float]:
        """By which networks are compared, more is better."""
        near = -quality.divergence
        metric = quality.metric if self._objective.metric.higher_is_better else -quality.metric
        return (near, metric) if self._recovery.distill else (metric, near)


def _copy(network: nn.Module) -> Weights:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@torch.no_grad()
def _mix(average: nn.Module, network: nn.Module, kept: float) -> None:
    """Moves the average towards the network, statistics of BatchNorms too; counters are the network's."""
    for mean, tensor in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(tensor, 1 - kept)
        else:
            mean.copy_(tensor)
