"""Jobs of single weights: zeros exactly as asked, the structure left as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pruners.errors import InvalidInput
from workers.data import load
from workers.plan import make_searcher
from workers.spec import JobSpec
from workers.weight_evaluator import make_evaluator


def level(ratio: float = 0.8, **more: object) -> JobSpec:
    budget = {"metric": "sparsity", "ratio": ratio}
    return JobSpec.model_validate({"budget": budget, "searcher": {"name": "fixed"}, "pruner": {"name": "level"}, **more})


def layers_of(module: nn.Module) -> dict[str, torch.Tensor]:
    kinds = (nn.Conv2d, nn.Linear)
    return {name: layer.weight.detach() for name, layer in module.named_modules() if isinstance(layer, kinds)}


def test_the_smallest_weights_of_every_layer_go_and_nothing_else(files: tuple[Path, Path]) -> None:
    evaluator = make_evaluator(files[0], load(files[1], 0), level(0.7))
    space = evaluator.space()
    widths = make_searcher(space, level(0.7)).ask().widths
    outcome, pruned = evaluator.evaluate_keeping(widths)
    assert pruned is not None
    assert outcome.score is not None
    dense, sparse = layers_of(evaluator.dense), layers_of(pruned.network)
    assert list(dense) == list(sparse)
    total = sum(weight.numel() for weight in dense.values())
    assert sum(int((weight == 0).sum()) for weight in sparse.values()) == int(0.7 * total)
    for name, weight in sparse.items():
        stay = weight != 0
        assert weight.shape == dense[name].shape
        assert torch.equal(weight[stay], dense[name][stay])
        assert abs(float((~stay).float().mean()) - 0.7) <= 2 / weight.numel()
        assert dense[name][~stay].abs().max() <= dense[name][stay].abs().min()
    plan = evaluator.plan(widths)
    assert plan.macs == evaluator.plan(space.dense).macs
    assert plan.sparsity == {name: 1 - kept / dense[name].numel() for name, kept in plan.widths.items()}


def test_excluded_layers_stay_whole(files: tuple[Path, Path]) -> None:
    rules = {"name": "level", "config_list": [{"op_types": ["Conv2d"]}]}
    evaluator = make_evaluator(files[0], load(files[1], 0), level(0.5, pruner=rules))
    pruned = evaluator.prune(make_searcher(evaluator.space(), level(0.5, pruner=rules)).ask().widths)
    linear = [layer for layer in pruned.network.modules() if isinstance(layer, nn.Linear)]
    assert linear
    assert all(bool((layer.weight != 0).all()) for layer in linear)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"searcher": {"name": "netadapt"}}, r"^searcher\.name 'netadapt' does not go with level"),
        ({"recovery": {"short_steps": 5}}, r"^recovery\.short_steps 5 would train zeros away"),
        ({"recovery": {"final_epochs": 5}}, r"^recovery\.final_epochs 5 would train zeros away"),
        ({"recovery": {"finalists": 2}}, r"^recovery\.finalists 2 would train zeros away"),
        ({"recovery": {"least_squares": True}}, r"^recovery\.least_squares True finds no lost inputs"),
        ({"pruner": {"name": "level", "params": {"pattern": "2:4"}}}, r"^pruner\.params .* is not for level"),
    ],
)
def test_what_does_not_go_together_is_refused(files: tuple[Path, Path], change: dict[str, object], sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        make_evaluator(files[0], load(files[1], 0), level(**change))
