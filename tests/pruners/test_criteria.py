"""Every formula against a few lines of numpy, and calibration against passes done by hand."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.nn import functional

from pruners.calibration import Calibration, calibrate
from pruners.criteria.apoz import ActivationAPoZRank
from pruners.criteria.base import CRITERIA, Signal
from pruners.criteria.fpgm import FPGM
from pruners.criteria.hessian import Hessian
from pruners.criteria.l1_filter import L1Filter
from pruners.criteria.lamp import LAMP
from pruners.criteria.mean_activation import ActivationMeanRank
from pruners.criteria.random import Random
from pruners.criteria.slim import Slim
from pruners.criteria.taylorfo import TaylorFOWeight
from pruners.errors import InvalidInput

ROOT = Path(__file__).parents[2]
EXACT = 1e-12  # float64 sums of a few hundred terms in another order
FLOAT32 = 1e-5  # float32 sums of a few thousand terms in another order

LAYERS = {
    "conv1d": lambda: nn.Conv1d(4, 6, 3),
    "conv2d": lambda: nn.Conv2d(4, 6, 3),
    "grouped": lambda: nn.Conv2d(4, 6, 3, groups=2, bias=False),
    "conv3d": lambda: nn.Conv3d(4, 6, 2),
    "transposed1d": lambda: nn.ConvTranspose1d(4, 6, 3),
    "transposed2d": lambda: nn.ConvTranspose2d(4, 6, 3, groups=2),
    "transposed3d": lambda: nn.ConvTranspose3d(4, 6, 2),
    "linear": lambda: nn.Linear(4, 6),
}


@pytest.fixture(params=list(LAYERS))
def layer(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = LAYERS[request.param]()
    return made


def rows(layer: nn.Module, tensor: Tensor | None = None) -> NDArray[np.float64]:
    """One row per output channel, spelled out."""
    weight = (layer.weight if tensor is None else tensor).detach().double().numpy()  # type: ignore[union-attr]
    if not isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        return np.stack([weight[channel].ravel() for channel in range(len(weight))])
    inputs, per_group = layer.in_channels // layer.groups, weight.shape[1]
    found = []
    for channel in range(layer.out_channels):
        group, place = divmod(channel, per_group)
        found.append(weight[group * inputs : (group + 1) * inputs, place].ravel())
    return np.stack(found)


def batches(layer: nn.Module, sizes: tuple[int, ...] = (3, 3, 2)) -> list[Tensor]:
    space = () if isinstance(layer, nn.Linear) else (5, 4, 3)[: layer.weight.dim() - 2]
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, 4, *space, generator=generator) for size in sizes]


class Head(nn.Module):
    """A layer as a classifier of six classes."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return torch.sigmoid(y) * y if y.dim() == 2 else (torch.sigmoid(y) * y).flatten(2).mean(2)


def labelled(layer: nn.Module) -> list[tuple[Tensor, Tensor]]:
    return [(x, torch.arange(len(x)) % 6) for x in batches(layer)]


def close(found: Tensor, expected: object, tolerance: float = EXACT) -> None:
    assert found.dtype == torch.float64
    assert found.device.type == "cpu"
    np.testing.assert_allclose(found.numpy(), expected, rtol=tolerance)


def test_l1_is_the_sum_of_absolute_weights(layer: nn.Module) -> None:
    close(L1Filter().scores(layer), np.abs(rows(layer)).sum(1))


def test_l2_is_the_euclidean_norm(layer: nn.Module) -> None:
    close(CRITERIA["l2"]().scores(layer), np.sqrt((rows(layer) ** 2).sum(1)))


def test_fpgm_is_the_sum_of_distances_to_the_other_filters(layer: nn.Module) -> None:
    w = rows(layer)
    expected = [sum(np.sqrt(((one - other) ** 2).sum()) for other in w) for one in w]
    close(FPGM().scores(layer), expected)


def test_fpgm_tells_nearly_equal_filters_apart() -> None:
    layer = nn.Linear(64, 3)
    layer.weight.data = torch.ones(3, 64, dtype=torch.float64)
    layer.weight.data[2] += 1e-9  # inner products of these filters would lose it: (1e-9)² is below float64's last digit
    close(FPGM().scores(layer), [8e-9, 8e-9, 16e-9], 1e-6)  # of 1 + 1e-9 seven digits are left


