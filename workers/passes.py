"""A job's passes over its images: new BatchNorm statistics, and how a network compares with the dense one."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from pruners.graph.chain import chain, fingerprints, mutates
from pruners.graph.fuse import fused
from pruners.recovery.batchnorm import recalibrating
from workers.data import EVALUATION_BATCH, Split, Splits
from workers.device import CPU, Fitting, Images, copied, device_of, moved, pieces, room, rounded
from workers.objective import make_objective
from workers.prefixes import Prefixes, Run
from workers.quality import Objective, Quality
from workers.spec import Resources, Task

PREFIX_BYTES = 64 * 2**20
"""The most that the kept outputs of a network's first parts may take: enough for a CIFAR ResNet, and little beside torch."""

_GPU_BATCH = 512  # where launching a layer takes as long as several batches of small images


@dataclass(frozen=True)
class Race:
    """A rival's losses by search image, the score to reach, and how certain to be before giving it up."""

    losses: NDArray[np.float32]
    bar: float
    confidence: float


class Passes:
    """Runs networks cut from one dense network over a job's images, which are laid out once.

    A network is passed through in eval mode with BatchNorm in its convolutions, and starts behind the parts that an earlier one
    had too. Neither changes a result by more than rounding. Where a device's memory does not suffice, fewer images pass at a
    time; then BatchNorm statistics are averages over smaller batches.

    Args:
        dense: the network that others are compared with, on the CPU.
        data: the job's splits.
        calibration_images: the first training images, for BatchNorm statistics.
        prefix_bytes: see ``workers.prefixes``; 0 runs every network whole.
        task: what the networks are for.
        resources: say where, and in which precision search images and those that calibrate pass.

    Attributes:
        dense: the same network on the device.
        device: where networks are passed through; they are moved there.
        layout: of the images in memory.
        calibration, searched: run networks over the training images that calibrate, and over the search images.
    """

    def __init__(
        self,
        dense: fx.GraphModule,
        data: Splits,
        calibration_images: int,
        prefix_bytes: int = PREFIX_BYTES,
        task: Task = Task(),  # noqa: B008  (it is immutable)
        resources: Resources = Resources(),  # noqa: B008  (likewise)
    ) -> None:
        self._dense = dense
        self._task = task
        self._known_objective: Objective | None = None
        self._search = data.search
        self._calibration = data.train.first(calibration_images)
        self._prefix_bytes = prefix_bytes
        self._resources = resources
        self._fitting = Fitting()
        self._references: dict[Split, Tensor] = {}  # the dense network's outputs, on the CPU
        self._chained: tuple[fx.GraphModule, list[fx.GraphModule]] | None = None
        self.device = device_of(resources)
        self._batch = EVALUATION_BATCH if self.device == CPU else _GPU_BATCH
        self.layout = layout_of(dense, data.search)

    # All that takes memory is made when it is first asked for: a job's own process needs it once the search is over, if ever.

    @cached_property
    def dense(self) -> fx.GraphModule:
        return copied(self._dense, self._resources)

    @cached_property
    def calibration(self) -> Prefixes:
        return Prefixes(self._images(self._calibration, EVALUATION_BATCH), self._prefix_bytes, mutates(self._dense))

    @cached_property
    def searched(self) -> Prefixes:
        return Prefixes(self._images(self._search, self._batch), self._prefix_bytes, mutates(self._dense))

    def recalibrate(self, module: fx.GraphModule) -> None:
        """Re-estimates BatchNorm statistics, in place; without calibration images they stay."""
        if len(self._calibration):
            self._fitting(lambda most: self._recalibrate(moved(module, self.device), most), EVALUATION_BATCH)

    def _recalibrate(self, module: fx.GraphModule, most: int) -> None:
        parts = self._parts(module)
        with recalibrating(module):
            deque(self.calibration.run(parts, fingerprints(parts), self._rounded, most), maxlen=0)

    def quality(self, module: fx.GraphModule, split: Split, race: Race | None = None) -> Quality:
        """Metric and divergence from the dense network on a split; in a race on as many of its images as it takes."""
        return self._fitting(lambda most: self._quality(moved(module, self.device), split, race, most), self._batch)

    def _quality(self, module: fx.GraphModule, split: Split, race: Race | None, most: int) -> Quality:
        reference, labels, objective = self._reference(split, most), split.labels, self._objective(most)
        found, seen, outputs = list[Tensor](), 0, self._outputs(module, split, most)
        for output in outputs:
            found.append(output)
            seen += len(output)
            if race is None or seen not in _looks(len(split)):
                continue
            so_far = objective.quality(_joined(found), reference[:seen], None if labels is None else labels[:seen])
            if (expected := _lost(so_far.losses, race)) is not None:
                outputs.close()
                return replace(so_far, divergence=expected)
        return objective.quality(_joined(found), reference, labels)

    def judged(self, outputs: Tensor, split: Split) -> Quality:
        """The same of outputs that were computed elsewhere, ``[n, …]`` for a whole split."""

        def judge(most: int) -> Quality:
            return self._objective(most).quality(outputs, self._reference(split, most), split.labels)

        return self._fitting(judge, self._batch)

    @property
    def objective(self) -> Objective:
        """What the task's networks are judged and trained by."""
        return self._fitting(self._objective, self._batch)

    def _objective(self, most: int) -> Objective:
        if self._known_objective is None:
            self._known_objective = make_objective(self._task, self._reference(self._search, most))
        return self._known_objective

    def _reference(self, split: Split, most: int) -> Tensor:
        """The dense network's outputs on a split, on the CPU."""
        if split not in self._references:
            self._references[split] = _joined(list(self._outputs(self.dense, split, most)))
        return self._references[split]

    def _outputs(self, module: fx.GraphModule, split: Split, most: int) -> Generator[Tensor]:
        module.eval()
        if split is self._search:
            parts = self._parts(module)
            return self.searched.run(parts, fingerprints(parts), lambda part: self._rounded(fused(part)), most)
        return _run(fused(module), self._images(split, self._batch), most)

    def _rounded(self, part: fx.GraphModule) -> Run:
        """A part in the precision of trials."""
        return rounded(part, self.device, self._resources.precision)

    def _parts(self, module: fx.GraphModule) -> list[fx.GraphModule]:
        if self._chained is None or self._chained[0] is not module:  # a network is recalibrated, then judged
            self._chained = module, chain(module)
        return self._chained[1]

    def _images(self, split: Split, size: int) -> Images:
        batches = [images.contiguous(memory_format=self.layout) for images, _ in split.batches(size)]
        return Images(batches, self.device, room(self.device, self._resources))


