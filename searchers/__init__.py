"""Search: which widths to try next, given how the last ones scored. No Ray here (``tune.py`` aside) and no network.

NNI's pruners below are what a program of one's own imports. They need torch, so they are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from pruners.registry import Registry
from searchers.base import Searcher

if TYPE_CHECKING:
    from searchers.library.amc import AMCPruner
    from searchers.library.auto_compress import AutoCompressPruner
    from searchers.library.netadapt import NetAdaptPruner
    from searchers.library.sensitivity import SensitivityPruner
    from searchers.library.simulated_annealing import SimulatedAnnealingPruner

SEARCHERS: Registry[Searcher] = Registry("searcher", "searchers", skip=("searchers.tune",))

_MODULES = {
    "AMCPruner": "searchers.library.amc",
    "AutoCompressPruner": "searchers.library.auto_compress",
    "NetAdaptPruner": "searchers.library.netadapt",
    "SensitivityPruner": "searchers.library.sensitivity",
    "SimulatedAnnealingPruner": "searchers.library.simulated_annealing",
}

__all__ = ["SEARCHERS", "AMCPruner", "AutoCompressPruner", "NetAdaptPruner", "SensitivityPruner", "SimulatedAnnealingPruner"]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
