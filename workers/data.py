"""Data sets: ``.npz`` archives of plain arrays, checked once at upload, split once per job.

Images are ``[n, …]`` in the order the model takes them (channels first for convolutions). ``uint8`` is scaled to 0…1, floats
go in as they are; any other normalisation belongs in the model or in the data.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pruners.errors import InvalidInput

SEARCH_IMAGES = 512  # enough for a stable mean of the score, few enough that one candidate takes about a second
SEARCH_SHARE = 0.2  # of the training images at most; the rest still recalibrates and trains
EVALUATION_BATCH = 64  # fills a core and stays in its cache: a ResNet-56 takes a third longer with 128 in the plain layout

_REQUIRED = ("x_train", "y_train", "x_test", "y_test")
_OPTIONAL = ("x_val", "y_val")
_MAX_EXPANSION = 1000  # real images compress a few times; more is a decompression bomb


@dataclass(frozen=True)
class Split:
    """Images ``x`` ``[n, …]`` and their labels ``y`` ``[n]``."""

    x: NDArray[Any]
    y: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)

    def batches(self, size: int = EVALUATION_BATCH) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches in order, as the network takes them."""
        for start in range(0, len(self), size):
            yield as_input(self.x[start : start + size]), torch.tensor(self.y[start : start + size])


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


def describe(path: Path) -> dict[str, Any]:
    """Checks a data set and says what is in it: splits, image shape, dtype, classes, the least and greatest label.

    Raises:
        InvalidInput: not an ``.npz`` of plain arrays with the expected names, or arrays that do not fit each other.
    """
    arrays = _read(path)
    x, y = arrays["x_train"], arrays["y_train"]
    for name in ("train", "test", "val"):
        if f"x_{name}" in arrays:
            _check(name, arrays[f"x_{name}"], arrays[f"y_{name}"], x.shape[1:], x.dtype)
    labels = np.concatenate([arrays[name] for name in arrays if name.startswith("y_")])
    return {
        "splits": {name: len(arrays.get(f"y_{name}", ())) for name in ("train", "test", "val")},
        "shape": list(x.shape[1:]),
        "dtype": str(x.dtype),
        "classes": len(np.unique(y)),
        "labels": [int(labels.min()), int(labels.max())],
    }


def load(path: Path, seed: int) -> Splits:
    """The splits of a job: search images are ``x_val``, or held out from the training images (chosen by ``seed``).

    Either way they are in a drawn order, so that the first of them stand for all.
    """
    arrays = _read(path)
    train = Split(arrays["x_train"], arrays["y_train"].astype(np.int64))
    test = Split(arrays["x_test"], arrays["y_test"].astype(np.int64))
    if "x_val" in arrays:
        order = np.random.default_rng(seed).permutation(len(arrays["y_val"]))
        return Splits(train, Split(arrays["x_val"][order], arrays["y_val"][order].astype(np.int64)), test)
    order = np.random.default_rng(seed).permutation(len(train))
    held = max(1, min(SEARCH_IMAGES, int(len(train) * SEARCH_SHARE)))
    search, rest = order[:held], order[held:]
    return Splits(Split(train.x[rest], train.y[rest]), Split(train.x[search], train.y[search]), test)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [member.filename.removesuffix(".npy") for member in archive.infolist()]
            expanded = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InvalidInput("data", None, "is not an .npz archive; write it with numpy.savez") from error
    if expanded > _MAX_EXPANSION * path.stat().st_size:
        raise InvalidInput("data", None, f"expands more than {_MAX_EXPANSION} times; write it with numpy.savez")
    missing = [name for name in _REQUIRED if name not in names]
    unknown = [name for name in names if name not in (*_REQUIRED, *_OPTIONAL)]
    half = ("x_val" in names) != ("y_val" in names)
    if missing or unknown or half or len(set(names)) != len(names):
        raise InvalidInput("data", sorted(names), "must hold exactly x_train, y_train, x_test, y_test and maybe x_val, y_val")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in names}
    except (ValueError, OSError, zipfile.BadZipFile, EOFError, KeyError, MemoryError) as error:
        raise InvalidInput(
            "data", None, f"holds something that is no plain array of numbers ({error}); save it again"
        ) from error


def _check(name: str, x: NDArray[Any], y: NDArray[Any], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if x.dtype not in (np.uint8, np.float16, np.float32, np.float64) or x.ndim < 2:
        raise InvalidInput(f"x_{name}", f"{x.dtype} {list(x.shape)}", "must be uint8 or float images, one row each")
    if x.shape[1:] != shape or x.dtype != dtype:
        raise InvalidInput(
            f"x_{name}", f"{x.dtype} {list(x.shape[1:])}", f"differs from x_train, {dtype} {list(shape)}; make them alike"
        )
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer) or len(y) != len(x):
        raise InvalidInput(f"y_{name}", f"{y.dtype} {list(y.shape)}", f"must be {len(x)} whole-number labels, one per image")
    if len(y) < 2:  # one image can be split into nothing and averaged over nothing
        raise InvalidInput(f"x_{name}", len(y), "is too few images; give two or more")
    if y.min() < 0:
        raise InvalidInput(f"y_{name}", int(y.min()), "is a negative label; number classes from 0")
    if x.dtype != np.uint8 and not np.isfinite(x).all():
        raise InvalidInput(f"x_{name}", None, "holds values that are not finite; remove those images")
