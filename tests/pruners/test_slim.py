"""Slim: one ranking over all layers, the sparsity-inducing step, and removal that changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pruners import SlimPruner
from pruners.errors import InvalidInput
from tests.networks import VGG16BN, CifarResNet, randomise
from tests.pruners.pruning import TOLERANCE, relative


def scales(model: nn.Module) -> dict[str, Tensor]:
    return {name: m.weight.detach().clone() for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}


def test_slim_ranks_all_layers_of_an_entry_together_and_masks_both_parameters() -> None:
    model = randomise(VGG16BN(8))
    everything = torch.cat(list(scales(model).values()))
    made = SlimPruner(model, [{"sparsity": 0.3, "op_types": ["BatchNorm2d"]}])
    made.compress()
    count = int(0.3 * len(everything))
    masks = torch.cat([parts["weight"] for parts in made.masks.values()])
    assert sorted((masks == 0).nonzero().flatten().tolist()) == sorted(everything.argsort()[:count].tolist())
    for name, parts in made.masks.items():
        layer = model.get_submodule(name)
        assert torch.equal(parts["weight"], parts["bias"])
        assert bool((layer.weight[parts["weight"] == 0] == 0).all() and (layer.bias[parts["bias"] == 0] == 0).all())


def test_slim_never_empties_a_layer_and_honours_each_entry() -> None:
    model = nn.Sequential(*(nn.BatchNorm2d(4) for _ in range(4)))
    for place, norm in enumerate(model):
        norm.weight.data = torch.arange(1.0, 5) * 10**place
    made = SlimPruner(model, [{"sparsity": 0.5, "op_names": ["0", "1"]}, {"sparsity": 0.25, "op_names": ["2", "3"]}])
    made.compress()
    assert [int((made.masks[str(place)]["weight"] == 0).sum()) for place in range(4)] == [3, 1, 2, 0]
    assert made.masks["0"]["weight"].tolist() == [0, 0, 0, 1]


def test_slim_masks_are_removed_without_any_difference() -> None:
    model = randomise(VGG16BN(8))
    made = SlimPruner(model, [{"sparsity": 0.4, "op_types": ["BatchNorm2d"]}])
    made.compress()
    small = made.compact(torch.zeros(1, 3, 32, 32))
    assert made.not_honoured == {}
    assert {name: small.get_submodule(name).num_features for name in made.masks} == {
        name: int(parts["weight"].sum()) for name, parts in made.masks.items()
    }
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert relative(small(x), model(x)) <= TOLERANCE


def test_slim_on_a_residual_stream_removes_what_nobody_hears() -> None:
    model = randomise(CifarResNet(8))
    made = SlimPruner(model, [{"sparsity": 0.5, "op_types": ["BatchNorm2d"]}])
    made.compress()
    small = made.compact(torch.zeros(1, 3, 16, 16))
    inner = "blocks.2.bn1"
    assert small.get_submodule(inner).num_features == int(made.masks[inner]["weight"].sum()) < 64
    x = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    assert relative(small(x), model(x)) <= TOLERANCE


def test_sparsifying_adds_the_sign_of_each_scale_to_its_gradient() -> None:
    norm = nn.BatchNorm2d(3)
    norm.weight.data = torch.tensor([0.5, -0.5, 0.0])
    optimizer = torch.optim.SGD(norm.parameters(), lr=1.0)
    model = nn.Sequential(norm)
    made = SlimPruner(model, [{"sparsity": 0.5, "op_types": ["BatchNorm2d"]}], optimizer, scale=0.25)
    for inside in (True, False):
        (model(torch.zeros(2, 3, 2, 2)) * 0).sum().backward()
        if inside:
            with made.sparsifying():
                optimizer.step()
        else:
            optimizer.step()
        optimizer.zero_grad()
        assert norm.weight.tolist() == [0.25, -0.25, 0.0]


def test_sparsifying_needs_an_optimizer() -> None:
    made = SlimPruner(nn.Sequential(nn.BatchNorm2d(3)), [{"sparsity": 0.5, "op_types": ["default"]}])
    with pytest.raises(InvalidInput, match=r"^optimizer is missing; "), made.sparsifying():
        pass
