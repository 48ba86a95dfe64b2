"""config_list: which layers are selected, and the sentence for each mistake."""

from __future__ import annotations

import pytest
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from pruners.config import Number, parse_config
from pruners.criteria.base import LAYERS, NORMS
from pruners.errors import InvalidInput


class OwnConv(nn.Conv2d):
    pass


def network() -> nn.Module:
    model = nn.Sequential()
    model.add_module("conv1", nn.Conv2d(3, 4, 3))
    model.add_module("bn1", nn.BatchNorm2d(4))
    model.add_module("conv2", nn.Conv2d(4, 4, 3))
    model.add_module("own", OwnConv(4, 4, 1))
    model.add_module("relu", nn.ReLU())
    model.add_module("fc", nn.Linear(4, 2))
    model.add_module("again", model.conv2)
    return model


def parse(*entries: object) -> dict[str, float]:
    found = parse_config(network(), list(entries), "L1FilterPruner", LAYERS)  # type: ignore[arg-type]
    return {name: layer.values["sparsity"] for name, layer in found.items()}


def test_entries_select_by_type_by_name_or_by_both() -> None:
    assert parse({"sparsity": 0.5, "op_types": ["Conv2d"]}) == {"conv1": 0.5, "conv2": 0.5}
    assert parse({"sparsity": 0.5, "op_types": ["default"]}) == {"conv1": 0.5, "conv2": 0.5, "fc": 0.5}
    assert parse({"sparsity": 0, "op_names": ["fc", "own"]}) == {"own": 0.0, "fc": 0.0}
    assert parse({"sparsity": 0.5, "op_types": ["OwnConv"]}) == {"own": 0.5}
    assert parse({"sparsity": 0.5, "op_types": ["Conv2d"], "op_names": ["conv2"]}) == {"conv2": 0.5}
    assert parse({"sparsity": 0.5, "op_names": ["again"]}) == {"conv2": 0.5}


def test_later_entries_win() -> None:
    default, last = {"sparsity": 0.5, "op_types": ["default"]}, {"exclude": True, "op_names": ["fc"]}
    assert parse(default, {"sparsity": 0.8, "op_names": ["conv2"]}, last) == {"conv1": 0.5, "conv2": 0.8}
    assert parse(last, default)["fc"] == 0.5
    found = parse_config(network(), [default, {"sparsity": 0.5, "op_names": ["fc"]}], "L1FilterPruner", LAYERS)
    assert [layer.entry for layer in found.values()] == [0, 0, 1]


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("Conv2d", "config_list[0] 'Conv2d' must be a dict such as"),
        (
            {"op_types": ["Conv2d"], "sparsty": 0.5},
            "config_list[0].sparsty is no key of L1FilterPruner; the closest is 'sparsity'.",
        ),
        (
            {"op_types": ["Conv2d"]},
            "config_list[0].sparsity is missing; give a number of 0 or more and less than 1, or exclude",
        ),
        ({"op_types": ["Conv2d"], "sparsity": 1.0}, "sparsity 1.0 must be a number of 0 or more and less than 1."),
        ({"op_types": ["Conv2d"], "sparsity": -0.1}, "sparsity -0.1 must be"),
        ({"op_types": ["Conv2d"], "sparsity": float("nan")}, "sparsity nan must be"),
        ({"op_types": ["Conv2d"], "sparsity": "0.5"}, "sparsity '0.5' must be a number"),
        ({"op_types": ["Conv2d"], "sparsity": True}, "sparsity True must be a number"),
        ({"sparsity": 0.5}, "config_list[0] selects no layer; give op_types"),
        ({"sparsity": 0.5, "op_types": "Conv2d"}, "op_types 'Conv2d' must be a list of one name at least."),
        ({"sparsity": 0.5, "op_types": []}, "op_types [] must be a list of one name at least."),
        ({"sparsity": 0.5, "op_types": ["conv2d"]}, "op_types 'conv2d' is no layer type; the closest is 'Conv2d'."),
        (
            {"sparsity": 0.5, "op_types": ["ReLU"]},
            "op_types 'ReLU' is not pruned by L1FilterPruner; use one of default, Conv1d",
        ),
        (
            {"sparsity": 0.5, "op_types": ["Conv3d"]},
            "selects no layer; of the types that L1FilterPruner takes the model has Conv2d",
        ),
        ({"sparsity": 0.5, "op_names": ["conv3"]}, "op_names 'conv3' is no layer of the model; the closest is 'conv"),
        ({"sparsity": 0.5, "op_names": ["zzz"]}, "use one of conv1, bn1, conv2, own, relu, fc, again."),
        (
            {"sparsity": 0.5, "op_names": ["relu"]},
            "op_names 'relu' is a ReLU, which L1FilterPruner does not prune; name layers of",
        ),
        ({"sparsity": 0.5, "op_names": ["fc", "fc"]}, "op_names 'fc' stands there twice; leave one of them out."),
        ({"sparsity": 0.5, "op_names": ["conv2", "again"]}, "op_names 'again' stands there twice"),
        (
            {"sparsity": 0.5, "op_types": ["Conv2d"], "op_names": ["fc"]},
            "op_names 'fc' is a Linear, which the entry's op_types leave",
        ),
        ({"exclude": True, "sparsity": 0.5, "op_names": ["fc"]}, "sparsity 0.5 contradicts exclude: True"),
        ({"exclude": "yes", "op_names": ["fc"]}, "exclude 'yes' must be True or False."),
        ({"exclude": True, "op_names": ["fc"]}, "config_list excludes every layer that it selects"),
    ],
)
def test_each_mistake_is_one_sentence_that_names_the_key_and_the_remedy(entry: object, sentence: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse(entry)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("config_list", [[], None, {"sparsity": 0.5}, "default"])
def test_what_is_no_list_of_entries_is_refused(config_list: object) -> None:
    with pytest.raises(InvalidInput, match=r"^config_list .*must be a list of one entry at least, each a dict\.$"):
        parse_config(network(), config_list, "L1FilterPruner", LAYERS)  # type: ignore[arg-type]


def test_schedules_bring_their_own_numbers() -> None:
    numbers = {"final_sparsity": Number(below=1.0), "start_epoch": Number(whole=True, default=0)}
    entry = {"final_sparsity": 0.8, "op_types": ["Conv2d"]}
    found = parse_config(network(), [entry], "AGPPruner", LAYERS, numbers)
    assert found["conv1"].values == {"final_sparsity": 0.8, "start_epoch": 0}
    with pytest.raises(InvalidInput, match=r"start_epoch 1\.5 must be a whole number of 0 or more\."):
        parse_config(network(), [{**entry, "start_epoch": 1.5}], "AGPPruner", LAYERS, numbers)
    with pytest.raises(InvalidInput, match=r"\.sparsity is no key of AGPPruner; the closest is 'final_sparsity'\."):
        parse_config(network(), [{**entry, "sparsity": 0.5}], "AGPPruner", LAYERS, numbers)


def test_computed_and_absent_weights_are_not_pruned() -> None:
    model = nn.Sequential(weight_norm(nn.Linear(2, 2)), nn.BatchNorm1d(2, affine=False))
    with pytest.raises(InvalidInput, match=r"^config_list '0' has a weight that is computed from others"):
        parse_config(model, [{"sparsity": 0.5, "op_names": ["0"]}], "L1FilterPruner", LAYERS)
    with pytest.raises(InvalidInput, match="selects no layer"):
        parse_config(model, [{"sparsity": 0.5, "op_types": ["BatchNorm1d"]}], "SlimPruner", NORMS)
