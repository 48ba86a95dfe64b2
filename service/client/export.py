"""From what a user has in memory to the two files that a job takes. Imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pruners.errors import InvalidInput
from pruners.graph.plain import plain_copy

_BATCH = 2  # the least example batch that torch.export keeps dynamic: it treats sizes 0 and 1 as constants


def export_model(model: torch.nn.Module, example_input: torch.Tensor, path: Path) -> Path:
    """Writes the network, as it is used for inference, on the CPU and for any batch size, to the ``.pt2`` file ``path``.

    Args:
        model: is copied, not changed.
        example_input: ``[batch, ...]``; a batch of one is doubled.

    Raises:
        InvalidInput: torch cannot export it; says why.
    """
    if not isinstance(example_input, torch.Tensor) or example_input.ndim == 0 or len(example_input) == 0:
        raise InvalidInput("example_input", type(example_input).__name__, "must be a tensor [batch, …] of one input at least")
    example = example_input.detach().cpu()
    if len(example) < _BATCH:
        example = torch.cat([example] * _BATCH)
    shapes = ({0: torch.export.Dim("batch")},)
    try:
        program = torch.export.export(plain_copy(model), (example,), dynamic_shapes=shapes)
    except Exception as error:  # whatever the user's forward, or torch about it, raises
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise InvalidInput("model", None, f"cannot be exported by torch.export: {reason}") from error
    torch.export.save(program, path)
    return path


def write_arrays(data: Mapping[str, Any], path: Path) -> Path:
    """Writes arrays or tensors to the ``.npz`` file ``path``.

    Raises:
        InvalidInput: one that is no array of numbers.
    """
    arrays = {name: _array(name, value) for name, value in data.items()}
    np.savez(path, allow_pickle=False, **arrays)
    return path


def _array(name: str, value: Any) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InvalidInput(f"data.{name}", None, f"is no array: {error}") from error
    if array.dtype.kind not in "biuf":
        raise InvalidInput(f"data.{name}", None, f"holds {array.dtype}; give an array of numbers")
    return array