def test_lamp_divides_by_what_would_outlive_the_filter(layer: nn.Module) -> None:
    squares = (rows(layer) ** 2).sum(1)
    close(LAMP().scores(layer), [one / squares[squares >= one].sum() for one in squares])


def test_lamp_of_a_layer_of_zeros_is_zero() -> None:
    layer = nn.Linear(3, 4)
    nn.init.zeros_(layer.weight)
    assert LAMP().scores(layer).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(5), nn.BatchNorm2d(5), nn.BatchNorm3d(5)])
def test_slim_is_the_absolute_scale(norm: nn.Module) -> None:
    norm.weight.data = torch.tensor([0.5, -2.0, 0.0, 1.0, -0.25])  # type: ignore[union-attr]
    assert Slim().scores(norm).tolist() == [0.5, 2.0, 0.0, 1.0, 0.25]


def test_slim_of_a_norm_without_scales_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"layer 'BatchNorm2d' has no scales: .* use another pruner such as l1"):
        Slim().scores(nn.BatchNorm2d(3, affine=False))


def seen_by_channel(layer: nn.Module) -> NDArray[np.float64]:
    """All outputs ``[channels, …]`` of all batches."""
    with torch.no_grad():
        return np.concatenate([layer(x).movedim(1, 0).flatten(1).double().numpy() for x in batches(layer)], axis=1)


def test_apoz_is_the_share_of_zeros_after_relu(layer: nn.Module) -> None:
    criterion = ActivationAPoZRank()
    statistics = calibrate(Head(layer), {"it": layer}, criterion, labelled(layer))["it"]
    expected = (np.maximum(seen_by_channel(layer), 0) == 0).mean(1)
    close(statistics, expected)
    close(criterion.scores(layer, statistics), 1 - expected)


@pytest.mark.parametrize("absolute", [False, True])
def test_mean_activation_is_the_mean_after_relu_or_of_the_absolute_value(layer: nn.Module, absolute: bool) -> None:
    criterion = ActivationMeanRank(absolute=absolute)
    outputs = seen_by_channel(layer)
    expected = (np.abs(outputs) if absolute else np.maximum(outputs, 0)).mean(1)
    statistics = calibrate(Head(layer), {"it": layer}, criterion, labelled(layer))["it"]
    close(criterion.scores(layer, statistics), expected, FLOAT32)


def test_taylor_is_the_mean_over_batches_of_squares_per_weight(layer: nn.Module) -> None:
    found = []
    for inputs, targets in labelled(layer):
        (gradient,) = torch.autograd.grad(functional.cross_entropy(Head(layer)(inputs), targets), [layer.weight])
        found.append(((rows(layer) * rows(layer, gradient)) ** 2).sum(1))
    criterion = TaylorFOWeight()
    statistics = calibrate(Head(layer), {"it": layer}, criterion, labelled(layer))["it"]
    close(criterion.scores(layer, statistics), np.mean(found, axis=0), FLOAT32)


def test_hessian_weighs_the_mean_curvature_by_the_norm(layer: nn.Module) -> None:
    trace = torch.tensor([0.5, 2.0, -1.0, 0.0, 3.0, 1.0], dtype=torch.float64)
    w = rows(layer)
    expected = np.abs(trace.numpy()) / (2 * w.shape[1]) * (w**2).sum(1)
    close(Hessian().scores(layer, trace), expected)


