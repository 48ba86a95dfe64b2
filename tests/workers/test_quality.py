"""The score: nearness to the dense network's outputs, whatever their scale."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from workers.objective import make_objective
from workers.quality import Quality, divergences
from workers.spec import Task
from workers.tasks import METRICS


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


def measured(metric: str, kind: str, outputs: Tensor, reference: Tensor, labels: Tensor | None) -> Quality:
    task = Task.model_validate({"type": kind, "metric": metric})
    return make_objective(task, reference).quality(outputs, reference, labels)


def test_what_is_reported_of_a_classifier() -> None:
    outputs, labels = logits(0), torch.arange(200) % 10
    top = outputs.argsort(1, descending=True)
    for metric, best in (("top1", 1), ("top5", 5)):
        expected = (top[:, :best] == labels[:, None]).any(1).double().mean()
        assert measured(metric, "classification", outputs, logits(1), labels).metric == pytest.approx(float(expected))
    found = measured("cross_entropy", "classification", outputs, logits(1), labels)
    assert found.metric == pytest.approx(float(functional.cross_entropy(outputs, labels)), rel=1e-5)
    assert found.divergence == pytest.approx(divergence(outputs, logits(1)))


def test_without_labels_the_dense_networks_answers_are_right() -> None:
    outputs, dense = logits(0), logits(1)
    wrong = torch.zeros(200, dtype=torch.long)  # labels that the data have all the same are not looked at
    agreement = measured("agreement", "label_free", outputs, dense, wrong).metric
    assert agreement == pytest.approx(float((outputs.argmax(1) == dense.argmax(1)).double().mean()))
    assert measured("agreement", "label_free", dense, dense, None).metric == 1
    assert measured("kl", "label_free", outputs, dense, None).metric == pytest.approx(kl(outputs, dense))
    assert measured("relative_error", "label_free", 1.5 * dense, dense, None).metric == pytest.approx(0.5)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 4, 5)])
def test_values_are_judged_in_any_shape(shape: tuple[int, ...]) -> None:
    draw = torch.Generator().manual_seed(0)
    dense = 7 + 3 * torch.randn(50, *shape, generator=draw)
    outputs, labels = (dense + torch.randn(50, *shape, generator=draw) for _ in range(2))
    mse, mae = (measured(metric, "regression", outputs, dense, labels.reshape(50, *shape)) for metric in ("mse", "mae"))
    assert mse.metric == pytest.approx(float((outputs - labels).square().mean()), rel=1e-5)
    assert mae.metric == pytest.approx(float((outputs - labels).abs().mean()), rel=1e-5)
    apart, spread = (outputs - dense).square().sum(), (dense - dense.mean(0)).square().sum()
    assert mse.divergence == mae.divergence == pytest.approx(float(apart / spread), rel=1e-5)
    assert mse.losses.shape == (50,)
    assert measured("mse", "regression", dense, dense, labels).divergence == 0
    constant = dense.mean(0, keepdim=True).expand_as(dense)
    assert measured("mse", "regression", constant, dense, labels).divergence == pytest.approx(1)


def test_targets_of_one_number_are_not_spread_over_the_batch() -> None:
    outputs, labels = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([1.0, 2.0, 3.0])
    assert measured("mse", "regression", outputs, outputs, labels).metric == pytest.approx(1 / 3)
    objective = make_objective(Task.model_validate({"type": "regression"}), outputs)
    assert float(objective.loss(outputs, labels)) == pytest.approx(1 / 3 / max(1, 14 / 9), rel=1e-6)


@pytest.mark.parametrize("unit", [1e-3, 1, 1e4])
def test_the_distance_of_values_does_not_depend_on_their_unit(unit: float) -> None:
    dense, outputs = logits(0), logits(0) + 0.3 * logits(1)
    found = measured("mse", "regression", unit * outputs, unit * dense, unit * dense)
    assert found.divergence == pytest.approx(measured("mse", "regression", outputs, dense, dense).divergence, rel=1e-4)


def test_outputs_that_never_vary_can_still_be_told_from_others() -> None:
    same = torch.full((20, 2), 3.0)
    assert measured("mse", "regression", same, same, same).divergence == 0
    assert measured("mse", "regression", same + 1, same, same).divergence == pytest.approx(1 / 9)


@pytest.mark.parametrize(
    ("shape", "metric"), [((20, 10), "agreement"), ((20, 1), "relative_error"), ((20, 3, 4), "relative_error")]
)
def test_what_is_reported_without_labels_depends_on_the_outputs(shape: tuple[int, ...], metric: str) -> None:
    assert make_objective(Task.model_validate({"type": "label_free"}), torch.zeros(shape)).name == metric


def test_which_way_is_better() -> None:
    higher = {name for name, metric in METRICS.items() if metric.better(0.9, 0.1)}
    assert higher == {"top1", "top5", "agreement", "custom_score"}
    assert all(metric.better(0.1, 0.9) for name, metric in METRICS.items() if name not in higher)
