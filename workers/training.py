"""Training a pruned network, towards the dense network's outputs or the labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.optim.lr_scheduler import LambdaLR

from workers.augment import augmented, cutmix
from workers.data import Split, as_input
from workers.device import CPU, Fitting, pieces, rounded, sent
from workers.features import Inputs, feature_loss, telling
from workers.quality import Objective
from workers.spec import Recipe
from workers.teacher import Teacher

_BATCH = 64  # small enough for a few thousand images to give many steps
# A fifth of what such networks are trained with by SGD, and AdamW's usual: the weights are good already.
_LEARNING_RATES = {"sgd": 0.02, "adamw": 0.001}
# Of that, for an epoch or less, and more in proportion: what a high rate undoes, so few steps do not make up for. An epoch at a
# quarter leaves ResNet-20 at half its MACs nearer to the dense network by 10 to 25 %, with each of 4 plans: docs/recovery.md.
_GENTLE = 0.25
_MOMENTUM, _WEIGHT_DECAY = 0.9, 1e-4  # He et al. 2016
_ADAMW_DECAY = 0.01  # Loshchilov and Hutter 2019
_MIXED = 0.5  # of the batches, where images are cut and mixed: the probability of Yun et al. 2019 for CIFAR
_SOFT_SHARE = 0.9  # of the loss that follows the dense network's outputs; the labels keep the rest (Hinton et al. 2015)


class Progress(TypedDict):
    """Where a trainer is, beside its network's weights."""

    optimizer: dict[str, Any]
    generator: Tensor
    done: int


