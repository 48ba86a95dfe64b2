"""A job's data: inputs and labels, split once per job.

Inputs are ``[n, …]`` as the model takes them (channels first for convolutions). ``uint8`` is scaled to 0…1, floats go in as
they are; any other normalisation belongs in the model or in the data.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers import arrays
from workers.formats.convert import convert

SEARCH_IMAGES = 512  # enough for a stable mean of the score, few enough that one candidate takes about a second
SEARCH_SHARE = 0.2  # of the training images at most; the rest still recalibrates and trains
EVALUATION_BATCH = 64  # fills a core and stays in its cache: a ResNet-56 takes a third longer with 128 in the plain layout


@dataclass(frozen=True, eq=False)
class Split:
    """Inputs ``x`` ``[n, …]`` and their labels ``y`` ``[n, …]``, ``None`` if there are none. Equal to itself alone."""

    x: NDArray[Any]
    y: NDArray[Any] | None

    def __len__(self) -> int:
        return len(self.x)

    def first(self, count: int) -> Split:
        """Its first rows."""
        return self.at(slice(count))

    def at(self, rows: Any) -> Split:
        """Some of its rows."""
        return Split(self.x[rows], None if self.y is None else self.y[rows])

    def batches(self, size: int = EVALUATION_BATCH) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Inputs in order, as the network takes them, and their labels."""
        for start in range(0, len(self), size):
            some = self.at(slice(start, start + size))
            yield as_input(some.x), some.labels

    @property
    def labels(self) -> Tensor | None:
        """A copy of ``y``: int64 or float32."""
        return None if self.y is None else torch.tensor(self.y)


@dataclass(frozen=True)
class Splits:
    """What a job may look at: ``train`` to recover, ``search`` to choose, ``test`` once in the end."""

    train: Split
    search: Split
    test: Split


def as_input(images: NDArray[Any]) -> Tensor:
    """A float32 copy, ``uint8`` scaled to 0…1."""
    tensor = torch.tensor(images)
    return tensor.float() / 255 if tensor.dtype == torch.uint8 else tensor.float()


def load(path: Path, seed: int) -> Splits:
    """The splits of a job: search inputs are ``x_val``, or held out from the training inputs (chosen by ``seed``).

    Training and search inputs are in a drawn order, so that the first of them stand for all.

    Args:
        path: a file of ``workers.arrays``, or an upload, which is converted first.
        seed: of the order.

    Raises:
        InvalidInput: an upload that cannot be used.
    """
    if not arrays.is_arrays(path):
        with tempfile.TemporaryDirectory(prefix="secateur-") as folder:
            convert(path, Path(folder) / "arrays")
            return load(Path(folder) / "arrays", seed)  # what is mapped stays when its name is gone
    found = arrays.read(path)
    draw = np.random.default_rng(seed)
    train, test = (Split(found[f"x_{name}"], found.get(f"y_{name}")) for name in ("train", "test"))
    if "x_val" in found:
        search = Split(found["x_val"], found.get("y_val"))
        search = search.at(draw.permutation(len(search)))
        return Splits(train.at(draw.permutation(len(train))), search, test)
    order = draw.permutation(len(train))
    held = max(1, min(SEARCH_IMAGES, int(len(train) * SEARCH_SHARE)))
    return Splits(train.at(order[held:]), train.at(order[:held]), test)
