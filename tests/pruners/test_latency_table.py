"""The table of layer latencies, on a clock of the test's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from pruners.cost import LATENCY
from pruners.graph.groups import Coupling
from pruners.graph.shrink import shrink
from pruners.graph.trace import trace
from pruners.latency import Latency
from pruners.latency_table import LatencyTable
from tests.exporting import count_macs, load
from tests.networks import VGG16BN, CifarResNet, MobileNetV2, SplitJoin, randomise

NETWORKS = {
    "resnet20": (lambda: CifarResNet(20), (3, 32, 32)),
    "vgg16": (lambda: VGG16BN(8), (3, 32, 32)),
    "mobilenetv2": (MobileNetV2, (3, 16, 16)),
    "splitjoin": (SplitJoin, (3, 8, 8)),
}
SLOWDOWN, OVERHEAD = 3.0, 0.5  # of a whole network over the sum of its layers; milliseconds that come on top


class Clock:
    """Layers take 1 ns a MAC, whole networks three times their layers' and half a millisecond; each is run, so it works."""

    def __init__(self) -> None:
        self.layers: list[tuple[str, int]] = []

    def __call__(self, networks: Sequence[tuple[nn.Module, Tensor]]) -> list[Latency]:
        return [Latency(self._milliseconds(module, example), 0.0) for module, example in networks]

    def _milliseconds(self, module: nn.Module, example: Tensor) -> float:
        if not isinstance(module, fx.GraphModule):
            self.layers.append((type(module).__name__, module.weight.numel()))
        macs = count_macs(module, tuple(example.shape[1:])) * len(example)
        return OVERHEAD + SLOWDOWN * 1e-6 * macs if isinstance(module, fx.GraphModule) else 1e-6 * macs


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[fx.GraphModule, Coupling]:
    make, shape = NETWORKS[request.param]
    module = load(randomise(make()), shape, tmp_path_factory.mktemp("table") / "model.pt2")
    return module, trace(module)


def test_a_clock_that_counts_macs_makes_an_exact_table(network: tuple[fx.GraphModule, Coupling]) -> None:
    """MACs are linear in either width, so interpolation has no error, and neither has the calibration."""
    module, coupling = network
    batch = 3
    table = LatencyTable(module, coupling, module.meta["inputs"][0].example(batch), Clock())
    assert (table.scale, table.overhead) == pytest.approx((SLOWDOWN, OVERHEAD))
    assert table.error == pytest.approx(0, abs=1e-9)
    random = np.random.default_rng(0)
    for _ in range(3):
        widths = [int(random.integers(1, len(group.classes) + 1)) * group.divisor for group in coupling.prunable]
        expected = OVERHEAD + 1e-6 * SLOWDOWN * batch * coupling.cost("macs", widths)
        assert table.predict(widths) == pytest.approx(expected, rel=1e-6)  # float64, and the clock's rounding of MACs


def test_equal_layers_are_measured_once_and_keyed_by_what_matters(tmp_path: Path) -> None:
    module = load(randomise(CifarResNet(20)), (3, 16, 16), tmp_path / "model.pt2")
    clock = Clock()
    table = LatencyTable(module, trace(module), torch.zeros(2, 3, 16, 16), clock)
    assert len(clock.layers) == len(table.entries)
    same = [key for key in table.entries if (key.inputs, key.outputs, key.input_size) == (16, 16, (2, 16, 16))]
    assert sorted(key.stride for key in same) == [(1, 1), (2, 2)], "six layers are the first; one that halves, cut, the second"
    rest = ("cpu", "float32", "Conv2d", (3, 3), 1)
    assert {(key.device, key.dtype, key.type, key.kernel, key.groups) for key in same} == {rest}
    assert {key.outputs for key in table.entries if key.type == "Linear"} == {10}, "the outputs of the network do not vary"


