"""Named arrays in one file that is mapped into memory instead of being read: what a data set is once it was taken in.

The layout is that of safetensors: eight bytes with the header's length, a JSON header of dtypes, shapes and places, the bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TAGS: dict[str, np.dtype[Any]] = {"U8": np.dtype("u1"), "F16": np.dtype("<f2"), "F32": np.dtype("<f4"), "I64": np.dtype("<i8")}
_ALIGNMENT = 8  # bytes: the widest of these dtypes
_MAX_HEADER = 2**20  # six arrays take a few hundred bytes

DTYPES = tuple(_TAGS.values())
"""What an array may hold."""


@dataclass(frozen=True)
class Column:
    """An array that is not in memory.

    Attributes:
        dtype: one of ``DTYPES``.
        shape: rows first.
        pieces: its rows in order, some at a time, each time that it is called.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    pieces: Callable[[], Iterator[NDArray[Any]]]

    @classmethod
    def of(cls, array: NDArray[Any]) -> Column:
        """Of an array that is in memory all the same."""
        return cls(array.dtype, array.shape, lambda: iter([array]))

    @property
    def nbytes(self) -> int:
        """Of the whole array."""
        return self.dtype.itemsize * math.prod(self.shape)


def write(path: Path, columns: Mapping[str, Column]) -> None:
    """Writes the arrays to an existing or a new file, a piece at a time.

    Raises:
        ValueError: pieces that do not add up to the column's shape.
    """
    # The widest first, so that each begins at a multiple of its own width.
    names = sorted(columns, key=lambda name: (-columns[name].dtype.itemsize, name))
    places, end = {}, 0
    for name in names:
        begin, end = end, end + columns[name].nbytes
        tag = next(tag for tag, dtype in _TAGS.items() if dtype == columns[name].dtype)
        places[name] = {"dtype": tag, "shape": list(columns[name].shape), "data_offsets": [begin, end]}
    header = json.dumps(places).encode()
    header += b" " * (-len(header) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for name in names:
            column, written = columns[name], 0
            for piece in column.pieces():
                if piece.shape[1:] != column.shape[1:]:
                    raise ValueError(f"{name} has rows {piece.shape[1:]} among {column.shape[1:]}")
                file.write(np.ascontiguousarray(piece, column.dtype).data)
                written += len(piece)
            if written != column.shape[0]:
                raise ValueError(f"{name} has {written} rows, not {column.shape[0]}")


def read(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays, read-only, whose pages the system fetches when they are looked at.

    Raises:
        ValueError: not such a file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(_MAX_HEADER, size - 8):
            raise ValueError(f"{path.name} is no file of arrays")
        places = json.loads(file.read(length))
    arrays = {}
    for name, place in places.items():
        dtype, shape = _TAGS[place["dtype"]], tuple(place["shape"])
        begin, end = place["data_offsets"]
        if dtype.itemsize * math.prod(shape) != end - begin or 8 + length + end > size:
            raise ValueError(f"{path.name} ends within {name}")
        # A mapping of no bytes is an error, and an array of none needs no file.
        arrays[name] = np.memmap(path, dtype, "r", 8 + length + begin, shape) if end > begin else np.zeros(shape, dtype)
    return arrays


def is_arrays(path: Path) -> bool:
    """Whether the file begins like one of these; none of the formats of uploads does."""
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") <= _MAX_HEADER
