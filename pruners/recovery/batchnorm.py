"""BatchNorm recalibration: after a cut the stored statistics describe channels that are gone; measure them again.

The cheapest recovery there is, and the one that makes candidates comparable before any training (EagleEye, arXiv 2007.02491).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def recalibrate_batchnorm(module: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replaces running means and variances by plain averages over the batches, in place.

    Only BatchNorm runs in training mode meanwhile (no dropout, no gradient); modes and momenta are restored.

    Args:
        module: a network; one without BatchNorm is left alone.
        batches: inputs ``[n, …]``; with none of them the statistics stay as they are.
    """
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    batches = iter(batches)
    first = next(batches, None)
    if not norms or first is None:
        return
    before = [(part, part.training) for part in module.modules()]
    momenta = [norm.momentum for norm in norms]
    module.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average over all batches
        norm.train()
    try:
        with torch.inference_mode():
            module(first)
            for batch in batches:
                module(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for part, training in before:
            part.training = training
