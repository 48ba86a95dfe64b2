"""The one-shot pruners: exact counts, statistics of the user's own passes, files, and the page of snippets."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pruners import (
    ActivationAPoZRankFilterPruner,
    FPGMPruner,
    L1FilterPruner,
    L2FilterPruner,
    ModelSpeedup,
)
from pruners.errors import InvalidInput
from pruners.library.ranking import share
from tests.networks import CifarResNet, randomise
from tests.pruners.pruning import BY_DATA, BY_WEIGHT, CHANNELS, Every, batches, gone, make, reloaded
from tests.pruners.training import Net, data, network


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


@pytest.mark.parametrize("pruner", BY_DATA)
@pytest.mark.parametrize("copied", [copy.deepcopy, reloaded])
def test_a_network_can_be_copied_while_statistics_are_gathered(pruner: type, copied: Callable[[nn.Module], Net]) -> None:
    config, seen = [{"sparsity": 0.5, "op_types": ["Conv2d"]}], data(2)
    model, other = network().eval(), network().eval()
    reference = pruner(other, config, calibration=seen)
    reference.compress()
    made = pruner(model, config, statistics_batch_num=2)
    made.compress()
    another = copied(model)
    for x, y in seen:  # passes of the copy tell the pruner nothing
        F.cross_entropy(another(x + 1), y).backward()
    another(seen[0][0])
    assert bool((another.conv1.weight_mask == 1).all())
    for x, y in seen:
        assert bool((model.conv1.weight_mask == 1).all())
        F.cross_entropy(model(x), y).backward()
    assert len(gone(made, "conv1")) == 5
    assert gone(made, "conv1") == gone(reference, "conv1")


def test_looking_at_the_masks_after_the_last_batch_sets_them() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3))
    made = ActivationAPoZRankFilterPruner(model, [{"sparsity": 0.5, "op_types": ["Conv2d"]}])
    made.compress()
    assert gone(made, "0") == []
    model(batches((3, 8, 8))[0][0])
    assert len(gone(made, "0")) == 4


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


@pytest.mark.filterwarnings("ignore:`isinstance.treespec:FutureWarning")  # of torch's exporter about torch
def test_onnx_computes_what_the_masked_network_does(tmp_path: Path) -> None:
    import onnxruntime

    model = randomise(CifarResNet(8))
    made = L1FilterPruner(model, [{"sparsity": 0.5, "op_types": ["Conv2d"]}])
    made.compress()
    made.export_model(tmp_path / "m.pth", onnx_path=tmp_path / "m.onnx", input_shape=(2, 3, 16, 16))
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    expected = model(x).detach()
    # relative to the largest output: float32 sums in another order
    assert float((torch.from_numpy(found) - expected).abs().max() / expected.abs().max()) < 1e-5


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
