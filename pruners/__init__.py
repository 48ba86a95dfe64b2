"""Pruning: which channels belong together, which matter least, and how to take them out of a network for real.

The names below are imported when they are first used, so that ``import pruners`` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pruners.speedup import ModelSpeedup

_MODULES = {"ModelSpeedup": "pruners.speedup"}

__all__ = ["ModelSpeedup"]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
