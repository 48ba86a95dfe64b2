"""What a reader makes of an upload, and what any data set must fulfil."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruners.errors import InvalidInput
from workers.arrays import DTYPES, Column

SPLITS = ("train", "val", "test")
SPLIT_OF = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""What folders and columns call a split, and what it is called here."""

TEST_SHARE = 0.2  # of the rows, where the file says nothing about it
DRAWN = f"no test split in the file: {TEST_SHARE:.0%} of its rows, drawn with seed 0, are for the test"
"""Said of a data set whose test rows were drawn."""

ROWS_BYTES = 2**22  # that are read at a time: enough for a disk to be quick, little beside torch
FEWEST = 2  # one row can be split into nothing and averaged over nothing


@dataclass(frozen=True)
class Source:
    """An upload as its reader found it.

    Attributes:
        columns: ``x_train``, ``x_test``, maybe ``x_val``, and for each ``y_…`` unless there are no labels.
        split_by: what decided which row is in which split, in words.
        class_names: what the labels 0, 1, … stand for, where the file says it.
    """

    columns: dict[str, Column]
    split_by: str
    class_names: list[str] | None = None


@dataclass
class Labels:
    """What is seen of integer labels while they pass."""

    values: set[int] = field(default_factory=set)
    most: int = 2**20  # distinct ones that are counted; more are no classes

    def __bool__(self) -> bool:
        return bool(self.values)

    def add(self, labels: NDArray[np.int64]) -> None:
        """Takes note of some."""
        if len(self.values) <= self.most:
            self.values.update(np.unique(labels).tolist())
        else:
            self.values.update((int(labels.min()), int(labels.max())))


def check(columns: Mapping[str, Column]) -> None:
    """What can be known from dtypes and shapes; raises ``InvalidInput``."""
    x, y = columns["x_train"], columns.get("y_train")
    for split in SPLITS:
        if f"x_{split}" not in columns:
            continue
        own, targets = columns[f"x_{split}"], columns.get(f"y_{split}")
        if own.dtype not in DTYPES or own.dtype.kind == "i" or len(own.shape) < 2:
            raise InvalidInput(f"x_{split}", _shown(own), "must be uint8 or float inputs, one row each")
        if own.shape[1:] != x.shape[1:] or own.dtype != x.dtype:
            raise InvalidInput(f"x_{split}", _shown(own, 1), f"differs from x_train, {_shown(x, 1)}; make them alike")
        if own.shape[0] < FEWEST:
            raise InvalidInput(f"x_{split}", own.shape[0], f"is too few rows; give {FEWEST} or more")
        if 0 in own.shape:
            raise InvalidInput(f"x_{split}", _shown(own), "has an empty dim; save the inputs themselves")
        if targets is None or y is None:
            continue
        if not targets.shape or targets.shape[0] != own.shape[0]:
            raise InvalidInput(f"y_{split}", _shown(targets), f"must have {own.shape[0]} rows, one for each of x_{split}")
        if targets.shape[1:] != y.shape[1:] or targets.dtype != y.dtype:
            raise InvalidInput(f"y_{split}", _shown(targets, 1), f"differs from y_train, {_shown(y, 1)}; make them alike")


def checked(name: str, column: Column, labels: Labels | None) -> Column:
    """The same column in the dtype it says, whose values are looked at while they pass.

    Args:
        name: ``x_train``, ….
        column: what is read.
        labels: takes note of what passes.
    """

    def pieces() -> Iterator[NDArray[Any]]:
        for piece in column.pieces():
            with np.errstate(over="ignore"):
                piece = piece.astype(column.dtype, copy=False)
            if column.dtype.kind == "f" and not np.isfinite(piece).all():
                raise InvalidInput(name, None, f"holds values that are not finite as {column.dtype}; remove those rows")
            if labels is not None and len(piece):
                labels.add(piece)
            yield piece

    return Column(column.dtype, column.shape, pieces)


def drawn_for_test(rows: int) -> NDArray[np.bool_]:
    """Which rows are for the test, where nothing else says so; the same for the same number of rows."""
    chosen = np.zeros(rows, bool)
    chosen[np.random.default_rng(0).permutation(rows)[: max(FEWEST, round(rows * TEST_SHARE))]] = True
    return chosen


def assign(of_rows: Sequence[str] | None, rows: int) -> tuple[dict[str, NDArray[np.int64]], bool]:
    """The numbers of the rows in each split, and whether the test rows were drawn.

    Args:
        of_rows: each row's split by its name, or ``None`` if the file has none.
        rows: how many there are.

    Raises:
        InvalidInput: no row is for training.
    """
    names = np.array(["train"] * rows if of_rows is None else of_rows)
    drawn = "test" not in names
    if drawn:
        train = np.flatnonzero(names == "train")
        names[train[drawn_for_test(len(train))]] = "test"
    if "train" not in names:
        raise InvalidInput("data", None, "has no rows for training; name that split train")
    return {split: np.flatnonzero(names == split) for split in SPLITS if split in names}, drawn


def _shown(column: Column, skip: int = 0) -> str:
    return f"{column.dtype} {list(column.shape[skip:])}"
