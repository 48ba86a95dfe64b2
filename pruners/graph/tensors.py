"""Tensors of a program archive: raw bytes, checked against what their descriptions claim before a tensor exists."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from keyword import iskeyword
from typing import Any

import torch
from torch import Tensor, nn

from pruners.errors import InvalidInput, UnsafeProgram, quote
from pruners.graph.archive import Archive

DTYPES: dict[int, torch.dtype] = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}
"""The format's dtype codes that are handled (no complex, no float8)."""

MAX_DIMS = 12  # no operator handled here makes or takes more

_STRIDED = 7
_MAX_TENSORS = 100_000  # as many as archive members are read
_MAX_EXPANSION = 2  # bytes of tensors per byte of the file: a fused weight beside the views that its layers use
_PATH = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", re.ASCII)
_RESERVED = frozenset(dir(nn.Module())) - {"T_destination"}


@dataclass(frozen=True)
class _Layout:
    """Where a tensor lies in the archive; equal for tied tensors. ``strides`` and ``offset`` count elements."""

    member: str
    dtype: torch.dtype
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    @property
    def elements(self) -> int:
        return math.prod(self.sizes)

    @property
    def last(self) -> int:
        """The place of the last element in the storage."""
        return self.offset + sum((size - 1) * stride for size, stride in zip(self.sizes, self.strides, strict=True))

    @property
    def contiguous(self) -> bool:
        expected = 1
        for size, stride in zip(reversed(self.sizes), reversed(self.strides), strict=True):
            if size != 1 and stride != expected:
                return False
            expected *= size
        return True


def read_tensors(archive: Archive, wanted: Iterable[str]) -> dict[str, Tensor]:
    """The wanted weights, buffers and constants by name, with all other names of tied ones, which share one tensor.

    Nothing else is read. Views into a common storage become tensors of their own.

    Raises:
        UnsafeProgram: a tensor stored as a pickle, or named so that no module could hold it.
        InvalidInput: a description that does not fit its bytes, or values that are not finite (buffers may hold infinities).
    """
    layouts, parameters = _layouts(archive)
    used: dict[_Layout, None] = {}
    for name in wanted:
        _check_name(name)
        if name not in layouts:
            raise InvalidInput("model", None, f"has no data for its tensor {quote(name)}; export it again")
        used[layouts[name]] = None
    names = {name: layout for name, layout in layouts.items() if layout in used}
    _check_names(names)
    for name, layout in names.items():
        _check_size(name, layout, archive.size_of(layout.member) if layout.elements else 0)
    if sum(layout.elements * layout.dtype.itemsize for layout in used) > _MAX_EXPANSION * archive.size:
        raise InvalidInput(
            "model", None, f"describes more than {_MAX_EXPANSION} bytes of tensors per byte of the file; upload it again"
        )
    tensors = _build(archive, used)
    for name, layout in names.items():
        _check_values(name, tensors[layout], name in parameters)
    return {name: tensors[layout] for name, layout in names.items()}


def _layouts(archive: Archive) -> tuple[dict[str, _Layout], set[str]]:
    layouts: dict[str, _Layout] = {}
    parameters: set[str] = set()
    for folder, prefix, config in (
        ("weights", "weight_", "model_weights_config.json"),
        ("constants", "tensor_", "model_constants_config.json"),
    ):
        entries = archive.json(f"data/{folder}/{config}")["config"]
        if len(layouts) + len(entries) > _MAX_TENSORS:
            raise InvalidInput("model", None, f"describes more than {_MAX_TENSORS} tensors, the most that are read")
        for name, entry in entries.items():
            member = entry["path_name"]
            if entry["use_pickle"] is not False or not isinstance(member, str) or not member.startswith(prefix):
                raise UnsafeProgram(
                    "model", None, f"stores {quote(name)} as a pickle, which is never opened; save it with plain dense tensors"
                )
            if name in layouts:
                raise InvalidInput("model", None, f"holds {quote(name)} as a weight and as a constant; export it again")
            layouts[name] = _layout(name, f"data/{folder}/{member}", entry["tensor_meta"])
            if entry["is_param"]:
                parameters.add(name)
    return layouts, parameters


