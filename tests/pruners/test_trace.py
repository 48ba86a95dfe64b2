"""Coupled channels: the right groups, and removal that changes nothing but the removed channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from pruners.criteria.l1_filter import L1Filter
from pruners.errors import InvalidInput
from pruners.graph.groups import Coupling
from pruners.graph.modules import build_module
from pruners.graph.program import read_program
from pruners.graph.shrink import shrink
from pruners.graph.silence import silence
from pruners.graph.trace import trace
from pruners.importance import choose, group_scores
from tests.exporting import count_macs, export, load
from tests.networks import VGG16BN, CifarResNet, MobileNetV2, SplitJoin, randomise
from tests.pruners.pruning import shrunk_in_two_steps

NETWORKS = {
    "resnet20": (CifarResNet(20), (3, 32, 32)),
    "vgg16": (VGG16BN(8), (3, 32, 32)),
    "mobilenetv2": (MobileNetV2(), (3, 16, 16)),
    "splitjoin": (SplitJoin(), (3, 8, 8)),
}

TOLERANCE = 1e-5  # relative: float32 sums of a few thousand terms in another order


@pytest.fixture(scope="module", params=NETWORKS)
def traced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[fx.GraphModule, Coupling, tuple]:
    model, shape = NETWORKS[request.param]
    module = load(randomise(model), shape, tmp_path_factory.mktemp("trace") / "model.pt2")
    return module, trace(module), shape


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_masked_equals_removed_and_costs_are_exact(traced: tuple[fx.GraphModule, Coupling, tuple], seed: int) -> None:
    module, coupling, shape = traced
    random = np.random.default_rng(seed)
    widths = [int(random.integers(1, len(group.classes) + 1)) * group.divisor for group in coupling.prunable]
    keep = [
        np.sort(random.permutation(len(group.classes))[: width // group.divisor])
        for group, width in zip(coupling.prunable, widths, strict=True)
    ]
    small = shrink(module, coupling, keep)
    assert coupling.cost("macs", widths) == count_macs(small, shape)
    assert coupling.cost("params", widths) == sum(parameter.numel() for parameter in small.parameters())
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(seed % 2**31))
    with torch.no_grad():
        removed, masked = small(x), silence(module, coupling, keep)(x)
    assert float((removed - masked).abs().max() / masked.abs().max()) <= TOLERANCE
    in_two_steps = shrunk_in_two_steps(module, coupling, keep)
    with torch.no_grad():
        assert torch.equal(in_two_steps(x), removed), "a network that was shrunk is shrunk further"


def test_dense_costs_are_torchs_own(traced: tuple[fx.GraphModule, Coupling, tuple]) -> None:
    module, coupling, shape = traced
    dense = [group.width for group in coupling.prunable]
    assert coupling.cost("macs", dense) == count_macs(module, shape)
    assert coupling.cost("params", dense) == sum(parameter.numel() for parameter in module.parameters())


def test_shrunk_network_trains_and_exports_again(traced: tuple[fx.GraphModule, Coupling, tuple], tmp_path: Path) -> None:
    module, coupling, shape = traced
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    keep = choose(
        coupling, group_scores(module, coupling, L1Filter()), [g.divisor * (len(g.classes) // 2) for g in coupling.prunable]
    )
    small = shrink(module, coupling, keep).train()
    small.get_submodule(coupling.prunable[0].name).register_forward_hook(lambda *_: pytest.fail("that network is not run"))
    small = shrink(module, coupling, keep).train()
    small(torch.randn(4, *shape)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in small.parameters())
    small.zero_grad()
    small.eval()
    again = load(small, shape, tmp_path / "small.pt2")
    x = torch.randn(3, *shape)
    assert torch.allclose(again(x), small(x), rtol=TOLERANCE, atol=1e-7)
    assert trace(again).cost("macs", [g.width for g in trace(again).prunable]) == count_macs(small, shape)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items()), (
        "the dense network is untouched"
    )


def test_resnet_groups(tmp_path: Path) -> None:
    coupling = trace(load(randomise(CifarResNet(20)), (3, 32, 32), tmp_path / "r.pt2"))
    groups = {group.name: group for group in coupling.groups}
    assert [name for name, group in groups.items() if group.residual] == ["conv1", "blocks.3.conv2", "blocks.6.conv2"]
    assert groups["conv1"].width == 16
    assert groups["blocks.3.conv2"].width == 16, "half of the second stage's stream are the first stage's channels"
    assert groups["blocks.6.conv2"].width == 32
    assert groups["conv1"].layers[:2] == ("conv1", "blocks.0.conv2")
    assert "blocks.8.conv2" in groups["conv1"].layers, "option-A shortcuts carry the first stream to the end"
    assert groups["linear"].frozen_reason == "is an output of the network"
    assert len(coupling.prunable) == 12
    widths = [group.width for group in coupling.prunable]
    widths[0] = 10
    assert coupling.layer_widths(widths)["blocks.3.conv2"] == (26, 32)


class Frozen(nn.Module):
    """One convolution before each thing that cannot be followed, and one that can be pruned."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.d = nn.Conv2d(8, 3, 1)
        self.e = nn.Conv2d(3, 6, 1)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.a(x))
        y = torch.cumsum(torch.relu(self.b(y)), 1)
        y = torch.softmax(self.c(y), 1)
        return self.head(self.e(self.d(y) + x).mean((2, 3)))


