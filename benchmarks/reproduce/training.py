"""Training of the convolutional networks: SGD with momentum, in the steps that the papers give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.reproduce.images import Images

_MOMENTUM = 0.9
_SHIFT = 4  # pixels that an image is moved by at most
_TEST_BATCH = 256


@dataclass(frozen=True)
class Recipe:
    """How one network is trained.

    Attributes:
        epochs: over all training images.
        learning_rate: at first.
        drops: at which shares of the epochs the learning rate falls to a tenth.
        batch: images.
        weight_decay: of all parameters.
    """

    epochs: int
    learning_rate: float
    drops: Sequence[float] = (0.5, 0.75)
    batch: int = 128
    weight_decay: float = 5e-4

    def optimizer(self, network: nn.Module) -> torch.optim.SGD:
        return torch.optim.SGD(
            network.parameters(), self.learning_rate, momentum=_MOMENTUM, weight_decay=self.weight_decay, nesterov=True
        )

    def steps(self, images: int) -> int:
        """Of the optimiser in all."""
        return self.epochs * -(-images // self.batch)

    def reach(self, images: int) -> float:
        """How far a constant gradient of 1 moves a weight in all steps."""
        marks = [0.0, *self.drops, 1.0]
        shares = [end - start for start, end in pairwise(marks)]
        rates = self.learning_rate * sum(share * 0.1**drop for drop, share in enumerate(shares))
        return self.steps(images) * rates / (1 - _MOMENTUM)


def train(
    what: str, network: nn.Module, images: Images, recipe: Recipe, seed: int, optimizer: torch.optim.SGD | None = None
) -> None:
    """Trains in place and prints a line for every epoch.

    Args:
        what: is trained, for that line.
        network: goes to training mode.
        images: are moved and mirrored at random, the latter if they may be.
        recipe: what to do.
        seed: of the order of the images and of what is done to them.
        optimizer: the recipe's own if ``None``.
    """
    optimizer = optimizer or recipe.optimizer(network)
    marks = [max(1, int(drop * recipe.epochs)) for drop in recipe.drops]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, marks)
    draw = torch.Generator().manual_seed(seed)
    network.train().to(memory_format=torch.channels_last)  # a fifth to a third less time on a CPU
    for epoch in range(recipe.epochs):
        total = 0.0
        for batch in torch.randperm(len(images.y_train), generator=draw).split(recipe.batch):
            optimizer.zero_grad()
            x = varied(images.x_train[batch], draw, mirrored=images.mirrored).contiguous(memory_format=torch.channels_last)
            loss = functional.cross_entropy(network(x), images.y_train[batch])
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(batch)
        schedule.step()
        print(f"{what}: epoch {epoch + 1} of {recipe.epochs}, loss {total / len(images.y_train):.3f}", flush=True)


def varied(x: Tensor, draw: torch.Generator, *, mirrored: bool) -> Tensor:
    """Each image moved by up to four pixels either way, and every second one mirrored if it may be."""
    count, channels, height, width = x.shape
    padded = functional.pad(x, (_SHIFT,) * 4)
    top, left = torch.randint(2 * _SHIFT + 1, (2, count), generator=draw)
    rows, columns = top[:, None] + torch.arange(height), left[:, None] + torch.arange(width)
    if mirrored:
        flipped = torch.rand(count, generator=draw) < 0.5
        columns = torch.where(flipped[:, None], columns.flip(1), columns)
    every, channel = torch.arange(count)[:, None, None, None], torch.arange(channels)[None, :, None, None]
    return padded[every, channel, rows[:, None, :, None], columns[:, None, None, :]]


def accuracy(network: nn.Module, images: Images) -> float:
    """The share of test images whose class is the largest output."""
    network.eval()
    right = 0
    with torch.inference_mode():
        for x, y in zip(images.x_test.split(_TEST_BATCH), images.y_test.split(_TEST_BATCH), strict=True):
            right += int((network(x).argmax(1) == y).sum())
    return right / len(images.y_test)
