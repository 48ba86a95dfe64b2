"""What is done to training images at random, so that a network never sees one twice."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from workers.data import Split

_SHIFT = 8  # crops move by an eighth of the image at most: the 4 of 32 pixels of He et al. 2016
_ONE_RECTANGLE = 16  # images that are mixed alike where networks are compared: 32 rectangles in the usual 512 images


def augmented(images: Tensor, kinds: Sequence[str], generator: torch.Generator) -> Tensor:
    """Images ``[n, channels, height, width]``, each mirrored or shifted as is drawn for it; borders are 0."""
    count = len(images)
    if "flips" in kinds:
        mirrored = torch.rand(count, generator=generator) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    if "crops" in kinds:
        height, width = images.shape[2:]
        reach = max(1, min(height, width) // _SHIFT)
        down, right = torch.randint(2 * reach + 1, (2, count), generator=generator)
        padded = functional.pad(images, [reach] * 4)
        images = padded.unfold(2, height, 1).unfold(3, width, 1)[torch.arange(count), :, down, right]
    return images


def cutmix(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images ``[n, channels, height, width]``, a rectangle of each from another one; what they show is nobody's label.

    Yun et al., CutMix, ICCV 2019 (arXiv 1905.04899): one rectangle for the batch, of the image's own shape and of any share of
    its area, all equally likely. Here it lies within the image, so that its area is what was drawn.
    """
    height, width = images.shape[2:]
    side = math.sqrt(float(torch.rand((), generator=generator)))
    tall, wide = round(side * height), round(side * width)
    top = int(torch.randint(height - tall + 1, (), generator=generator))
    left = int(torch.randint(width - wide + 1, (), generator=generator))
    there = (..., slice(top, top + tall), slice(left, left + wide))
    mixed = images.clone()
    mixed[there] = images[torch.randperm(len(images), generator=generator)][there]
    return mixed


def redrawn(split: Split, kinds: Sequence[str]) -> Split:
    """A split as training would show it: its images changed by ``kinds``, each in one way, the same in every process.

    Networks are compared on it that training changed with others that it did not: a choice that was made on the images
    themselves, such as that of a plan, favours what was not changed since (docs/recovery.md has figures). Labels stay, also
    those of mixed images, which are nobody's: compare outputs there. Without ``kinds`` it is the split itself.
    """
    if not kinds:
        return split
    generator, changed = torch.Generator().manual_seed(0), np.empty_like(split.x)
    for start in range(0, len(split), _ONE_RECTANGLE):
        rows = slice(start, start + _ONE_RECTANGLE)
        images = augmented(torch.tensor(split.x[rows]), kinds, generator)
        changed[rows] = (cutmix(images, generator) if "cutmix" in kinds else images).numpy()
    return Split(changed, split.y)
