"""``.tar`` of class folders: ``train/cat/1.png``, or ``cat/1.png`` without splits, or images alone without labels.

Nothing is ever unpacked: members are read where they lie, and a name is only ever compared with other names.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from pruners.errors import InvalidInput, reason
from workers.arrays import Column
from workers.formats.base import DRAWN, SPLIT_OF, Source, assign
from workers.formats.images import common_kind, pixels

_SHOWN = 80  # characters of a name
_MOST_CLASSES = 2**15  # all of which the answer names; ImageNet-21k has 21,841


def read(path: Path) -> Source:
    """The images and their folders; raises ``InvalidInput``."""
    places, parts = _members(path)
    names = ["/".join(each)[-_SHOWN:] for each in parts]
    parts = _without_root(parts)
    split_of = None
    if all(each[0] in SPLIT_OF and len(each) > 1 for each in parts):
        split_of, parts = [SPLIT_OF[each[0]] for each in parts], [each[1:] for each in parts]
    labelled = {len(each) > 1 for each in parts}
    if len(labelled) > 1:
        raise InvalidInput("data", None, "has images inside and outside class folders; put all of them into folders, or none")

    def images() -> Iterator[tuple[str, bytes]]:
        with path.open("rb") as file:
            for name, (begin, size) in zip(names, places, strict=True):
                file.seek(begin)
                yield name, file.read(size)

    kind = common_kind(images)
    rows, drawn = assign(split_of, len(parts))
    columns = {f"x_{split}": pixels(images, kind, chosen) for split, chosen in rows.items()}
    said = DRAWN if drawn else "the folders train, val and test"
    if labelled == {False}:
        return Source(columns, said)
    folders = [each[0] for each in parts]
    classes = sorted(set(folders))
    if len(classes) > _MOST_CLASSES:
        raise InvalidInput("data", len(classes), f"is more class folders than {_MOST_CLASSES:,}; sort the images into fewer")
    if not drawn:
        _check_learnt(folders, rows)
    number_of = {name: number for number, name in enumerate(classes)}
    labels = np.array([number_of[name] for name in folders], np.int64)
    columns |= {f"y_{split}": Column.of(labels[chosen]) for split, chosen in rows.items()}
    return Source(columns, said, classes)


def _members(path: Path) -> tuple[list[tuple[int, int]], list[tuple[str, ...]]]:
    """Where each image lies in the file, and its name in parts; names sort as they would in a folder."""
    found = []
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if member.isdir():
                    continue
                name = member.name[-_SHOWN:]
                if not member.isreg() or member.issparse():
                    raise InvalidInput("data", name, "is a link, a device or sparse, not a file; archive the files themselves")
                parts = PurePosixPath(member.name).parts
                if member.name.startswith("/") or ".." in parts or "\\" in member.name or not member.name.isprintable():
                    raise InvalidInput("data", name, "leads out of the archive or cannot be shown; rename it")
                if not parts or parts[-1].startswith("."):
                    continue  # .DS_Store and the like: never an image
                found.append((parts, (member.offset_data, member.size)))
    except (tarfile.TarError, OSError, EOFError, OverflowError, ValueError) as error:
        raise InvalidInput(
            "data", None, f"is no whole .tar archive ({reason(error)}); make it by tar -cf, uncompressed"
        ) from error
    end = path.stat().st_size
    if any(begin + size > end for _, (begin, size) in found):
        raise InvalidInput("data", None, "ends within a file; upload the whole archive")
    if not found:
        raise InvalidInput("data", None, "has no images in it; archive a folder of class folders")
    found.sort()
    if len({parts for parts, _ in found}) < len(found):
        raise InvalidInput("data", None, "has two files of one name; make the archive anew")
    return [place for _, place in found], [parts for parts, _ in found]


def _without_root(parts: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Without the folders that everything lies in, as far as class folders and splits are left."""
    while len({each[0] for each in parts}) == 1 and min(len(each) for each in parts) > 2 and parts[0][0] not in SPLIT_OF:
        parts = [each[1:] for each in parts]
    return list(parts)


def _check_learnt(folders: Sequence[str], rows: dict[str, NDArray[np.int64]]) -> None:
    known = {folders[number] for number in rows["train"].tolist()}
    for chosen in rows.values():
        for number in chosen.tolist():
            if folders[number] not in known:
                problem = "is a class without a training image; name the folders of all splits alike"
                raise InvalidInput("data", folders[number][-_SHOWN:], problem)
