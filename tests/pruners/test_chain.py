"""A network's parts, one after another, and the network with BatchNorm in its convolutions compute what the network does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from pruners.graph.chain import chain, fingerprints, mutates
from pruners.graph.fuse import fused
from tests.exporting import load
from tests.networks import VGG16BN, CifarResNet, MobileNetV2, SplitJoin, randomise


class Awkward(nn.Module):
    """Transposed and shared convolutions, a norm that two read, one behind a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.shared = nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.one, self.other = nn.BatchNorm2d(6), nn.BatchNorm2d(6)
        self.up = nn.ConvTranspose2d(6, 6, 2, 2, groups=2)
        self.up_norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4)
        self.head_norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        y = F.relu(self.one(y)) + y
        y = F.relu(self.other(self.shared(y)))
        y = self.up_norm(self.up(self.shared(y)))
        left, right = y.split([2, 4], 1)
        return self.head_norm(self.head(torch.cat([right, left], 1).mean((2, 3))))


NETWORKS: dict[str, tuple[nn.Module, int]] = {
    "resnet": (CifarResNet(8, width=4), 8),
    "vgg": (VGG16BN(divide=16), 32),
    "mobilenet": (MobileNetV2(), 16),
    "split": (SplitJoin(), 8),
    "awkward": (Awkward(), 8),
}


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[fx.GraphModule, Tensor]:
    model, size = NETWORKS[request.param]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return load(randomise(model), (3, size, size), tmp_path / "model.pt2"), torch.randn(3, 3, size, size)


@torch.no_grad()
def test_the_parts_one_after_another_are_the_network(network: tuple[fx.GraphModule, Tensor]) -> None:
    module, x = network
    parts = chain(module)
    assert len(parts) > 1
    y = x
    for part in parts:
        y = part(y)
    assert torch.equal(y, module(x)), "the same operators in the same order"
    names = [name for part in parts for name, _ in part.named_modules() if isinstance(module.get_submodule(name), nn.Conv2d)]
    assert sorted(names) == sorted({name for name, part in module.named_modules() if isinstance(part, nn.Conv2d)})


@torch.no_grad()
def test_norms_in_convolutions_change_nothing_but_rounding(network: tuple[fx.GraphModule, Tensor]) -> None:
    module, x = network
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    expected, found = module(x), fused(module)(x)
    scale = expected.abs().max()
    assert (found - expected).abs().max() <= 1e-5 * scale  # float32, tens of layers
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_norms_of_convolutions_are_gone_and_others_stay(tmp_path: Path) -> None:
    module = load(randomise(Awkward()), (3, 8, 8), tmp_path / "model.pt2")
    left = [str(node.target) for node in fused(module).graph.nodes if node.op == "call_module"]
    assert [name for name in left if "norm" in name or name in ("one", "other")] == ["one", "up_norm", "head_norm"]
    whole = load(randomise(CifarResNet(8, width=4)), (3, 8, 8), tmp_path / "model.pt2")
    assert not [part for part in fused(whole).modules() if isinstance(part, nn.BatchNorm2d)]


def test_a_changed_layer_changes_what_stands_for_its_part_and_those_behind(tmp_path: Path) -> None:
    module = load(randomise(CifarResNet(8, width=4)), (3, 8, 8), tmp_path / "model.pt2")
    before = fingerprints(chain(module))
    assert fingerprints(chain(module)) == before
    place = next(i for i, part in enumerate(chain(module)) if "blocks.1.conv2" in dict(part.named_modules()))
    with torch.no_grad():
        module.get_submodule("blocks.1.conv2").get_parameter("weight")[0, 0, 0, 0] += 1
    after = fingerprints(chain(module))
    assert [one == other for one, other in zip(before, after, strict=True)] == [i < place for i in range(len(before))]


def test_writing_in_place_is_noticed(tmp_path: Path) -> None:
    class Inplace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.conv(x), inplace=True).mean((2, 3))

    assert mutates(load(Inplace(), (3, 8, 8), tmp_path / "model.pt2"))
    assert not mutates(load(CifarResNet(8, width=4), (3, 8, 8), tmp_path / "model.pt2"))
