"""How a network does, and how near its outputs are to the dense network's: what is reported, and what trials are scored by.

A classifier that lost channels is not only wrong about some inputs, its outputs are also too large or too small altogether. Any
training puts that right within a few steps, and so does a temperature; a plain KL is dominated by it where much was cut. So the
divergence is taken at the temperature that suits the network best (Guo et al., On Calibration of Modern Neural Networks, ICML
2017, arXiv 1706.04599). Over 1/T it is convex, hence Newton's steps find it.

Outputs that are values are another matter: a temperature changes no class, but a scale changes every value. There the distance
is plain, as a share of what the dense network's outputs vary by, so that 0 is the dense network itself and 1 is as good as a
constant, in whatever unit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from workers.spec import Task
from workers.tasks import METRICS

_STEPS = 60  # at most: Newton needs about six, and halving alone comes down to what float64 can tell apart
_EXACT = 1e-9  # a step of 1/T that is smaller than this share of it changes no digit of the divergence


@dataclass(frozen=True)
class Quality:
    """How a network does on some inputs.

    Attributes:
        metric: the task's, such as top-1 accuracy.
        divergence: mean distance of its outputs from the dense network's; 0 is the dense network itself. Where a race was
            given up, what it is expected to be.
        losses: the distance for each input that it saw.
        drops: by input, how much worse it did than the dense network, by the metric; none where that is no mean over inputs.
    """

    metric: float
    divergence: float
    losses: NDArray[np.float32] = field(repr=False, compare=False)
    drops: NDArray[np.float64] | None = field(default=None, repr=False, compare=False)


class Objective(ABC):
    """What a task's networks are judged and trained by.

    Args:
        task: with its metric.

    Attributes:
        metric: what is reported.
        label_free: whether the dense network's answers stand for labels.
        learns_labels: whether networks are trained towards labels, where the data have any.
    """

    def __init__(self, task: Task) -> None:
        self.name = str(task.metric)
        self.metric = METRICS[self.name]
        self.label_free = task.type == "label_free"
        self.learns_labels = not self.label_free

    def quality(self, outputs: Tensor, reference: Tensor, labels: Tensor | None) -> Quality:
        """Both measures of a network.

        Args:
            outputs: its own, ``[n, …]``.
            reference: the dense network's.
            labels: the right ones; not looked at without labels.
        """
        losses, dense = self.distances(outputs, reference), reference.double()
        right = self.labels(labels, reference)
        figures = self.figures(outputs.double(), dense, right)
        drops = None
        if self.metric.by_input:
            worse = figures - self.figures(dense, dense, right)
            drops = (-worse if self.metric.higher_is_better else worse).numpy()
        return Quality(float(figures.mean()), float(losses.mean()), losses.float().numpy(), drops)

    def labels(self, labels: Tensor | None, reference: Tensor) -> Tensor:
        """What is right: the labels, or without any what the dense network answers."""
        return self.answers(reference) if self.label_free or labels is None else labels

    @abstractmethod
    def figures(self, outputs: Tensor, reference: Tensor, labels: Tensor) -> Tensor:
        """What the metric is the mean of: by input, ``[n]``, or of one that is no mean over inputs itself alone, ``[1]``."""

    @abstractmethod
    def distances(self, outputs: Tensor, reference: Tensor) -> Tensor:
        """By input, how far outputs are from the dense network's, ``[n]`` in float64; not finite where an output is not."""

    @abstractmethod
    def answers(self, reference: Tensor) -> Tensor:
        """What outputs say, in the form of labels."""

    @abstractmethod
    def loss(self, outputs: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
        """Mean loss against labels, to be trained by; of classes, a share of each label spread over all of them."""

    @abstractmethod
    def soft_loss(self, outputs: Tensor, reference: Tensor) -> Tensor:
        """Mean loss against the dense network's outputs, to be trained by."""


class OfClasses(Objective):
    """Outputs are logits ``[n, classes]``, labels are class numbers ``[n]``."""

    def figures(self, outputs: Tensor, reference: Tensor, labels: Tensor) -> Tensor:
        if self.name == "cross_entropy":
            return functional.cross_entropy(outputs, labels, reduction="none")
        if self.name == "kl":
            found, wanted = (functional.log_softmax(each, 1) for each in (outputs, reference))
            return functional.kl_div(found, wanted, reduction="none", log_target=True).sum(1)
        guesses = outputs.topk(5).indices if self.name == "top5" else outputs.argmax(1, keepdim=True)
        right: Tensor = (guesses == labels[:, None]).any(1)
        return right.double()

    def distances(self, outputs: Tensor, reference: Tensor) -> Tensor:
        return divergences(outputs, reference)

    def answers(self, reference: Tensor) -> Tensor:
        return reference.argmax(1)

    def loss(self, outputs: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
        return functional.cross_entropy(outputs, labels, label_smoothing=smoothing)

    def soft_loss(self, outputs: Tensor, reference: Tensor) -> Tensor:
        found, wanted = (functional.log_softmax(each, 1) for each in (outputs, reference))
        return functional.kl_div(found, wanted, reduction="batchmean", log_target=True)


class OfValues(Objective):
    """Outputs and labels are numbers ``[n, …]``.

    Args:
        task: with its metric.
        reference: outputs of the dense network that tell how much they vary, ``[n, …]``.
    """

    def __init__(self, task: Task, reference: Tensor) -> None:
        super().__init__(task)
        rows = reference.double().flatten(1) if reference.dim() > 1 else reference.double()[:, None]
        variance, size = (float(each.square().sum(1).mean()) for each in (rows - rows.mean(0), rows))
        self._spread = variance or size or 1.0  # of outputs that are all alike, or all 0, there is no share to take
        # As a share of the variance, training takes the same steps whatever the unit; of small values it would take too large
        # ones in the last layer, whose weights are as small.
        self._unit = max(self._spread / rows.shape[1], 1.0)

    def figures(self, outputs: Tensor, reference: Tensor, labels: Tensor) -> Tensor:
        if self.name == "relative_error":
            error, size = (outputs - reference).norm(), reference.norm()
            return torch.stack([error / size.clamp_min(torch.finfo(torch.float64).tiny)])
        apart = outputs - labels.reshape(outputs.shape)
        apart = apart.abs() if self.name == "mae" else apart.square()
        return apart.flatten(1).mean(1) if apart.dim() > 1 else apart

    def distances(self, outputs: Tensor, reference: Tensor) -> Tensor:
        apart = (outputs.double() - reference.double()).square()
        return (apart.flatten(1).sum(1) if apart.dim() > 1 else apart) / self._spread

    def answers(self, reference: Tensor) -> Tensor:
        return reference

    def loss(self, outputs: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
        return functional.mse_loss(outputs, labels.reshape(outputs.shape).to(outputs)) / self._unit

    def soft_loss(self, outputs: Tensor, reference: Tensor) -> Tensor:
        return functional.mse_loss(outputs, reference) / self._unit


@torch.inference_mode()
def divergences(outputs: Tensor, reference: Tensor) -> Tensor:
    """KL between softmax(``reference``) and softmax(``outputs``/T) at the T in (0, ∞] where its mean over images is least.

    Args:
        outputs: logits ``[images, classes]``.
        reference: the like, at temperature 1.

    Returns:
        Nats ``[images]``, float64; not finite where an output is not.
    """
    wanted = functional.log_softmax(reference.double(), 1)
    found = outputs.double()
    found = found / found.std().clamp_min(torch.finfo(torch.float64).tiny)  # so that 1/T is about 1
    target = (wanted.exp() * found).sum(1).mean()  # what the mean output under softmax(found / T) is at the best T

    def excess(sharpness: float) -> tuple[float, float]:
        """Slope and curvature of the divergence over 1/T."""
        share = functional.softmax(sharpness * found, 1)
        mean = (share * found).sum(1, keepdim=True)
        spread = (share * (found - mean).square()).sum(1).mean()
        return float(mean.mean() - target), float(spread)

    # The slope rises with 1/T. Below: sharper is better; above: it is not.
    below, above, sharpness = 0.0, 1.0, 1.0
    if excess(0.0)[0] >= 0:
        sharpness = 0.0  # no better than saying nothing
    else:
        for _ in range(_STEPS):
            slope, curvature = excess(sharpness)
            if slope < 0:
                below, above = sharpness, max(above, 2 * sharpness)
            else:
                above = sharpness
            newton = sharpness - slope / curvature if curvature > 0 else above
            before, sharpness = sharpness, newton if below < newton < above else (below + above) / 2
            if abs(sharpness - before) <= _EXACT * sharpness:
                break
    at_best = functional.log_softmax(sharpness * found, 1)
    return functional.kl_div(at_best, wanted, reduction="none", log_target=True).sum(1)
