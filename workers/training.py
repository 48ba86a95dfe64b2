"""Training a pruned network: SGD with momentum, towards the dense network's outputs or the labels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LRScheduler

from workers.data import Split, as_input
from workers.device import CPU, Fitting, pieces, sent

_BATCH = 64  # small enough for a few thousand images to give many steps
_LEARNING_RATE = 0.02  # a fifth of what these networks are trained with: the weights are good already
_MOMENTUM = 0.9
_WEIGHT_DECAY = 1e-4  # He et al. 2016
_SOFT_SHARE = 0.9  # of the loss that follows the dense network's outputs; the labels keep the rest (Hinton et al. 2015)


class Trainer:
    """Trains one network on a job's images, epoch by epoch.

    Args:
        module: the pruned network, or one that is being pruned.
        dense: the network it came from, the teacher where ``distill`` is set.
        train: images to learn from.
        distill: learn from the dense network's outputs, and a little from the labels; otherwise from the labels alone.
        seed: of the order of the images, and of dropout.
        done: steps that the network was trained for before; what follows sees other images.

    Attributes:
        optimizer: SGD with momentum, its learning rate constant unless somebody schedules it.
        steps: of the optimiser in an epoch.
        done: steps so far.
    """

    def __init__(
        self, module: nn.Module, dense: fx.GraphModule, train: Split, *, distill: bool, seed: int, done: int = 0
    ) -> None:
        self._module = module
        self._dense = dense
        self._train = train
        self._distill = distill
        self._device = next((parameter.device for parameter in module.parameters()), CPU)
        self._fitting = Fitting()
        self.done = done
        self._generator = torch.Generator().manual_seed(int(np.random.SeedSequence((seed, done)).generate_state(1)[0]))
        self.optimizer = torch.optim.SGD(
            module.parameters(), _LEARNING_RATE, _MOMENTUM, weight_decay=_WEIGHT_DECAY, nesterov=True
        )
        # A last batch of a single image is left out: BatchNorm needs two values to take a variance of.
        self.steps = len(train) // _BATCH + (len(train) % _BATCH > 1)

    def epoch(self, scheduler: LRScheduler | None = None) -> float:
        """One pass over the images in a random order; see ``train``."""
        return self.train(self.steps, scheduler)

    def train(self, steps: int, scheduler: LRScheduler | None = None) -> float:
        """So many steps over the images in a random order, in another one from each pass to the next.

        Leaves the network in eval mode.

        Args:
            steps: of the optimiser.
            scheduler: moves on behind every step.

        Returns:
            The mean loss.
        """
        self._module.train()
        losses, images = list[tuple[Tensor, int]](), 0
        devices = [] if self._device == CPU else [self._device]
        with torch.random.fork_rng(devices):  # which dropout draws from: alike, whatever this process did before
            torch.manual_seed(int(torch.randint(2**31, (), generator=self._generator)))
            for step in range(steps):
                start = step % self.steps * _BATCH
                if start == 0:
                    order = torch.randperm(len(self._train), generator=self._generator).numpy()
                chosen = order[start : start + _BATCH]
                losses.append((self._step(chosen), len(chosen)))
                images += len(chosen)
                if scheduler is not None:
                    scheduler.step()
        self.done += steps
        self._module.eval()
        return sum(float(loss) * count for loss, count in losses) / images  # waits for a device once, here

    def _step(self, chosen: NDArray[np.int64]) -> Tensor:
        loss = self._fitting(lambda most: self._learn(chosen, most), len(chosen))
        self.optimizer.step()
        return loss

    def _learn(self, chosen: NDArray[np.int64], most: int) -> Tensor:
        """Gradients of the mean loss, and that loss; in pieces of at most ``most`` images, over which BatchNorm averages."""
        self.optimizer.zero_grad()
        images, labels = as_input(self._train.x[chosen]), torch.tensor(self._train.y[chosen])
        images, labels = sent(images, self._device), sent(labels, self._device)
        total = torch.zeros((), device=self._device)
        for x, y in zip(pieces(images, most), pieces(labels, most), strict=True):
            loss = self._loss(x, y) * (len(y) / len(chosen))
            loss.backward()
            total += loss.detach()
        return total

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        outputs = self._module(images)
        loss = functional.cross_entropy(outputs, labels)
        if not self._distill:
            return loss
        with torch.no_grad():
            target = functional.log_softmax(self._dense(images), 1)
        soft = functional.kl_div(functional.log_softmax(outputs, 1), target, reduction="batchmean", log_target=True)
        return _SOFT_SHARE * soft + (1 - _SOFT_SHARE) * loss


def short_tune(trainer: Trainer, steps: int) -> None:
    """Trains in place for some steps, with a learning rate that falls to 0 along a cosine."""
    trainer.train(steps, torch.optim.lr_scheduler.CosineAnnealingLR(trainer.optimizer, steps))


def fine_tune(trainer: Trainer, epochs: int, progress: Callable[[str], None]) -> None:
    """Trains in place, with a learning rate that falls to 0 along a cosine.

    Args:
        trainer: a fresh one.
        epochs: passes over the images.
        progress: told one line after each of them.
    """
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(trainer.optimizer, epochs * trainer.steps)
    for epoch in range(epochs):
        loss = trainer.epoch(schedule)
        progress(f"Fine-tuning: epoch {epoch + 1} of {epochs}, loss {loss:.4f}.")
