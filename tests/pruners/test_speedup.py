"""ModelSpeedup: masks become a smaller network that computes what the masked one does."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pruners import ModelSpeedup
from pruners.errors import InvalidInput
from tests.networks import VGG16BN, BasicBlock, CifarResNet, MobileNetV2, randomise

Masks = dict[str, dict[str, Tensor | None]]

TOLERANCE = 1e-5  # relative: float32 sums of a few thousand terms in another order


def channel_masks(model: nn.Module, layers: dict[str, list[int]]) -> Masks:
    """Masks of 0 at these output channels and of 1 elsewhere."""
    masks: Masks = {}
    for name, channels in layers.items():
        layer = model.get_submodule(name)
        masks[name] = {
            part: None if getattr(layer, part) is None else torch.ones_like(getattr(layer, part)) for part in ("weight", "bias")
        }
        for mask in masks[name].values():
            if mask is not None:
                mask[channels] = 0
    return masks


def masked(model: nn.Module, masks: Masks) -> nn.Module:
    """The reference, by hand: weights, and the BatchNorm behind each layer, silenced where the masks say so."""
    silent = copy.deepcopy(model)
    modules = dict(silent.named_modules())
    order = [name for name, module in modules.items() if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d)]
    with torch.no_grad():
        for name, parts in masks.items():
            gone = parts["weight"].flatten(1).sum(1) == 0
            following = order[order.index(name) + 1 : order.index(name) + 2]
            for module in [modules[name], *(modules[n] for n in following if isinstance(modules[n], nn.BatchNorm2d))]:
                for tensor in (module.weight, module.bias, getattr(module, "running_mean", None)):
                    if tensor is not None:
                        tensor[gone] = 0
    return silent


def relative(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max() / second.abs().max())


def resnet() -> tuple[nn.Module, dict[str, list[int]], dict[str, int]]:
    model = CifarResNet(8)
    stream = ["conv1", *(f"blocks.{i}.conv2" for i in range(3))]
    shift = {"blocks.1.conv2": 8, "blocks.2.conv2": 8 + 16}  # where option-A padding puts the first stream's channels
    layers = {name: [channel + shift.get(name, 0) for channel in (1, 5, 6)] for name in stream}
    layers |= {"blocks.0.conv1": [0, 3], "blocks.2.conv1": list(range(10, 40))}
    return model, layers, {"conv1": 13, "blocks.0.conv1": 14, "blocks.1.conv2": 29, "blocks.2.conv1": 34, "blocks.2.conv2": 61}


def vgg() -> tuple[nn.Module, dict[str, list[int]], dict[str, int]]:
    layers = {"features.0": [1, 2], "features.40": [0, 60], "classifier.0": [3]}
    return VGG16BN(8), layers, {"features.0": 6, "features.40": 62, "classifier.0": 63}


def mobilenet() -> tuple[nn.Module, dict[str, list[int]], dict[str, int]]:
    """The depthwise convolution of one block has masks, that of the other follows."""
    layers = {"features.5.conv.0": [0, 100, 143], "features.6.conv.0": [7], "features.6.conv.3": [7], "features.20": [1279]}
    return MobileNetV2(), layers, {"features.5.conv.3": 141, "features.6.conv.3": 143, "features.20": 1279}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("case", [resnet, vgg, mobilenet])
def test_masked_channels_are_removed_and_the_outputs_stay(case: object, layout: torch.memory_format, tmp_path: Path) -> None:
    model, layers, widths = case()  # type: ignore[operator]
    randomise(model).to(memory_format=layout)
    masks = channel_masks(model, layers)
    torch.save(masks, tmp_path / "masks.pth")
    before = copy.deepcopy(model.state_dict())
    speedup = ModelSpeedup(model, torch.zeros(1, 3, 32, 32), str(tmp_path / "masks.pth"))
    small = speedup.speedup_model()
    assert speedup.not_honoured == {}
    assert {name: small.get_submodule(name).weight.shape[0] for name in widths} == widths
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert relative(small(x), masked(model, masks)(x)) <= TOLERANCE
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_channels_that_not_every_layer_masks_stay_and_are_named() -> None:
    model = randomise(CifarResNet(8))
    masks = channel_masks(model, {"conv1": [2], "blocks.0.conv1": [4], "linear": [0]})
    masks["blocks.0.conv1"]["weight"][5, 0] = 0  # a part of a channel
    speedup = ModelSpeedup(model, torch.zeros(2, 3, 16, 16), masks)
    small = speedup.speedup_model()
    assert small.get_submodule("conv1").weight.shape[0] == 16
    assert small.get_submodule("blocks.0.conv1").weight.shape[0] == 15
    assert small.get_submodule("linear").weight.shape[0] == 10
    assert set(speedup.not_honoured) == {"conv1", "linear"}
    assert "blocks.0.conv2" in speedup.not_honoured["conv1"]
    assert "output of the network" in speedup.not_honoured["linear"]
    assert int((small.get_submodule("conv1").weight.flatten(1) == 0).all(1).sum()) == 1, "what stays is masked"
    assert int((small.get_submodule("blocks.0.conv1").weight[4, 0] == 0).all()) == 1, "the partly masked channel moved up"


def test_a_layer_is_never_emptied() -> None:
    model = randomise(CifarResNet(8))
    speedup = ModelSpeedup(model, torch.zeros(2, 3, 16, 16), channel_masks(model, {"blocks.0.conv1": list(range(16))}))
    assert speedup.speedup_model().get_submodule("blocks.0.conv1").weight.shape[0] == 1
    assert speedup.not_honoured["blocks.0.conv1"].startswith("1 of 16 masked channels stay")


def test_a_bias_that_is_not_masked_keeps_its_channel() -> None:
    model = randomise(VGG16BN(16))
    masks = channel_masks(model, {"features.0": [0, 1]})
    masks["features.0"]["bias"] = torch.tensor([1.0, 0, 1, 1])
    small = ModelSpeedup(model, torch.zeros(2, 3, 32, 32), masks).speedup_model()
    assert small.get_submodule("features.0").weight.shape[0] == 3


@pytest.mark.parametrize(
    ("masks", "sentence"),
    [
        ({"conv9": {"weight": torch.ones(1)}}, "'conv9'] is no layer of the model"),
        ({"conv1": {"weight": torch.ones(2)}}, "does not have the shape of the layer's weight, which is [16, 3, 3, 3]"),
        ({"conv1": {"bias": torch.ones(16)}}, "bias, which is absent"),
        ({"conv1": {"weight": torch.full((16, 3, 3, 3), 0.5)}}, "holds other values than 0 and 1"),
        ({"conv1": torch.ones(16, 3, 3, 3)}, "is no dict of masks"),
        (["conv1"], "is no dict of masks by layer"),
    ],
)
def test_masks_that_do_not_fit_are_refused_by_name(masks: object, sentence: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        ModelSpeedup(CifarResNet(8), torch.zeros(2, 3, 16, 16), masks)  # type: ignore[arg-type]
    assert sentence in str(refused.value)


def test_files_that_hold_no_masks_are_refused(tmp_path: Path) -> None:
    torch.save(BasicBlock(3, 3, 1), tmp_path / "module.pth")
    (tmp_path / "text.pth").write_text("no masks")
    for name in ("missing.pth", "module.pth", "text.pth"):
        with pytest.raises(InvalidInput, match=r"^masks_or_path .*pth' (does not exist|is no file of masks); give"):
            ModelSpeedup(CifarResNet(8), torch.zeros(2, 3, 16, 16), tmp_path / name)


def test_a_network_that_cannot_be_exported_is_refused_in_a_sentence() -> None:
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x).mean((2, 3))
            return y if y.sum() > 0 else -y

    with pytest.raises(InvalidInput, match=r"^model cannot be exported by torch\.export: .*\.$"):
        ModelSpeedup(Branch(), torch.zeros(2, 3, 4, 4), {}).speedup_model()


def test_importing_pruners_imports_no_torch() -> None:
    code = "import sys, pruners; assert 'torch' not in sys.modules; pruners.ModelSpeedup; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(ImportError):
        exec("from pruners import NoSuchName")  # noqa: S102  (an import statement, as a user writes it)
