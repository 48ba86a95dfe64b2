"""Pruning: which channels belong together, which matter least, and how to take them out of a network for real.

The names below are imported when they are first used, so that ``import pruners`` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pruners.library.filters import (
        ActivationAPoZRankFilterPruner,
        ActivationMeanRankFilterPruner,
        FPGMPruner,
        L1FilterPruner,
        L2FilterPruner,
        RandomFilterPruner,
        TaylorFOWeightFilterPruner,
    )
    from pruners.library.level import LevelPruner
    from pruners.library.slim import SlimPruner
    from pruners.schedules.admm import ADMMPruner
    from pruners.schedules.agp import AGPPruner
    from pruners.schedules.linear import LinearPruner
    from pruners.schedules.lottery_ticket import LotteryTicketPruner
    from pruners.speedup import ModelSpeedup

_MODULES = {
    "ADMMPruner": "pruners.schedules.admm",
    "AGPPruner": "pruners.schedules.agp",
    "ActivationAPoZRankFilterPruner": "pruners.library.filters",
    "ActivationMeanRankFilterPruner": "pruners.library.filters",
    "FPGMPruner": "pruners.library.filters",
    "L1FilterPruner": "pruners.library.filters",
    "L2FilterPruner": "pruners.library.filters",
    "LevelPruner": "pruners.library.level",
    "LinearPruner": "pruners.schedules.linear",
    "LotteryTicketPruner": "pruners.schedules.lottery_ticket",
    "ModelSpeedup": "pruners.speedup",
    "RandomFilterPruner": "pruners.library.filters",
    "SlimPruner": "pruners.library.slim",
    "TaylorFOWeightFilterPruner": "pruners.library.filters",
}

__all__ = [
    "ADMMPruner",
    "AGPPruner",
    "ActivationAPoZRankFilterPruner",
    "ActivationMeanRankFilterPruner",
    "FPGMPruner",
    "L1FilterPruner",
    "L2FilterPruner",
    "LevelPruner",
    "LinearPruner",
    "LotteryTicketPruner",
    "ModelSpeedup",
    "RandomFilterPruner",
    "SlimPruner",
    "TaylorFOWeightFilterPruner",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