def test_hessian_statistics_are_products_with_random_signs() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(2, 3)
    data = [(torch.randn(4, 2), torch.tensor([0, 1, 2, 0])) for _ in range(2)]

    def loss(weight: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(functional.linear(inputs, weight, layer.bias), targets)

    generator = torch.Generator().manual_seed(5)
    expected = []
    for inputs, targets in data:
        full = torch.autograd.functional.hessian(lambda w, x=inputs, y=targets: loss(w, x, y), layer.weight).reshape(6, 6)
        for _ in range(3):
            signs = torch.randint(0, 2, (3, 2), generator=generator) * 2 - 1
            product = full.detach().numpy() @ signs.reshape(6).numpy()
            expected.append((signs.numpy() * product.reshape(3, 2)).sum(1))
    found = calibrate(layer, {"it": layer}, Hessian(samples=3, seed=5), data)["it"]
    close(found, np.mean(expected, axis=0), FLOAT32)


def test_curvature_passes_through_attention() -> None:
    """Whose fused kernels have no second derivative."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.values = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.values(x)[:, None]
            return functional.scaled_dot_product_attention(y, y, y).mean((1, 2))

    torch.manual_seed(0)
    model = Attention()
    found = calibrate(model, {"it": model.values}, Hessian(), [(torch.randn(3, 5, 4), torch.tensor([0, 1, 2]))])["it"]
    assert found.isfinite().all()


def test_the_mean_over_all_signs_is_the_trace() -> None:
    """Hutchinson's estimator has no bias: over the 2⁴ vectors of ±1 it is the trace of each filter's block itself."""
    random = np.random.default_rng(0)
    half = random.normal(size=(4, 4))
    full = half + half.T
    criterion = Hessian()
    found = []
    for signs in itertools.product((-1.0, 1.0), repeat=4):
        vector = torch.tensor(signs, dtype=torch.float64)
        product = torch.from_numpy(full) @ vector
        found.append(criterion.observe(vector.reshape(2, 2), product.reshape(2, 2)).numpy())
    np.testing.assert_allclose(np.mean(found, axis=0), np.diag(full).reshape(2, 2).sum(1), rtol=EXACT)


def test_random_is_uniform_and_follows_its_seed() -> None:
    layer = nn.Linear(1, 4000)
    first = Random(seed=3).scores(layer)
    assert torch.equal(first, Random(seed=3).scores(layer))
    assert not torch.equal(first, Random(seed=4).scores(layer))
    assert ((first >= 0) & (first < 1)).all()
    counts = torch.histc(first, 4, 0, 1)
    assert (counts - 1000).abs().max() < 5 * (4000 * 0.25 * 0.75) ** 0.5  # five standard deviations


def test_parameters_beyond_their_bounds_are_refused() -> None:
    with pytest.raises(InvalidInput, match="images 0 is too small; give 1 or more"):
        TaylorFOWeight(images=0)
    with pytest.raises(InvalidInput, match="seed 2147483648 is too large; give 2147483647 or less"):
        Random(seed=2**31)


def test_a_criterion_without_its_statistics_says_so() -> None:
    with pytest.raises(InvalidInput, match=r"statistics are missing: .* give it some batches"):
        TaylorFOWeight().scores(nn.Linear(2, 2))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 36, 4))


def images(count: int = 6, size: int = 4) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    return [(torch.randn(size, 1, 8, 8, generator=generator), torch.arange(size) % 4) for _ in range(count)]


@pytest.mark.parametrize("criterion", [ActivationAPoZRank(), ActivationMeanRank(), TaylorFOWeight()])
def test_hooks_gather_from_the_users_own_passes_and_go(criterion: TaylorFOWeight) -> None:
    model = network().eval()
    layers = {"conv": model[0], "linear": model[4]}
    expected = calibrate(model, layers, criterion, images(3))
    calibration = Calibration(layers, criterion, batches=3)
    for number, (inputs, targets) in enumerate(images(6)):
        assert calibration.complete == (number >= 3)
        functional.cross_entropy(model(inputs), targets).backward()
    found = calibration.statistics()
    assert all(torch.equal(found[name], expected[name]) for name in layers)
    assert not any(part._forward_hooks for part in model.modules())
    assert not any(parameter._backward_hooks for parameter in model.parameters())


def test_closing_removes_the_hooks_that_are_left() -> None:
    model = network()
    calibration = Calibration({"conv": model[0]}, ActivationAPoZRank())
    model(images(1)[0][0])
    calibration.close()
    before = calibration.statistics()["conv"]
    model(images(2)[1][0])
    assert torch.equal(calibration.statistics()["conv"], before)


def test_a_batch_whose_gradients_overflowed_is_not_counted() -> None:
    model = network().eval()
    calibration = Calibration({"conv": model[0]}, TaylorFOWeight(), batches=1)
    (functional.cross_entropy(model(images(1)[0][0]), images(1)[0][1]) * float("inf")).backward()
    assert not calibration.complete
    functional.cross_entropy(model(images(1)[0][0]), images(1)[0][1]).backward()
    assert calibration.complete
    assert calibration.statistics()["conv"].isfinite().all()


@pytest.mark.parametrize("criterion", [ActivationAPoZRank(), TaylorFOWeight(), Hessian()])
def test_a_layer_that_no_batch_reaches_is_named(criterion: TaylorFOWeight) -> None:
    model = network()
    model.add_module("unused", nn.Linear(2, 3))
    model.forward = lambda x: nn.Sequential.forward(model[:5], x)  # type: ignore[method-assign]
    with pytest.raises(InvalidInput, match="layer 'unused' was reached by no batch"):
        calibrate(model, {"conv": model[0], "unused": model[5]}, criterion, images(1))


def test_no_batches_at_all_is_an_error() -> None:
    model = network()
    with pytest.raises(InvalidInput, match="layer 'conv' was reached by no batch"):
        calibrate(model, {"conv": model[0]}, ActivationAPoZRank(), [])


def test_a_frozen_weight_is_named_before_any_pass() -> None:
    model = network()
    model[0].weight.requires_grad_(False)
    with pytest.raises(InvalidInput, match="layer 'conv' has a frozen weight"):
        Calibration({"linear": model[4], "conv": model[0]}, TaylorFOWeight())
    assert not model[4].weight._backward_hooks


def test_curvature_is_not_seen_in_passing() -> None:
    with pytest.raises(InvalidInput, match="pruner 'Hessian' looks at second derivatives of the loss, which your own passes"):
        Calibration({"conv": nn.Conv2d(1, 1, 1)}, Hessian())


def gathered(rank: int, world: int) -> list[Tensor]:
    """What hooks find on one rank's share of the batches, in a distributed model where there are several ranks."""
    found = []
    for criterion in (ActivationAPoZRank(), ActivationMeanRank(), TaylorFOWeight()):
        model = network().eval()
        calibration = Calibration({"conv": model[0], "linear": model[4]}, criterion, batches=6 // world)
        passes = nn.parallel.DistributedDataParallel(model) if world > 1 else model
        for inputs, targets in images()[rank::world]:
            functional.cross_entropy(passes(inputs), targets).backward()
        found.extend(calibration.statistics().values())
    return found


def run_rank(rank: int, folder: str) -> None:
    """One of two ranks that meet in a folder and leave there what they found."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.save(gathered(rank, 2), f"{folder}/{rank}.pt")
    distributed.barrier()  # neither closes its connections while the other may still use them
    distributed.destroy_process_group()


def test_ranks_agree_with_one_process_that_sees_all_batches(tmp_path: Path) -> None:
    script = "import sys; from tests.pruners.test_criteria import run_rank; run_rank(int(sys.argv[1]), sys.argv[2])"
    with contextlib.ExitStack() as stack:
        ranks = [
            stack.enter_context(subprocess.Popen([sys.executable, "-c", script, str(rank), str(tmp_path)], cwd=ROOT))
            for rank in range(2)
        ]
        assert [rank.wait(120) for rank in ranks] == [0, 0]
    # In a process of its own too: what other tests left set in this one may change how float32 passes add up.
    lone = "import sys, torch; from tests.pruners.test_criteria import gathered; torch.save(gathered(0, 1), sys.argv[1])"
    subprocess.run([sys.executable, "-c", lone, str(tmp_path / "alone.pt")], cwd=ROOT, check=True, timeout=120)
    first, second, single = (torch.load(tmp_path / f"{name}.pt") for name in ("0", "1", "alone"))
    for one, other, alone in zip(first, second, single, strict=True):
        assert torch.equal(one, other)
        torch.testing.assert_close(one, alone, rtol=EXACT, atol=0)


def test_signals_say_what_must_be_seen() -> None:
    wanted = {
        Signal.WEIGHT: {"l1", "l2", "fpgm", "slim", "lamp", "random"},
        Signal.ACTIVATION: {"apoz", "mean_activation"},
        Signal.GRADIENT: {"taylorfo"},
        Signal.CURVATURE: {"hessian"},
    }
    assert {name: CRITERIA[name].signal for name in CRITERIA} == {name: one for one, names in wanted.items() for name in names}
