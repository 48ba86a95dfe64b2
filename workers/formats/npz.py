"""``.npz``: what ``numpy.savez`` writes, arrays alone; pickled objects are refused by what their header says."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pruners.errors import InvalidInput, reason
from workers.arrays import Column
from workers.formats.base import ROWS_BYTES, SPLITS, Source

MAX_EXPANSION = 1000  # real images compress a few times; more is a decompression bomb

_INPUTS, _TARGETS = (tuple(f"{letter}_{split}" for split in SPLITS) for letter in "xy")
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read(path: Path) -> Source:
    """The arrays by name; raises ``InvalidInput``."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InvalidInput("data", None, "is not an .npz archive; write it with numpy.savez") from error
    if sum(member.file_size for member in members) > MAX_EXPANSION * path.stat().st_size:
        raise InvalidInput("data", None, f"expands more than {MAX_EXPANSION} times; write it with numpy.savez")
    by_name = {member.filename.removesuffix(".npy"): member for member in members}
    _check_names([member.filename.removesuffix(".npy") for member in members])
    return Source({name: _column(path, name, member) for name, member in by_name.items()}, "the arrays' names")


def _check_names(names: list[str]) -> None:
    inputs, targets = ([name for name in names if name in known] for known in (_INPUTS, _TARGETS))
    lone = targets and {name[2:] for name in inputs} != {name[2:] for name in targets}
    missing = "x_train" not in inputs or "x_test" not in inputs
    if missing or lone or len(inputs) + len(targets) != len(names) or len(set(names)) != len(names):
        wanted = "must hold exactly x_train, y_train, x_test, y_test and maybe x_val, y_val, or the same without any y"
        raise InvalidInput("data", sorted(names), wanted)


def _column(path: Path, name: str, member: zipfile.ZipInfo) -> Column:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
            shape, transposed, dtype = _header(file)
            left = member.file_size - file.tell()
    except (ValueError, OSError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, NotImplementedError) as error:
        raise InvalidInput(name, None, f"is no plain array ({reason(error)}); save it again") from error
    if dtype.hasobject or dtype.kind not in "buif":
        problem = "holds pickled objects or text, no plain array of numbers; convert it to numbers first"
        raise InvalidInput(name, str(dtype), problem)
    if not shape or min(shape) < 0 or math.prod(shape) * dtype.itemsize != left:
        raise InvalidInput(name, f"{dtype} {list(shape)}", f"does not fit the {left:,} bytes that follow; save it again")

    def pieces() -> Iterator[NDArray[Any]]:
        rows = max(1, ROWS_BYTES * shape[0] // max(left, 1)) if shape[0] else 1
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
            _header(file)
            if transposed:  # its rows lie nowhere together
                yield np.frombuffer(file.read(), dtype).reshape(shape[::-1]).T
                return
            for start in range(0, shape[0], rows):
                size = (min(rows, shape[0] - start), *shape[1:])
                yield np.frombuffer(_exactly(file, math.prod(size) * dtype.itemsize), dtype).reshape(size)

    return Column(_stored(name, dtype), shape, _named(name, pieces))


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"version {version} of .npy")
    return _HEADERS[version](file)  # evaluates literals alone, of 10,000 characters at most


def _exactly(file: IO[bytes], size: int) -> bytes:
    parts = file.read(size)
    if len(parts) != size:
        raise EOFError("it ends too early")
    return parts


def _stored(name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """As what jobs read it: inputs become float32 sooner or later, labels are 64 bits wide."""
    if name.startswith("y_"):
        return np.dtype("<f4" if dtype.kind == "f" else "<i8")
    return np.dtype("<f4") if dtype.kind == "f" and dtype.itemsize > 4 else dtype.newbyteorder("<")


def _named(name: str, pieces: Any) -> Any:
    def read() -> Iterator[NDArray[Any]]:
        try:
            yield from pieces()
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise InvalidInput(name, None, f"cannot be read to its end ({reason(error)}); save it again") from error

    return read
