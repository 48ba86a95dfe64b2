"""From what a user has in memory to the two files that a job takes. Imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pruners.errors import InvalidInput
from pruners.graph.export import write_program


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
    write_program(model, (example_input,), path)
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
