"""``.parquet``: a column ``image`` of encoded images, maybe ``label`` and ``split``.

``image`` may be Hugging Face's ``{"bytes", "path"}`` too; ``label`` holds whole numbers (classes), or one or more floats.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pruners.errors import InvalidInput, reason
from workers.arrays import Column
from workers.formats.base import DRAWN, SPLIT_OF, Source, assign
from workers.formats.images import common_kind, pixels

_IMAGES_AT_ONCE = 64
_KNOWN = ("image", "label", "split")
_WANTED = "must have a column image, and may have label and split"


def read(path: Path) -> Source:
    """The rows and their splits; raises ``InvalidInput``."""
    with _opened(path) as file:
        names, count = file.schema_arrow.names, file.metadata.num_rows
        if "image" not in names or not set(names) <= set(_KNOWN) or len(set(names)) < len(names):
            raise InvalidInput("data", names, f"{_WANTED}; leave other columns out")
        labels = _labels(file) if "label" in names else None
        split_of = _splits(file) if "split" in names else None
    if count == 0:
        raise InvalidInput("data", None, "has no rows; write some")
    images = partial(_images, path)
    kind = common_kind(images)
    rows, drawn = assign(split_of, count)
    columns = {f"x_{split}": pixels(images, kind, chosen) for split, chosen in rows.items()}
    if labels is not None:
        columns |= {f"y_{split}": Column.of(labels[chosen]) for split, chosen in rows.items()}
    return Source(columns, DRAWN if drawn else "the column split")


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InvalidInput("data", None, f"is no readable .parquet file ({reason(error)}); write it again") from error


def _images(path: Path) -> Iterator[tuple[str, bytes]]:
    """Every row's name and bytes, in order."""
    number = 0
    with _opened(path) as file:
        if not _is_image(file.schema_arrow.field("image").type):
            raise InvalidInput("image", str(file.schema_arrow.field("image").type), "is no column of encoded images")
        try:
            for batch in file.iter_batches(_IMAGES_AT_ONCE, columns=["image"], use_threads=False):
                column = batch.column(0)
                for value in column.field("bytes") if pa.types.is_struct(column.type) else column:
                    if not value.is_valid:
                        raise InvalidInput(f"image {number}", None, "has no bytes; put the image itself into the file")
                    yield f"image {number}", value.as_py()
                    number += 1
        except (pa.ArrowException, OSError) as error:
            raise InvalidInput("image", None, f"cannot be read ({reason(error)}); write the file again") from error


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return "bytes" in [field.name for field in kind] and _is_image(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _labels(file: pq.ParquetFile) -> NDArray[Any]:
    column = _column(file, "label")
    shape, kind = [len(column)], column.type
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        sizes = pc.unique(pc.list_value_length(column)).to_pylist()
        if len(sizes) != 1 or not sizes[0]:
            raise InvalidInput("label", None, "has lists of several lengths, or empty ones; make them one length")
        shape.append(sizes[0])
        column = pc.list_flatten(column)
        kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise InvalidInput("label", str(kind), "is no column of numbers; number the classes from 0")
    if column.null_count:
        raise InvalidInput("label", None, f"is missing in {column.null_count} rows; give every row one, or none")
    numbers: NDArray[Any] = column.to_numpy()
    return numbers.astype("<i8" if pa.types.is_integer(kind) else "<f4").reshape(shape)


def _splits(file: pq.ParquetFile) -> list[str]:
    found = _column(file, "split").to_pylist()
    for name in set(found):
        if name not in SPLIT_OF:
            raise InvalidInput("split", name, "is no split; use train, val and test")
    return [SPLIT_OF[name] for name in found]


def _column(file: pq.ParquetFile, name: str) -> pa.ChunkedArray:
    try:
        return file.read(columns=[name], use_threads=False).column(name)
    except (pa.ArrowException, OSError) as error:
        raise InvalidInput(name, None, f"cannot be read ({reason(error)}); write the file again") from error