class Trainer:
    """Trains one network on a job's images, epoch by epoch.

    Args:
        module: the pruned network, or one that is being pruned.
        teacher: the network it came from, whose outputs are wanted where ``distill`` is set.
        train: images to learn from.
        objective: says what a loss is.
        recipe: the optimiser, its learning rate, and what is done to images and labels.
        distill: learn from the dense network's outputs, and a little from the labels; otherwise from the labels alone. Without
            labels, or where images are mixed, there are those outputs alone.
        seed: of the order of the images, and of dropout.
        inputs: by layer, for the features that the recipe wants learned; the teacher tells of the same layers.
        done: steps that the network was trained for before; what follows sees other images.

    Attributes:
        optimizer: its learning rate is constant unless somebody schedules it.
        steps: of the optimiser in an epoch.
        done: steps so far.
    """

    def __init__(
        self,
        module: fx.GraphModule,
        teacher: Teacher,
        train: Split,
        objective: Objective,
        recipe: Recipe,
        *,
        distill: bool,
        seed: int,
        inputs: Mapping[str, Inputs] | None = None,
        done: int = 0,
    ) -> None:
        self._module = module
        self._inputs = inputs or {}
        self._teacher = teacher
        self._train = train
        self._objective = objective
        self._recipe = recipe
        self._distill = distill
        self._device = next((parameter.device for parameter in module.parameters()), CPU)
        self._fitting = Fitting()
        self._telling = rounded(telling(module, self._inputs), self._device, recipe.precision)
        self._ask = rounded(teacher, self._device, recipe.precision)
        self.done = done
        self._generator = torch.Generator().manual_seed(int(np.random.SeedSequence((seed, done)).generate_state(1)[0]))
        self.optimizer = _optimizer(module, recipe)
        self.steps = math.ceil(len(train) / _BATCH)

    def epoch(self, after_step: Callable[[], None] | None = None) -> float:
        """One pass over the images in a random order; see ``train``."""
        return self.train(self.steps, after_step)

    def train(self, steps: int, after_step: Callable[[], None] | None = None) -> float:
        """So many steps over the images in a random order, in another one from each pass to the next.

        Leaves the network in eval mode.

        Args:
            steps: of the optimiser.
            after_step: called behind every step.

        Returns:
            The mean loss.
        """
        self._module.train()
        # What few steps see is asked for as they come. Whole passes ask for the same again and again, unless images change.
        asked = not self._learns_answers or steps < self.steps or self._recipe.augment or self._inputs
        known = None if asked else self._teacher.answers
        losses, images = list[tuple[Tensor, int]](), 0
        devices = [] if self._device == CPU else [self._device]
        with torch.random.fork_rng(devices):  # which dropout draws from: alike, whatever this process did before
            torch.manual_seed(int(torch.randint(2**31, (), generator=self._generator)))
            for step in range(steps):
                if step % self.steps == 0:
                    # About equal: a rest of two images would move the network as far as 64 do, by BatchNorm over those two.
                    batches = pieces(torch.randperm(len(self._train), generator=self._generator), _BATCH)
                chosen = batches[step % self.steps].numpy()
                losses.append((self._step(chosen, None if known is None else known[chosen]), len(chosen)))
                images += len(chosen)
                if after_step is not None:
                    after_step()
        self.done += steps
        self._module.eval()
        return sum(float(loss) * count for loss, count in losses) / images  # waits for a device once, here

    def progress(self) -> Progress:
        """With which, and the network's weights, ``resume`` goes on in another process."""
        return Progress(optimizer=self.optimizer.state_dict(), generator=self._generator.get_state(), done=self.done)

    def resume(self, progress: Progress) -> None:
        """Goes on where that was taken."""
        self.optimizer.load_state_dict(progress["optimizer"])
        self._generator.set_state(progress["generator"])
        self.done = progress["done"]

    def falling(self, steps: int, at: int = 0) -> LambdaLR:
        """A learning rate that rises for the recipe's warm-up and then falls to 0 along a cosine, within so many steps.

        ``at`` says how many of them are over. The highest is the recipe's, or a share of it for less than four epochs.
        """
        height = min(1.0, _GENTLE * max(1.0, steps / self.steps))
        rising = self._recipe.warmup * steps

        def share(step: int) -> float:
            if step < rising:
                return (step + 1) / (rising + 1)
            return (1 + math.cos(math.pi * (step - rising) / (steps - rising))) / 2

        for group in self.optimizer.param_groups:
            group["initial_lr"] = height * _learning_rate(self._recipe)
        return LambdaLR(self.optimizer, share, last_epoch=at - 1)

    @property
    def _learns_answers(self) -> bool:
        return self._distill or self._train.y is None or not self._objective.learns_labels

    def _step(self, chosen: NDArray[np.int64], answers: Tensor | None) -> Tensor:
        some = self._train.at(chosen)
        kinds = self._recipe.augment
        seen = augmented(as_input(some.x), kinds, self._generator)
        mixed = "cutmix" in kinds and float(torch.rand((), generator=self._generator)) < _MIXED
        if mixed:
            seen = cutmix(seen, self._generator)
        images = sent(seen.contiguous(memory_format=self._teacher.layout), self._device)
        right = None if mixed or not self._objective.learns_labels else some.labels
        labels = None if right is None else sent(right, self._device)
        wanted = None if answers is None else sent(answers, self._device)
        loss = self._fitting(lambda most: self._learn(images, labels, wanted, most), len(chosen))
        self.optimizer.step()
        return loss

    def _learn(self, images: Tensor, labels: Tensor | None, wanted: Tensor | None, most: int) -> Tensor:
        """Gradients of the mean loss, and that loss; in pieces of at most ``most`` images, over which BatchNorm averages."""
        self.optimizer.zero_grad()
        parts, total = pieces(images, most), torch.zeros((), device=self._device)
        rows = [[None] * len(parts) if each is None else pieces(each, most) for each in (labels, wanted)]
        for x, y, answers in zip(parts, *rows, strict=True):
            loss = self._loss(x, y, answers) * (len(x) / len(images))
            loss.backward()
            total += loss.detach()
        return total

    def _loss(self, images: Tensor, labels: Tensor | None, wanted: Tensor | None) -> Tensor:
        outputs, found = self._telling(images)
        outputs = _exact(outputs)
        right = None if labels is None else self._objective.loss(outputs, labels, self._recipe.label_smoothing)
        if right is not None and not self._learns_answers:
            return right
        answers, inputs = self._ask(images) if wanted is None else (wanted, ())
        soft = self._objective.soft_loss(outputs, _exact(answers))
        loss = soft if right is None else _SOFT_SHARE * soft + (1 - _SOFT_SHARE) * right
        return loss + self._recipe.features * feature_loss(found, inputs, self._inputs) if self._inputs else loss


def short_tune(trainer: Trainer, steps: int) -> None:
    """Trains in place for some steps, the learning rate falling."""
    trainer.train(steps, trainer.falling(steps).step)


def _exact(outputs: Tensor) -> Tensor:
    """For losses: an exponential of what has 8 bits of precision loses the rest."""
    return outputs.float() if outputs.dtype == torch.bfloat16 else outputs


def _optimizer(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    rate = _learning_rate(recipe)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(module.parameters(), rate, weight_decay=_ADAMW_DECAY)
    return torch.optim.SGD(module.parameters(), rate, _MOMENTUM, weight_decay=_WEIGHT_DECAY, nesterov=True)


def _learning_rate(recipe: Recipe) -> float:
    return _LEARNING_RATES[recipe.optimizer] if recipe.learning_rate is None else recipe.learning_rate
