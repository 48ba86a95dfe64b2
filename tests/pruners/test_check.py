"""The self-check of tracing: right rules pass, and a wrong one costs the groups it touches, no more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from pruners.graph import check, ops
from pruners.graph.check import relative_difference, traced
from pruners.graph.groups import Coupling
from pruners.graph.shrink import shrink
from pruners.graph.silence import silence
from pruners.graph.trace import trace
from tests.exporting import load
from tests.networks import VGG16BN, CifarResNet, MobileNetV2, SplitJoin, randomise
from workers.inspection import inspect_model

RIGHT = {
    "resnet20": (lambda: CifarResNet(20), (3, 16, 16)),
    "vgg16": (lambda: VGG16BN(8), (3, 32, 32)),
    "mobilenetv2": (MobileNetV2, (3, 16, 16)),
    "splitjoin": (SplitJoin, (3, 8, 8)),
}


class Flipped(nn.Module):
    """Channels in reverse order on their way to the head, and two convolutions that have nothing to do with it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)  # weights with which the order of the channels shows: some others leave them all at zero
        self.first, self.second, self.third = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.third(F.relu(self.second(F.relu(self.first(x))))))
        return self.head(torch.flip(y, (1,)).mean((2, 3)))


@pytest.mark.parametrize("name", RIGHT)
def test_right_rules_freeze_nothing(name: str, tmp_path: Path) -> None:
    make, shape = RIGHT[name]
    module = load(randomise(make()), shape, tmp_path / "model.pt2")
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    expected = {group.name: group.frozen_reason for group in trace(module).groups}
    assert {group.name: group.frozen_reason for group in traced(module).groups} == expected
    assert all(torch.equal(tensor, before[key]) for key, tensor in module.state_dict().items())


@pytest.fixture
def flip_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong rule: that flipping leaves every channel where it is."""
    monkeypatch.setitem(ops.KINDS, "flip.default", ops.Kind.POINTWISE)


@pytest.mark.usefixtures("flip_in_place")
def test_a_wrong_rule_freezes_what_it_touches_and_says_so(tmp_path: Path) -> None:
    module = load(randomise(Flipped()), (3, 4, 4), tmp_path / "model.pt2")
    assert [group.name for group in trace(module).prunable] == ["first", "second", "third"]
    coupling = traced(module)
    assert [group.name for group in coupling.prunable] == ["first", "second"]
    (failed,) = [group for group in coupling.groups if group.name == "third"]
    assert str(failed.frozen_reason).startswith("failed the self-check: masked and removed differ by ")
    assert coupling.cost("params", [8, 6]) == sum(parameter.numel() for parameter in module.parameters())
    keep = [np.arange(3), np.arange(2)]
    x = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    assert relative_difference(shrink(module, coupling, keep), silence(module, coupling, keep), (x,)) < 1e-5


@pytest.mark.usefixtures("flip_in_place")
def test_inspection_and_trials_freeze_alike(tmp_path: Path) -> None:
    module = load(randomise(Flipped()), (3, 4, 4), tmp_path / "model.pt2")
    found = inspect_model(tmp_path / "model.pt2")
    reasons = {group["name"]: group["frozen_reason"] for group in found["groups"]}
    assert reasons == {group.name: group.frozen_reason for group in traced(module).groups}
    assert len(found["cost"]["divisors"]) == 2


def test_a_rule_that_breaks_the_shrunk_network_is_caught_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong rule: nobody told the head that its inputs go."""

    def forgetful(module: fx.GraphModule) -> Coupling:
        coupling = trace(module)
        members = tuple(member for member in coupling.members if (member.tensor, member.dim) != ("head.weight", 1))
        return replace(coupling, members=members)

    module = load(randomise(Flipped()), (3, 4, 4), tmp_path / "model.pt2")
    monkeypatch.setitem(ops.KINDS, "flip.default", ops.Kind.POINTWISE)
    monkeypatch.setattr(check, "trace", forgetful)
    reasons = {group.name: group.frozen_reason for group in traced(module).groups}
    assert reasons["first"] is reasons["second"] is None
    assert str(reasons["third"]).startswith("failed the self-check: the network does not run without half of it")


class Sigmoids(nn.Module):
    """Activations that make something of zero."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.depthwise = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8)
        self.second, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.softplus(self.depthwise(torch.sigmoid(self.first(x))))
        return self.head((torch.cos(self.second(y)) + 1).mean((2, 3)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_activations_and_dtypes_that_masks_must_bear(dtype: torch.dtype, tmp_path: Path) -> None:
    model = randomise(Sigmoids()).to(dtype)
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(model, (torch.zeros(2, 3, 5, 5, dtype=dtype),), dynamic_shapes=(batch,))
    torch.export.save(program, tmp_path / "model.pt2")
    reasons = {group["name"]: group["frozen_reason"] for group in inspect_model(tmp_path / "model.pt2")["groups"]}
    assert reasons == {"first": None, "second": None, "head": "is an output of the network"}
