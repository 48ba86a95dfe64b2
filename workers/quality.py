"""How near a network's outputs are to the dense network's, whatever their scale: what trials are scored by.

A network that lost channels is not only wrong about some images, its outputs are also too large or too small altogether. Any
training puts that right within a few steps, and so does a temperature; a plain KL is dominated by it where much was cut. So the
divergence is taken at the temperature that suits the network best (Guo et al., On Calibration of Modern Neural Networks, ICML
2017, arXiv 1706.04599). Over 1/T it is convex, hence Newton's steps find it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

_STEPS = 60  # at most: Newton needs about six, and halving alone comes down to what float64 can tell apart
_EXACT = 1e-9  # a step of 1/T that is smaller than this share of it changes no digit of the divergence


@dataclass(frozen=True)
class Quality:
    """How a network does on some images.

    Attributes:
        accuracy: top-1, 0…1.
        divergence: mean KL from the dense network's outputs to this one's at its best temperature, in nats; 0 is the dense
            network itself. Where a race was given up, what it is expected to be.
        losses: the KL of each image that it saw.
    """

    accuracy: float
    divergence: float
    losses: NDArray[np.float32] = field(repr=False, compare=False)


def quality(outputs: Tensor, reference: Tensor, labels: Tensor) -> Quality:
    """Both measures of a network.

    Args:
        outputs: its logits ``[images, classes]``.
        reference: the dense network's.
        labels: the right classes ``[images]``.
    """
    losses = divergences(outputs, reference)
    accuracy = float((outputs.argmax(1) == labels).double().mean())
    return Quality(accuracy, float(losses.mean()), losses.float().numpy())


@torch.inference_mode()
def divergences(outputs: Tensor, reference: Tensor) -> Tensor:
    """KL between softmax(``reference``) and softmax(``outputs``/T) at the T in (0, ∞] where its mean over images is least.

    Args:
        outputs: logits ``[images, classes]``.
        reference: the like, at temperature 1.

    Returns:
        Nats ``[images]``, float64; not finite where an output is not.
    """
    wanted = functional.log_softmax(reference.double(), 1)
    found = outputs.double()
    found = found / found.std().clamp_min(torch.finfo(torch.float64).tiny)  # so that 1/T is about 1
    target = (wanted.exp() * found).sum(1).mean()  # what the mean output under softmax(found / T) is at the best T

    def excess(sharpness: float) -> tuple[float, float]:
        """Slope and curvature of the divergence over 1/T."""
        share = functional.softmax(sharpness * found, 1)
        mean = (share * found).sum(1, keepdim=True)
        spread = (share * (found - mean).square()).sum(1).mean()
        return float(mean.mean() - target), float(spread)

    # The slope rises with 1/T. Below: sharper is better; above: it is not.
    below, above, sharpness = 0.0, 1.0, 1.0
    if excess(0.0)[0] >= 0:
        sharpness = 0.0  # no better than saying nothing
    else:
        for _ in range(_STEPS):
            slope, curvature = excess(sharpness)
            if slope < 0:
                below, above = sharpness, max(above, 2 * sharpness)
            else:
                above = sharpness
            newton = sharpness - slope / curvature if curvature > 0 else above
            before, sharpness = sharpness, newton if below < newton < above else (below + above) / 2
            if abs(sharpness - before) <= _EXACT * sharpness:
                break
    at_best = functional.log_softmax(sharpness * found, 1)
    return functional.kl_div(at_best, wanted, reduction="none", log_target=True).sum(1)
