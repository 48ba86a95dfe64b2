"""The images that the experiments learn.

What ``--data`` may be:

an ``.npz``   x_train, y_train, x_test, y_test; images uint8 [n, channels, height, width]. All of CIFAR-10 comes from
              https://www.cs.toronto.edu/~kriz/cifar.html; the first images of each of its batches will do for ``--small``.
a folder      the four ``.gz`` files of MNIST or Fashion-MNIST (IDX). Debian's package dataset-fashion-mnist puts them into
              /usr/share/datasets/fashion-mnist, which is where they are looked for if nothing is given.
nothing       and no such folder: scikit-learn's 1,797 handwritten digits, to try the commands on.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_FASHION = Path("/usr/share/datasets/fashion-mnist")
_SIDE = 32  # pixels that VGG takes


@dataclass(frozen=True)
class Images:
    """Training and test images ``[n, channels, height, width]``, normalised by the training images, and their classes.

    Attributes:
        name: of the data set, for people.
        mirrored: whether an image in a mirror is still one of its class.
    """

    name: str
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    mirrored: bool

    @property
    def channels(self) -> int:
        return int(self.x_train.shape[1])

    def some(self, most: int | None) -> Images:
        """With the first so many training images; all if ``None``."""
        return Images(self.name, self.x_train[:most], self.y_train[:most], self.x_test, self.y_test, self.mirrored)

    def at_32(self) -> Images:
        """Of 32 × 32 pixels: enlarged by a whole factor, then with an edge of zeros around them."""
        return Images(self.name, _at_32(self.x_train), self.y_train, _at_32(self.x_test), self.y_test, self.mirrored)


def load_images(data: Path | None) -> Images:
    """Reads what ``--data`` gives; see above."""
    if data is None and _FASHION.is_dir():
        data = _FASHION
    if data is None:
        return _digits()
    if data.is_dir():
        train, test = [(_idx(data, f"{part}-images-idx3"), _idx(data, f"{part}-labels-idx1")) for part in ("train", "t10k")]
        fashion = "fashion" in str(data.resolve())
        name = "Fashion-MNIST" if fashion else "MNIST"
        return _images(name, train[0][:, None], train[1], test[0][:, None], test[1], mirrored=fashion)
    with np.load(data, allow_pickle=False) as arrays:
        parts = [arrays[name] for name in ("x_train", "y_train", "x_test", "y_test")]
    return _images(f"CIFAR-10 ({len(parts[0]):,} + {len(parts[2]):,} images)", *parts, mirrored=True)


def _idx(folder: Path, name: str) -> NDArray[np.uint8]:
    """A file of IDX: two zeros, the type (8: unsigned bytes), how many dimensions, their sizes, the bytes."""
    with gzip.open(folder / f"{name}-ubyte.gz") as file:
        raw = file.read()
    shape = np.frombuffer(raw, ">i4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def _digits() -> Images:
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x, y = digits.images[order, None], digits.target[order]
    return _images("scikit-learn's digits", x[600:], y[600:], x[:600], y[:600], mirrored=False)


def _images(
    name: str,
    x_train: NDArray[np.generic],
    y_train: NDArray[np.generic],
    x_test: NDArray[np.generic],
    y_test: NDArray[np.generic],
    *,
    mirrored: bool,
) -> Images:
    train, test = [torch.from_numpy(x.astype(np.float32)) for x in (x_train, x_test)]
    mean, std = train.mean((0, 2, 3), keepdim=True), train.std((0, 2, 3), keepdim=True)
    classes = [torch.from_numpy(y.astype(np.int64)) for y in (y_train, y_test)]
    return Images(name, (train - mean) / std, classes[0], (test - mean) / std, classes[1], mirrored)


def _at_32(x: Tensor) -> Tensor:
    factor = _SIDE // x.shape[-1]
    large = x.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
    edge = _SIDE - large.shape[-1]
    return torch.nn.functional.pad(large, (edge // 2, edge - edge // 2) * 2)
