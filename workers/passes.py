"""A job's passes over its images: new BatchNorm statistics, and how a network compares with the dense one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from pruners.graph.chain import chain, fingerprints, mutates
from pruners.graph.fuse import fused
from pruners.recovery.batchnorm import recalibrating
from workers.data import Split, Splits
from workers.prefixes import Prefixes

PREFIX_BYTES = 64 * 2**20
"""The most that the kept outputs of a network's first parts may take: enough for a CIFAR ResNet, and little beside torch."""


@dataclass(frozen=True)
class Quality:
    """How a network does on some images.

    Attributes:
        accuracy: top-1, 0…1.
        divergence: mean KL from the dense network's outputs to this one's, in nats; 0 is the dense network itself.
    """

    accuracy: float
    divergence: float


class Passes:
    """Runs networks cut from one dense network over a job's images, which are laid out once.

    A network is passed through in eval mode with BatchNorm in its convolutions, and starts behind the parts that an earlier one
    had too. Neither changes a result by more than rounding.

    Args:
        dense: the network that others are compared with.
        data: the job's splits.
        calibration_images: the first training images, for BatchNorm statistics.
        prefix_bytes: see ``workers.prefixes``; 0 runs every network whole.

    Attributes:
        layout: of the images in memory.
        calibration, searched: run networks over the training images that calibrate, and over the search images.
    """

    def __init__(self, dense: fx.GraphModule, data: Splits, calibration_images: int, prefix_bytes: int = PREFIX_BYTES) -> None:
        self._dense = dense
        self._search = data.search
        self._calibration_images = calibration_images
        self.layout = layout_of(dense, data.search)
        train = data.train
        self._references: dict[int, list[Tensor]] = {}  # the dense network's log-probabilities by split
        calibration = Split(train.x[:calibration_images], train.y[:calibration_images])
        self.calibration, self.searched = (
            Prefixes(self._batches(split), prefix_bytes, mutates(dense)) for split in (calibration, data.search)
        )

    def recalibrate(self, module: fx.GraphModule) -> None:
        """Re-estimates BatchNorm statistics, in place; without calibration images they stay."""
        if not self._calibration_images:
            return
        parts = chain(module)
        keys = fingerprints(parts)
        with recalibrating(module):
            deque(self.calibration.run(parts, keys), maxlen=0)

    def quality(self, module: fx.GraphModule, split: Split) -> Quality:
        """Accuracy and divergence from the dense network on a split."""
        if id(split) not in self._references:
            self._references[id(split)] = list(self._log_probabilities(self._dense, split))
        correct, divergence, start = 0, 0.0, 0
        for reference, found in zip(self._references[id(split)], self._log_probabilities(module, split), strict=True):
            labels = torch.tensor(split.y[start : start + len(found)])
            start += len(found)
            divergence += float(functional.kl_div(found, reference, reduction="sum", log_target=True))
            correct += int((found.argmax(1) == labels).sum())
        return Quality(correct / len(split), divergence / len(split))

    def _log_probabilities(self, module: fx.GraphModule, split: Split) -> Iterator[Tensor]:
        module.eval()
        if split is self._search:
            parts = chain(module)
            outputs = self.searched.run(parts, fingerprints(parts), fused)
        else:
            outputs = _outputs(fused(module), self._batches(split))
        return (functional.log_softmax(each, 1) for each in outputs)

    def _batches(self, split: Split) -> list[Tensor]:
        return [images.contiguous(memory_format=self.layout) for images, _ in split.batches()]


@torch.inference_mode()
def _outputs(module: nn.Module, batches: list[Tensor]) -> Iterator[Tensor]:
    for images in batches:
        yield module(images)


@torch.inference_mode()
def layout_of(module: nn.Module, split: Split) -> torch.memory_format:
    """Channels last where the network takes images so: convolutions of few channels gain a fifth to a third on a CPU.

    A network that reshapes a layer's output by ``view`` does not.
    """
    images, _ = next(split.batches(size=2))
    if images.dim() != 4:
        return torch.contiguous_format
    module.eval()
    try:
        module(images.contiguous(memory_format=torch.channels_last))
    except RuntimeError:
        return torch.contiguous_format
    return torch.channels_last