def _layout(name: str, member: str, meta: dict[str, Any]) -> _Layout:
    if meta["layout"] != _STRIDED or meta["dtype"] not in DTYPES:
        raise InvalidInput(
            "model", None, f"has {quote(name)} in a layout or dtype that is not handled; use a dense tensor of real numbers"
        )
    sizes = tuple(size["as_int"] for size in meta["sizes"])
    strides = tuple(stride["as_int"] for stride in meta["strides"])
    offset = meta["storage_offset"]["as_int"]
    numbers = (*sizes, *strides, offset)
    if len(sizes) != len(strides) or len(sizes) > MAX_DIMS or any(type(n) is not int or n < 0 for n in numbers):
        raise InvalidInput("model", None, f"describes {quote(name)} with impossible sizes or strides; export it again")
    return _Layout(member, DTYPES[meta["dtype"]], sizes, strides, offset)


def _check_name(name: str) -> None:
    parts = name.split(".") if _PATH.fullmatch(name) else []
    if not parts or any(part in _RESERVED or part.startswith("__") for part in parts):
        raise UnsafeProgram("model", None, f"names a tensor {quote(name)}, which no module could hold; rename it")
    if reserved := next((part for part in parts if iskeyword(part)), None):
        raise InvalidInput(
            "model", None, f"names a tensor {quote(name)} with the Python keyword {reserved!r}; rename that part"
        )


def _check_names(names: Iterable[str]) -> None:
    known = set(names)
    for name in known:
        _check_name(name)
        folders = name.split(".")[:-1]
        for length in range(1, len(folders) + 1):
            if (folder := ".".join(folders[:length])) in known:
                raise InvalidInput("model", None, f"names both a tensor and a module {quote(folder)}; rename one of them")


def _check_size(name: str, layout: _Layout, stored_bytes: int) -> None:
    stored = stored_bytes // layout.dtype.itemsize
    if layout.elements == 0:
        if math.prod(max(size, 1) for size in layout.sizes) > 2**32:  # torch multiplies the sizes however empty the tensor
            raise InvalidInput("model", None, f"describes {quote(name)} with impossible sizes; export it again")
    elif layout.last >= stored:
        raise InvalidInput("model", None, f"claims more data for {quote(name)} than it holds; upload it again")
    elif layout.elements > stored:
        raise InvalidInput(
            "model", None, f"has {quote(name)} expanded beyond its storage; give it .contiguous() and export it again"
        )


def _build(archive: Archive, layouts: Iterable[_Layout]) -> dict[_Layout, Tensor]:
    """Every layout's tensor; each member is read once, and freed unless it is one tensor as it stands."""
    members: dict[str, list[_Layout]] = {}
    tensors: dict[_Layout, Tensor] = {}
    for layout in layouts:
        if layout.elements:
            members.setdefault(layout.member, []).append(layout)
        else:
            tensors[layout] = torch.empty(layout.sizes, dtype=layout.dtype)
    for member, sharing in members.items():
        raw = torch.empty(archive.size_of(member), dtype=torch.uint8)
        start = 0
        for chunk in archive.chunks(member):
            raw[start : start + len(chunk)] = torch.frombuffer(chunk, dtype=torch.uint8)
            start += len(chunk)
        for layout in sharing:
            dtype = layout.dtype
            whole = raw[: len(raw) // dtype.itemsize * dtype.itemsize]
            storage = whole.ne(0) if dtype is torch.bool else whole.view(dtype)  # any other byte would be no bool
            tensor = storage.as_strided(layout.sizes, layout.strides, layout.offset)
            plain = len(sharing) == 1 and layout.contiguous and layout.elements * dtype.itemsize == len(raw)
            tensors[layout] = tensor if plain else tensor.clone()
    return tensors


def _check_values(name: str, tensor: Tensor, parameter: bool) -> None:
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return
    extremes = [float(extreme) for extreme in tensor.aminmax()]  # NaN prevails
    if any(math.isnan(extreme) or (parameter and math.isinf(extreme)) for extreme in extremes):
        raise InvalidInput("model", None, f"has values in {quote(name)} that are not finite; retrain or repair it first")
