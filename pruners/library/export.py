"""What a masked network is saved as: a plain state dict, the masks beside it, ONNX on request."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from pruners.errors import InvalidInput, reason
from pruners.masking import masks_of, remove_masks

_ONNX_PACKAGES = ("onnx", "onnxscript")  # what torch.onnx.export imports


def export(
    model: nn.Module,
    model_path: str | Path,
    mask_path: str | Path | None,
    onnx_path: str | Path | None,
    input_shape: tuple[int, ...] | None,
) -> None:
    """Writes the files; see ``Pruner.export_model``."""
    if onnx_path is not None:
        if input_shape is None:
            raise InvalidInput("input_shape", None, "is missing; onnx_path needs it, as in (1, 3, 32, 32)")
        if any(importlib.util.find_spec(package) is None for package in _ONNX_PACKAGES):
            raise InvalidInput("onnx_path", str(onnx_path), f"needs the packages {' and '.join(_ONNX_PACKAGES)}; install them")
    plain = copy.deepcopy(model).cpu()
    remove_masks(plain)
    torch.save(plain.state_dict(), model_path)
    if mask_path is not None:
        torch.save({name: _on_cpu(parts) for name, parts in masks_of(model).items()}, mask_path)
    if onnx_path is not None and input_shape is not None:
        try:
            torch.onnx.export(plain.eval(), (torch.zeros(input_shape),), str(onnx_path), dynamo=True, verbose=False)
        except Exception as error:  # whatever the exporter raises about the user's forward or about itself
            raise InvalidInput("onnx_path", str(onnx_path), f"was not written: ONNX export failed ({reason(error)})") from error


def _on_cpu(parts: Mapping[str, Tensor | None]) -> dict[str, Tensor | None]:
    return {part: None if mask is None else mask.cpu() for part, mask in parts.items()}
