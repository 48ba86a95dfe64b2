"""A job's passes over its images: new BatchNorm statistics, and how a network compares with the dense one."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor, fx, nn

from pruners.graph.chain import chain, fingerprints, mutates
from pruners.graph.fuse import fused
from pruners.recovery.batchnorm import recalibrating
from workers.data import Split, Splits
from workers.prefixes import Prefixes
from workers.quality import Quality, quality

PREFIX_BYTES = 64 * 2**20
"""The most that the kept outputs of a network's first parts may take: enough for a CIFAR ResNet, and little beside torch."""


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
        self._references: dict[int, Tensor] = {}  # the dense network's outputs by split
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
            self._references[id(split)] = self._outputs(self._dense, split)
        return quality(self._outputs(module, split), self._references[id(split)], torch.tensor(split.y))

    @torch.inference_mode()
    def _outputs(self, module: fx.GraphModule, split: Split) -> Tensor:
        module.eval()
        if split is self._search:
            parts = chain(module)
            return torch.cat(list(self.searched.run(parts, fingerprints(parts), fused)))
        network = fused(module)
        return torch.cat([network(images) for images in self._batches(split)])

    def _batches(self, split: Split) -> list[Tensor]:
        return [images.contiguous(memory_format=self.layout) for images, _ in split.batches()]


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
