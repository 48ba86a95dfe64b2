"""Data sets as files of every format, made in the test: images of one colour, by which they are told apart."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def image(colour: int = 0, size: tuple[int, int] = (6, 4), mode: str = "L", form: str = "PNG", **options: Any) -> bytes:
    """An encoded image, width and height in ``size``."""
    file = io.BytesIO()
    Image.new(mode, size, colour if len(Image.new(mode, (1, 1)).getbands()) == 1 else (colour,) * 3).save(file, form, **options)
    return file.getvalue()


def tar(
    path: Path, members: Mapping[str, bytes] | Sequence[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.PAX_FORMAT
) -> Path:
    """An archive of files by name, or of members made by hand."""
    pairs = [(tarfile.TarInfo(name), content) for name, content in members.items()] if isinstance(members, Mapping) else members
    with tarfile.open(path, "w", format=form) as archive:
        for member, content in pairs:
            member.size = member.size or len(content)
            archive.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return path


def parquet(path: Path, **columns: Any) -> Path:
    """A table of these columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), path)
    return path


def npz(path: Path, **changes: Any) -> Path:
    """Fifty training and twenty test images of five classes; an array that is ``None`` is left out."""
    draw = np.random.default_rng(0)
    good = {
        "x_train": draw.integers(0, 256, (50, 1, 4, 4), dtype=np.uint8),
        "y_train": np.arange(50) % 5,
        "x_test": draw.integers(0, 256, (20, 1, 4, 4), dtype=np.uint8),
        "y_test": np.arange(20) % 5,
    }
    np.savez_compressed(path, **{name: value for name, value in {**good, **changes}.items() if value is not None})
    return path
