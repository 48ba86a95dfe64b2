"""From an upload to the arrays that jobs read, and to what is known about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pruners.errors import InvalidInput
from workers import arrays
from workers.formats.base import SPLITS, Labels, Source, check, checked

VERSION = 1
"""Of what is found and written: raised when the same upload would give other arrays."""

_TAR_MARK = slice(257, 262)  # where a tar archive, of whatever age but the very oldest, says "ustar"
_START = 512  # bytes in which every format has named itself


def convert(source: Path, target: Path, most_bytes: int | None = None) -> dict[str, Any]:
    """Checks an upload, writes its arrays and says what they are.

    Args:
        source: an ``.npz``, ``.parquet`` or ``.tar`` file.
        target: gets the arrays; see ``workers.arrays``.
        most_bytes: that they may take.

    Returns:
        ``version``: of these rules;
        ``format, split_by``: what the file is, and what decided which row is in which split;
        ``splits``: rows of each, ``shape, dtype``: of one input;
        ``targets``: ``{"shape", "dtype"}`` of one label, ``None`` without labels;
        ``classes, labels, class_names``: distinct labels of the training rows, the least and the greatest label of all, and
        what they stand for if the file says it; ``None`` where labels are no classes.

    Raises:
        InvalidInput: a file that is none of these, or whose parts do not fit each other.
    """
    kind, found = _read(source)
    columns = found.columns
    check(columns)
    size = sum(column.nbytes for column in columns.values())
    if most_bytes is not None and size > most_bytes:
        problem = f"takes {size:,} bytes once it is unpacked, more than the {most_bytes:,} that are allowed; send less of it"
        raise InvalidInput("data", None, problem)
    y = columns.get("y_train")
    countable = y is not None and y.dtype.kind == "i" and len(y.shape) == 1
    seen = {name: Labels() for name in columns if countable and name.startswith("y_")}
    arrays.write(target, {name: checked(name, column, seen.get(name)) for name, column in columns.items()})
    values = set[int]().union(*(labels.values for labels in seen.values()))
    return {
        "version": VERSION,
        "format": kind,
        "split_by": found.split_by,
        "splits": {split: columns[f"x_{split}"].shape[0] if f"x_{split}" in columns else 0 for split in SPLITS},
        "shape": list(columns["x_train"].shape[1:]),
        "dtype": columns["x_train"].dtype.name,
        "targets": None if y is None else {"shape": list(y.shape[1:]), "dtype": y.dtype.name},
        "classes": len(seen["y_train"].values) if countable else None,
        "labels": [min(values), max(values)] if countable else None,
        "class_names": found.class_names,
    }


def _read(path: Path) -> tuple[str, Source]:
    """By what the file begins with, whatever it is called."""
    with path.open("rb") as file:
        start = file.read(_START)
    if start.startswith(b"PK\x03\x04"):
        from workers.formats import npz

        return "npz", npz.read(path)
    if start.startswith(b"PAR1"):
        from workers.formats import parquet  # takes a while to import

        return "parquet", parquet.read(path)
    if start[_TAR_MARK] == b"ustar":
        from workers.formats import folders

        return "tar", folders.read(path)
    problem = "is neither an .npz archive, nor a .parquet file, nor an uncompressed .tar archive; docs/data.md describes them"
    raise InvalidInput("data", None, problem)
