"""BatchNorm recalibration: after a cut the stored statistics describe channels that are gone; measure them again.

The cheapest recovery there is, and the one that makes candidates comparable before any training (EagleEye, arXiv 2007.02491).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def recalibrate_batchnorm(module: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replaces running means and variances by plain averages over the batches, in place; see ``recalibrating``.

    Args:
        module: a network; one without BatchNorm is left alone.
        batches: inputs ``[n, …]``; with none of them the statistics stay as they are.
    """
    batches = iter(batches)
    first = next(batches, None)
    if not _norms(module) or first is None:
        return
    with recalibrating(module), torch.inference_mode():
        module(first)
        for batch in batches:
            module(batch)


@contextmanager
def recalibrating(module: nn.Module) -> Iterator[None]:
    """Within it, running means and variances become plain averages over what passes; one batch at least has to.

    Only BatchNorm is in training mode meanwhile (no dropout); modes and momenta are restored.
    """
    norms = _norms(module)
    before = [(part, part.training) for part in module.modules()]
    momenta = [norm.momentum for norm in norms]
    module.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average over all batches
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for part, training in before:
            part.training = training


def _norms(module: nn.Module) -> list[_BatchNorm]:
    return [part for part in module.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
