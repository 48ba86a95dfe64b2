"""Tensors of a program archive: raw bytes, checked against what their descriptions claim before a tensor exists."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pruners.errors import InvalidInput, UnsafeProgram
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

_STRIDED = 7
_MAX_DIMS = 12  # no operator handled here makes or takes more


def read_tensors(archive: Archive) -> dict[str, Tensor]:
    """All weights, buffers and constants by name; names that share one storage in the same way share one tensor.

    Raises:
        UnsafeProgram: a tensor or constant stored as a pickle or custom object.
        InvalidInput: a description that does not fit its bytes.
    """
    tensors: dict[str, Tensor] = {}
    shared: dict[tuple[object, ...], Tensor] = {}
    for folder, config in (("weights", "model_weights_config.json"), ("constants", "model_constants_config.json")):
        for name, entry in archive.json(f"data/{folder}/{config}")["config"].items():
            if entry["use_pickle"] is not False or not str(entry["path_name"]).startswith(("weight_", "tensor_")):
                raise UnsafeProgram(
                    "model",
                    None,
                    f"stores {name!r} as a pickle, which is never opened; save it with plain dense tensors",
                )
            member = f"data/{folder}/{entry['path_name']}"
            dtype, sizes, strides, offset = _layout(name, entry["tensor_meta"])
            key = (member, dtype, sizes, strides, offset)
            if key not in shared:
                shared[key] = _build(name, archive.read(member), dtype, sizes, strides, offset)
            tensors[name] = shared[key]
    return tensors


def _layout(name: str, meta: dict[str, Any]) -> tuple[torch.dtype, tuple[int, ...], tuple[int, ...], int]:
    if meta["layout"] != _STRIDED or meta["dtype"] not in DTYPES:
        raise InvalidInput("model", None, f"has {name!r} in a layout or dtype that is not handled; use a dense float tensor")
    sizes = tuple(size["as_int"] for size in meta["sizes"])
    strides = tuple(stride["as_int"] for stride in meta["strides"])
    offset = meta["storage_offset"]["as_int"]
    numbers = (*sizes, *strides, offset)
    if len(sizes) != len(strides) or len(sizes) > _MAX_DIMS or any(type(n) is not int or n < 0 for n in numbers):
        raise InvalidInput("model", None, f"describes {name!r} with impossible sizes or strides; export it again")
    return DTYPES[meta["dtype"]], sizes, strides, offset


def _build(name: str, raw: bytes, dtype: torch.dtype, sizes: tuple[int, ...], strides: tuple[int, ...], offset: int) -> Tensor:
    elements = math.prod(sizes)
    if elements == 0:
        return torch.empty(sizes, dtype=dtype)
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    stored = len(raw) // dtype.itemsize
    if last >= stored or elements > stored:
        raise InvalidInput("model", None, f"claims more data for {name!r} than it holds; upload it again")
    storage = torch.frombuffer(bytearray(raw), dtype=dtype, count=stored)
    tensor = storage.as_strided(sizes, strides, offset).clone()
    if dtype.is_floating_point and not torch.isfinite(tensor).all():
        raise InvalidInput("model", None, f"has values in {name!r} that are not finite; retrain or repair it first")
    return tensor