def test_times_between_measured_widths_are_on_the_line_between_them(tmp_path: Path) -> None:
    """A clock with a step at 6 of 8 channels, of which 4 and 8 are measured."""

    class Steps(Clock):
        def _milliseconds(self, module: nn.Module, example: Tensor) -> float:
            part = module.first if isinstance(module, fx.GraphModule) else module
            return 1.0 if part.weight.shape[0] < 6 else 9.0

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(5, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.first(x)))

    module = load(Two(), (5,), tmp_path / "model.pt2")
    table = LatencyTable(module, trace(module), torch.zeros(1, 5), Steps())
    times = {width: table.predict([width]) for width in (1, 4, 5, 7, 8)}
    share = {width: (time - times[4]) / (times[8] - times[4]) for width, time in times.items()}
    assert share == pytest.approx({1: 0, 4: 0, 5: 0.25, 7: 0.75, 8: 1})


def test_a_table_that_does_not_fit_says_so(tmp_path: Path) -> None:
    """Whole networks whose times have nothing to do with their layers: nothing fits, and the error shows it."""

    class Fickle(Clock):
        def _milliseconds(self, module: nn.Module, example: Tensor) -> float:
            if not isinstance(module, fx.GraphModule):
                return super()._milliseconds(module, example)
            self.layers.append(("network", 0))
            return 1.0 if len(self.layers) % 2 else 9.0

    module = load(randomise(CifarResNet(8)), (3, 8, 8), tmp_path / "model.pt2")
    assert LatencyTable(module, trace(module), torch.zeros(1, 3, 8, 8), Fickle()).error > 0.3


def test_as_a_cost_it_rises_with_every_width_whatever_was_measured(tmp_path: Path) -> None:
    """A clock that is right up to a factor of two."""

    class Noisy(Clock):
        def __init__(self) -> None:
            super().__init__()
            self.noise = np.random.default_rng(0)

        def _milliseconds(self, module: nn.Module, example: Tensor) -> float:
            return super()._milliseconds(module, example) * float(self.noise.uniform(0.5, 1))

    module = load(randomise(CifarResNet(20)), (3, 8, 8), tmp_path / "model.pt2")
    coupling = trace(module)
    table = LatencyTable(module, coupling, torch.zeros(1, 3, 8, 8), Noisy())
    cost, random = table.cost(), np.random.default_rng(0)
    dense = np.array([group.width for group in coupling.prunable])
    plans = random.integers(1, dense + 1, (50, len(dense)))
    costs = cost.batch(LATENCY, plans)
    assert costs.tolist() == [cost(LATENCY, plan) for plan in plans]
    assert costs == pytest.approx([1e6 * table.predict(plan) for plan in plans.tolist()], abs=1)
    wider = np.minimum(dense, plans + random.integers(0, 3, plans.shape))
    assert (cost.batch(LATENCY, wider) >= costs).all()
    assert cost("macs", dense) == coupling.cost("macs", dense), "the network's other costs are beside it"


def test_calibrated_where_it_is_asked_it_is_right_there(tmp_path: Path) -> None:
    """A clock on which small networks take relatively long, as they do: no line through all sizes is right for any."""

    class Bent(Clock):
        def _milliseconds(self, module: nn.Module, example: Tensor) -> float:
            time = super()._milliseconds(module, example)
            return time if not isinstance(module, fx.GraphModule) else 10 * time**0.5

    module = load(randomise(CifarResNet(8)), (3, 8, 8), tmp_path / "model.pt2")
    coupling, example, clock = trace(module), torch.zeros(1, 3, 8, 8), Bent()
    table = LatencyTable(module, coupling, example, clock)
    dense, half = ([round(share * group.width) for group in coupling.prunable] for share in (1, 0.5))
    keep = [np.arange(len(group.classes) // 2) for group in coupling.prunable]
    actual = clock([(shrink(module, coupling, keep), example)])[0].median_ms
    before, earlier = table.predict(half), table.cost()
    table.calibrate([dense, half, half])
    assert abs(before / actual - 1) > 0.01
    assert table.predict(half) == pytest.approx(actual, rel=1e-6)
    assert earlier(LATENCY, half) == pytest.approx(1e6 * before, abs=1), "a cost that was handed out stays as it was"
