"""Level: single weights, per layer, over all layers, or N of M."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pruners import LevelPruner
from pruners.errors import InvalidInput
from pruners.library.ranking import share
from tests.pruners.pruning import CHANNELS, Every


def test_level_takes_the_smallest_weights_of_each_layer_and_no_bias() -> None:
    torch.manual_seed(0)
    model = Every()
    dense = {name: model.get_submodule(name).weight.detach().clone() for name in CHANNELS}
    made = LevelPruner(model, [{"sparsity": 0.7, "op_types": ["default"]}])
    made.compress()
    for name, weight in dense.items():
        mask = made.masks[name]["weight"].flatten()
        assert int((mask == 0).sum()) == math.floor(share(0.7, weight.numel()))
        assert float(weight.abs().flatten()[mask == 0].max()) <= float(weight.abs().flatten()[mask == 1].min())
        assert made.masks[name]["bias"] is None


def test_level_can_rank_all_layers_together() -> None:
    torch.manual_seed(0)
    model = Every()
    model.line.weight.data *= 0.001
    made = LevelPruner(model, [{"sparsity": 0.5, "op_types": ["default"]}], scope="global")
    made.compress()
    masks = {name: parts["weight"] for name, parts in made.masks.items()}
    total = sum(mask.numel() for mask in masks.values())
    assert sum(int((mask == 0).sum()) for mask in masks.values()) == total // 2
    assert int(masks["line"].sum()) == 1, "the layer of small weights keeps its best one"


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (nn.Conv2d(8, 6, 3), lambda t: t.movedim(1, -1)),
        (nn.Linear(12, 5), lambda t: t),
        (nn.ConvTranspose2d(8, 6, 3), lambda t: t.movedim(0, -1)),
        (nn.ConvTranspose1d(8, 6, 3, groups=2), lambda t: t.movedim(0, -1)),
    ],
)
def test_level_two_of_four_along_the_inputs(layer: nn.Module, inputs: object) -> None:
    model = nn.Sequential(layer)
    dense = layer.weight.detach().abs()
    made = LevelPruner(model, [{"sparsity": 0.5, "op_types": ["default"]}], pattern="2:4")
    made.compress()
    mask = inputs(made.masks["0"]["weight"]).reshape(-1, 4)  # type: ignore[operator]
    assert bool((mask.sum(1) == 2).all())
    largest = inputs(dense).reshape(-1, 4).argsort(dim=1, descending=True)[:, :2]  # type: ignore[operator]
    assert bool((mask.gather(1, largest) == 1).all())


@pytest.mark.parametrize(
    ("sparsity", "options", "sentence"),
    [
        (0.5, {"pattern": "4:2"}, "pattern '4:2' must be \"N:M\""),
        (0.5, {"pattern": "2:4", "scope": "global"}, "pattern '2:4' holds within each layer"),
        (0.5, {"scope": "block"}, "scope 'block' must be"),
        (0.4, {"pattern": "2:4"}, "config_list[0].sparsity 0.4 does not fit the pattern 2:4, which is 0.5; ask for that."),
        (0.5, {"pattern": "2:4"}, "config_list '0' has 3 inputs per weight group, no multiple of the pattern's 4; exclude it."),
    ],
)
def test_level_refuses_what_does_not_fit(sparsity: float, options: dict[str, str], sentence: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        LevelPruner(nn.Sequential(nn.Conv2d(3, 4, 3)), [{"sparsity": sparsity, "op_types": ["Conv2d"]}], **options)
    assert sentence in str(refused.value)
