"""Dependency-aware masks: coupled layers mask the same channels, which can then be removed for real."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from pruners import L1FilterPruner, L2FilterPruner, TaylorFOWeightFilterPruner
from pruners.errors import InvalidInput
from tests.networks import VGG16BN, CifarResNet, MobileNetV2, randomise
from tests.pruners.pruning import TOLERANCE, gone, make, relative

NETWORKS = {
    "resnet": (lambda: CifarResNet(8), (3, 16, 16)),
    "vgg": (lambda: VGG16BN(8), (3, 32, 32)),
    "mobilenet": (MobileNetV2, (3, 16, 16)),
}


def silenced(model: nn.Module, masks: dict[str, dict[str, Tensor | None]]) -> nn.Module:
    """The masked network with the BatchNorm behind each masked layer silenced too, which removal takes along."""
    silent = copy.deepcopy(model).eval()
    modules = dict(silent.named_modules())
    order = [name for name, module in modules.items() if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d)]
    for name, parts in masks.items():
        following = modules[order[order.index(name) + 1]]
        if isinstance(following, nn.BatchNorm2d):
            dead = parts["weight"].flatten(1).sum(1) == 0
            for tensor in (following.weight.data, following.bias.data):
                tensor[dead] = 0
    return silent


@pytest.mark.parametrize(
    ("pruner", "network"),
    [*((L1FilterPruner, network) for network in NETWORKS), (TaylorFOWeightFilterPruner, "resnet")],
)
def test_dependency_aware_masks_are_removed_for_real(pruner: type, network: str) -> None:
    build, shape = NETWORKS[network]
    torch.manual_seed(0)
    model = randomise(build())
    dummy = torch.zeros(1, *shape)
    config = [{"sparsity": 0.5, "op_types": ["Conv2d"]}]
    made = make(pruner, model, config, shape, dependency_aware=True, dummy_input=dummy)
    made.compress()
    widths = {name: layer.out_channels for name, layer in made.layers.items()}
    assert {name: len(gone(made, name)) for name in widths} == {name: n // 2 for name, n in widths.items()}
    small = made.compact(dummy)
    assert made.not_honoured == {}
    assert {name: small.get_submodule(name).out_channels for name in widths} == {name: n - n // 2 for name, n in widths.items()}
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    assert relative(small(x), silenced(model, made.masks)(x)) <= TOLERANCE


def test_parameters_fall_exactly() -> None:
    model = randomise(CifarResNet(8))
    made = L1FilterPruner(
        model, [{"sparsity": 0.5, "op_types": ["Conv2d"]}], dependency_aware=True, dummy_input=torch.zeros(1, 3, 16, 16)
    )
    made.compress()
    halved = CifarResNet(8, width=8)
    small = made.compact(torch.zeros(1, 3, 16, 16))
    assert sum(p.numel() for p in small.parameters()) == sum(p.numel() for p in halved.parameters())


def test_coupled_layers_sum_their_scores_and_take_the_least_sparsity() -> None:
    model = randomise(CifarResNet(8))
    first, second = model.conv1, model.blocks[0].conv2
    model.blocks[1].shortcut = nn.Conv2d(16, 32, 1, 2)  # so that the first stream is these two layers' alone
    config = [{"sparsity": 0.75, "op_names": ["conv1"]}, {"sparsity": 0.25, "op_names": ["blocks.0.conv2"]}]
    summed = sum(conv.weight.detach().double().abs().flatten(1).sum(1) for conv in (first, second))
    made = L1FilterPruner(model, config, dependency_aware=True, dummy_input=torch.zeros(2, 3, 16, 16))
    made.compress()
    expected = sorted(summed.argsort()[:4].tolist())
    assert gone(made, "conv1") == gone(made, "blocks.0.conv2") == expected


def test_groups_of_a_grouped_convolution_lose_equally() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=4), nn.ReLU(), nn.Conv2d(16, 5, 1))
    model[2].weight.data[:4] *= 0.01  # alone, the first group would lose everything
    config = [{"sparsity": 0.5, "op_names": ["2"]}]
    made = L2FilterPruner(model, config, dependency_aware=True, dummy_input=torch.zeros(1, 3, 8, 8))
    made.compress()
    assert [len([channel for channel in gone(made, "2") if channel // 4 == group]) for group in range(4)] == [2, 2, 2, 2]


def test_what_an_export_cannot_follow_needs_no_export_without_dependencies() -> None:
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x).mean((2, 3))
            return y if y.sum() > 0 else -y

    config = [{"sparsity": 0.5, "op_types": ["Conv2d"]}]
    L1FilterPruner(Branch(), config).compress()(torch.zeros(2, 3, 4, 4))
    with pytest.raises(InvalidInput, match=r"^model cannot be exported"):
        L1FilterPruner(Branch(), config, dependency_aware=True, dummy_input=torch.zeros(2, 3, 4, 4))
    with pytest.raises(InvalidInput, match=r"^dummy_input is missing; "):
        L1FilterPruner(Branch(), config, dependency_aware=True)
