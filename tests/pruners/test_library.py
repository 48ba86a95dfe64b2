"""The one-shot pruners: exact counts, shared masks, statistics of the user's own passes, files, and removal for real."""

from __future__ import annotations

import copy
import math
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pruners import (
    ActivationAPoZRankFilterPruner,
    ActivationMeanRankFilterPruner,
    FPGMPruner,
    L1FilterPruner,
    L2FilterPruner,
    LevelPruner,
    ModelSpeedup,
    RandomFilterPruner,
    SlimPruner,
    TaylorFOWeightFilterPruner,
)
from pruners.errors import InvalidInput
from pruners.library.ranking import share
from tests.networks import VGG16BN, CifarResNet, MobileNetV2, randomise

BY_WEIGHT = [L1FilterPruner, L2FilterPruner, FPGMPruner, RandomFilterPruner]
BY_DATA = [ActivationAPoZRankFilterPruner, ActivationMeanRankFilterPruner, TaylorFOWeightFilterPruner]

TOLERANCE = 1e-5  # relative: float32 sums of a few thousand terms in another order


class Every(nn.Module):
    """One layer of each type that is pruned, a lambda, and a module that no tool knows."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Conv1d(3, 7, 3, padding=1)
        self.line_up = nn.ConvTranspose1d(7, 10, 3, padding=1)
        self.plane = nn.Conv2d(1, 9, 3, padding=1, bias=False)
        self.plane_up = nn.ConvTranspose2d(9, 6, 3, padding=1, groups=3)
        self.space = nn.Conv3d(1, 5, 3, padding=1)
        self.space_up = nn.ConvTranspose3d(5, 4, 3, padding=1)
        self.fc = nn.Linear(4, 11)
        self.act = lambda x: F.relu(x) + 0.1

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.line_up(self.act(self.line(x))))
        x = self.act(self.plane_up(self.act(self.plane(x.unsqueeze(1)))))
        x = self.act(self.space_up(self.act(self.space(x.unsqueeze(1)))))
        return self.fc(x.mean((2, 3, 4)))


CHANNELS = {"line": 7, "line_up": 10, "plane": 9, "plane_up": 6, "space": 5, "space_up": 4, "fc": 11}


def batches(shape: tuple[int, ...] = (3, 8), count: int = 2) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(4, *shape, generator=generator), torch.randint(10, (4,), generator=generator)) for _ in range(count)]


def make(
    pruner: type, model: nn.Module, config: list[dict[str, object]], shape: tuple[int, ...] = (3, 8), **more: object
) -> object:
    if pruner in BY_DATA:
        more["calibration"] = batches(shape)
    return pruner(model, config, **more)


def gone(pruner: object, name: str) -> list[int]:
    """The channels that a mask silences, checked against the weights and the bias."""
    layer, masks = pruner.layers[name], pruner.masks[name]  # type: ignore[attr-defined]
    dim = 1 if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d) else 0
    groups = layer.groups if dim else 1

    def silent(tensor: Tensor) -> Tensor:
        rows = tensor.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1) if dim else tensor
        return (rows.flatten(1) == 0).all(1)

    assert torch.equal(silent(masks["weight"]), silent(layer.weight.detach()))
    assert bool(((masks["weight"] == 0) | (masks["weight"] == 1)).all())
    if layer.bias is None:
        assert masks["bias"] is None
    else:
        assert torch.equal(masks["bias"] == 0, silent(masks["weight"]))
        assert bool((layer.bias[masks["bias"] == 0] == 0).all())
    return silent(masks["weight"]).nonzero().flatten().tolist()


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.99])
@pytest.mark.parametrize("pruner", BY_WEIGHT + BY_DATA)
def test_each_layer_of_each_type_loses_exactly_what_was_asked(pruner: type, sparsity: float) -> None:
    torch.manual_seed(0)
    model = Every().train()
    made = make(pruner, model, [{"sparsity": sparsity, "op_types": ["default"]}])
    assert made.compress() is model
    assert {name: len(gone(made, name)) for name in CHANNELS} == {name: int(sparsity * n) for name, n in CHANNELS.items()}
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    kept = [parameter for name, parameter in model.named_parameters() if name.endswith("weight")]
    assert all(bool((parameter != 0).any()) for parameter in kept)


@pytest.mark.parametrize("pruner", [L1FilterPruner, L2FilterPruner, FPGMPruner])
def test_of_equal_filters_the_last_go_and_never_all(pruner: type) -> None:
    model = nn.Sequential(nn.Conv2d(2, 6, 3))
    nn.init.ones_(model[0].weight)
    made = pruner(model, [{"sparsity": 0.5, "op_types": ["Conv2d"]}])
    made.compress()
    assert gone(made, "0") == [3, 4, 5]


def test_the_weakest_filters_go() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    model[0].weight.data = torch.tensor([[4.0], [1.0], [-3.0], [2.0]]) * torch.ones(4, 4)
    made = L1FilterPruner(model, [{"sparsity": 0.5, "op_names": ["0"]}])
    made.compress()
    assert gone(made, "0") == [1, 3]


def test_a_sparsity_means_the_decimal_that_was_typed() -> None:
    assert 0.29 * 100 < 29
    assert math.floor(share(0.29, 100)) == 29
    assert math.floor(share(0.3, 10)) == 3


def test_entries_have_their_own_sparsities_and_exclusions() -> None:
    model = CifarResNet(8)
    made = L1FilterPruner(
        model,
        [
            {"sparsity": 0.5, "op_types": ["Conv2d"]},
            {"sparsity": 0.25, "op_names": ["blocks.2.conv1"]},
            {"exclude": True, "op_names": ["conv1"]},
        ],
    )
    made.compress()
    assert "conv1" not in made.masks
    assert (len(gone(made, "blocks.0.conv1")), len(gone(made, "blocks.2.conv1"))) == (8, 16)


@pytest.mark.parametrize("pruner", BY_WEIGHT + BY_DATA)
def test_masks_only_grow(pruner: type) -> None:
    torch.manual_seed(0)
    model = Every()
    made = make(pruner, model, [{"sparsity": 0.5, "op_types": ["default"]}])
    before: dict[str, set[int]] = {name: set() for name in CHANNELS}
    for sparsity in (0.2, 0.5, 0.7):
        made.mask_to(dict.fromkeys(CHANNELS, sparsity))
        after = {name: set(gone(made, name)) for name in CHANNELS}
        assert all(before[name] <= after[name] for name in CHANNELS)
        assert {name: len(each) for name, each in after.items()} == {name: int(sparsity * n) for name, n in CHANNELS.items()}
        before = after
    made.mask_to(dict.fromkeys(CHANNELS, 0.1))
    assert {name: set(gone(made, name)) for name in CHANNELS} == before


# Statistics of the user's own passes.


@pytest.mark.parametrize("pruner", BY_DATA)
def test_statistics_come_from_the_users_own_passes(pruner: type) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))
    config = [{"sparsity": 0.5, "op_types": ["Conv2d"]}]
    data = batches((3, 8, 8), 3)
    reference = pruner(copy.deepcopy(model), config, calibration=data[:2])
    reference.compress()
    made = pruner(model, config, statistics_batch_num=2)
    made.compress()
    for place, (x, y) in enumerate(data):
        assert bool((model[0].weight_mask == 1).all()), "ones until both batches have passed"
        if place == 1:
            with pytest.raises(InvalidInput, match=r"^statistics_batch_num 2 have not all passed; run 2 "):
                made.export_model("never-written.pth")
        if place == 2:
            break
        F.cross_entropy(model(x), y).backward()
    model(data[2][0])
    assert gone(made, "0") == gone(reference, "0")
    assert len(gone(made, "0")) == 4
    assert not model._forward_pre_hooks


def test_looking_at_the_masks_after_the_last_batch_sets_them() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3))
    made = ActivationAPoZRankFilterPruner(model, [{"sparsity": 0.5, "op_types": ["Conv2d"]}])
    made.compress()
    assert gone(made, "0") == []
    model(batches((3, 8, 8))[0][0])
    assert len(gone(made, "0")) == 4


# Dependency-aware masks and removal.

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


def relative(first: Tensor, second: Tensor) -> float:
    return float((first - second).detach().abs().max() / second.detach().abs().max())


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("pruner", [L1FilterPruner, TaylorFOWeightFilterPruner])
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


# Slim.


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
    made = SlimPruner(norm_in := nn.Sequential(norm), [{"sparsity": 0.5, "op_types": ["BatchNorm2d"]}], optimizer, scale=0.25)
    for inside in (True, False):
        (norm_in(torch.zeros(2, 3, 2, 2)) * 0).sum().backward()
        if inside:
            with made.sparsifying():
                optimizer.step()
        else:
            optimizer.step()
        optimizer.zero_grad()
        assert norm.weight.tolist() == [0.25, -0.25, 0.0]
    with pytest.raises(InvalidInput, match=r"^optimizer is missing; "), SlimPruner(norm_in, [{"sparsity": 0.5, "op_types": ["default"]}]).sparsifying():  # fmt: skip  # noqa: E501
        pass


# Level.


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


# Files.


def test_exported_files_load_into_the_plain_class_and_into_model_speedup(tmp_path: Path) -> None:
    model = randomise(CifarResNet(8))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    made = L1FilterPruner(model, [{"sparsity": 0.5, "op_names": ["blocks.0.conv1", "blocks.2.conv1"]}], optimizer)
    with pytest.raises(InvalidInput, match=r"^masks are not set; call compress\(\) first\.$"):
        made.export_model(tmp_path / "early.pth")
    made.compress()
    made.export_model(str(tmp_path / "model.pth"), mask_path=str(tmp_path / "mask.pth"))
    plain = CifarResNet(8).eval()
    plain.load_state_dict(torch.load(tmp_path / "model.pth", weights_only=True))
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    assert torch.equal(plain(x), model(x))
    masks = torch.load(tmp_path / "mask.pth", weights_only=True)
    assert torch.equal(masks["blocks.0.conv1"]["weight"], made.masks["blocks.0.conv1"]["weight"])
    small = ModelSpeedup(plain, torch.zeros(1, 3, 16, 16), str(tmp_path / "mask.pth")).speedup_model()
    assert small.get_submodule("blocks.2.conv1").out_channels == 32


def test_onnx_needs_a_shape_and_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = L1FilterPruner(nn.Sequential(nn.Linear(2, 2)), [{"sparsity": 0.5, "op_types": ["Linear"]}])
    made.compress()
    with pytest.raises(InvalidInput, match=r"^input_shape is missing; onnx_path needs it"):
        made.export_model(tmp_path / "m.pth", onnx_path=tmp_path / "m.onnx")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InvalidInput, match=r"needs the packages onnx and onnxscript; install them\.$"):
        made.export_model(tmp_path / "m.pth", onnx_path=tmp_path / "m.onnx", input_shape=(1, 2))
    assert not list(tmp_path.iterdir()), "refused before anything is written"


def test_masked_weights_stay_zero_through_the_users_training() -> None:
    model = randomise(CifarResNet(8)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    made = FPGMPruner(model, [{"sparsity": 0.5, "op_types": ["Conv2d"]}], optimizer)
    made.compress()
    before = {name: gone(made, name) for name in made.layers}
    for epoch, (x, y) in enumerate(batches((3, 16, 16))):
        made.update_epoch(epoch)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        assert {name: gone(made, name) for name in made.layers} == before
    with pytest.raises(InvalidInput, match=r"^epoch -1 must be 0 or more"):
        made.update_epoch(-1)


def test_the_snippets_of_the_documentation_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs" / "library.md").read_text()
    snippets = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(snippets) >= 8
    torch.manual_seed(0)
    names: dict[str, object] = {"__name__": "snippets"}
    for snippet in snippets:
        exec(snippet, names)  # noqa: S102  (the document's own code)
    documented = set(re.findall(r"\b\w+Pruner\b", "".join(snippets)))
    assert {pruner.__name__ for pruner in [*BY_WEIGHT, *BY_DATA, SlimPruner, LevelPruner]} <= documented
