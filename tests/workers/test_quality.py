"""The score: nearness to the dense network's outputs, whatever their scale."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from workers.quality import divergences, quality


def logits(seed: int, classes: int = 10) -> Tensor:
    return 3 * torch.randn(200, classes, generator=torch.Generator().manual_seed(seed))


def divergence(outputs: Tensor, reference: Tensor) -> float:
    return float(divergences(outputs, reference).mean())


def kl(outputs: Tensor, reference: Tensor) -> float:
    found, wanted = (functional.log_softmax(each.double(), 1) for each in (outputs, reference))
    return float((wanted.exp() * (wanted - found)).sum(1).mean())


@pytest.mark.parametrize("scale", [1e-6, 0.01, 1, 50, 1e6])
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_the_divergence_is_the_least_over_all_temperatures(scale: float, classes: int) -> None:
    reference = logits(0, classes)
    outputs = reference + 2 * logits(1, classes)
    tried = min(kl(outputs * sharpness, reference) for sharpness in np.geomspace(0.001, 10, 400))
    found = divergence(scale * outputs, reference)
    assert tried - 1e-4 <= found <= tried
    assert found == pytest.approx(divergence(outputs, reference), rel=1e-4)  # scale makes no difference


def test_the_dense_network_diverges_from_itself_by_nothing_at_any_scale() -> None:
    for scale in (0.1, 1, 30):
        assert divergence(scale * logits(0), logits(0)) == pytest.approx(0, abs=1e-9)


def test_outputs_that_say_the_opposite_are_worth_as_much_as_none() -> None:
    nothing = divergence(torch.zeros(200, 10), logits(0))
    assert nothing == pytest.approx(kl(torch.zeros(200, 10), logits(0)))
    assert divergence(-logits(0), logits(0)) == pytest.approx(nothing)


def test_a_sure_reference_leaves_the_divergence_finite() -> None:
    sure = 1000 * functional.one_hot(torch.arange(200) % 10, 10).float()
    assert divergence(sure / 1000, sure) == pytest.approx(0, abs=1e-6)
    assert math.isfinite(divergence(logits(0), sure))


def test_outputs_that_are_not_finite_are_not_near_anything() -> None:
    outputs = logits(0)
    outputs[7, 3] = math.nan
    assert not math.isfinite(divergence(outputs, logits(0)))


def test_accuracy_is_top_1() -> None:
    outputs = functional.one_hot(torch.tensor([0, 1, 2, 2]), 3).float()
    assert quality(outputs, outputs, torch.tensor([0, 1, 2, 1])).accuracy == 0.75