def _looks(images: int) -> list[int]:
    """The images that a race has seen when it is looked at: 2, 4, 8, … batches of them."""
    return [size for step in range(1, images.bit_length()) if (size := EVALUATION_BATCH << step) < images]


def _lost(losses: NDArray[np.float32], race: Race) -> float | None:
    """The divergence that is expected of all images, if it is certain enough to stay behind; ``None`` if that is open.

    The rival's mean over all images plus the mean difference on those seen, which are drawn from all (as the job's data are
    shuffled): its standard error is that of a sample without replacement. The chance to give up wrongly is shared between the
    looks (Bonferroni). The losses are at the temperature that suits the images seen best, on all images that is worse.
    """
    seen, everything = len(losses), len(race.losses)
    differences = losses.astype(np.float64) - race.losses[:seen]
    expected = float(race.losses.mean(dtype=np.float64) + differences.mean())
    error = differences.std(ddof=1) / math.sqrt(seen) * math.sqrt(1 - seen / everything)
    margin = NormalDist().inv_cdf(1 - (1 - race.confidence) / len(_looks(everything))) * error
    return expected if -expected + margin < race.bar else None


def _joined(outputs: list[Tensor]) -> Tensor:
    """Waits for the device."""
    return torch.cat(outputs).float().cpu()


@torch.inference_mode()
def _run(module: nn.Module, batches: Images, most: int) -> Generator[Tensor]:
    for images in batches:
        yield torch.cat([module(piece) for piece in pieces(images, most)])


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