def test_what_cannot_be_followed_is_frozen_with_its_reason(tmp_path: Path) -> None:
    module = load(randomise(Frozen()), (3, 4, 4), tmp_path / "f.pt2")
    reasons = {group.name: group.frozen_reason for group in trace(module).groups}
    assert reasons["a"] is None
    assert "cumsum" in str(reasons["b"])
    assert "softmax" in str(reasons["c"])
    assert "combined with values" in str(reasons["d"]), "added to the network's input"
    assert reasons["e"] is None
    assert "output" in str(reasons["head"])


def test_a_single_channel_gate_is_not_tied_to_what_it_scales(tmp_path: Path) -> None:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.gate, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 1, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x) * torch.sigmoid(self.gate(x))).mean((2, 3))

    groups = {group.name: group for group in trace(load(Gate(), (3, 4, 4), tmp_path / "g.pt2")).groups}
    assert groups["body"].frozen_reason is None
    assert groups["body"].width == 8
    assert groups["gate"].frozen_reason is not None


def test_tied_layers_are_cut_together(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.first, self.second = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 6)
            self.second.weight = self.first.weight
            self.head = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.second(torch.relu(self.first(torch.relu(self.stem(x)))))))

    module = load(Tied(), (5,), tmp_path / "t.pt2")
    coupling = trace(module)
    widths = [4] * len(coupling.prunable)
    small = shrink(module, coupling, choose(coupling, group_scores(module, coupling, L1Filter()), widths))
    assert small.get_parameter("first.weight") is small.get_parameter("second.weight")
    assert coupling.cost("params", widths) == sum(parameter.numel() for parameter in small.parameters())
    assert small(torch.ones(2, 5)).shape == (2, 2)


def test_a_network_that_does_not_run_is_refused(tmp_path: Path) -> None:
    path = export(nn.Linear(4, 2), (4,), tmp_path / "m.pt2")
    module = build_module(read_program(path))
    module.meta["inputs"] = tuple(type(value)(value.name, (value.shape[0], 5), value.dtype) for value in module.meta["inputs"])
    with pytest.raises(InvalidInput, match="does not run"):
        trace(module)


@pytest.mark.parametrize("keep", [[], [0, 0], [99], [-1]])
def test_impossible_choices_are_refused(keep: list[int], tmp_path: Path) -> None:
    module = load(CifarResNet(8), (3, 8, 8), tmp_path / "m.pt2")
    coupling = trace(module)
    full = [np.arange(len(group.classes)) for group in coupling.prunable]
    with pytest.raises(InvalidInput, match="conv1"):
        shrink(module, coupling, [np.array(keep, dtype=np.int64), *full[1:]])
