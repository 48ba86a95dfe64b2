"""The winner's files: every format computes what the network does, and the recipe shrinks the user's own class."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

import workers.export.onnx
from pruners.graph.check import traced
from pruners.graph.shrink import shrink
from service.client import apply_recipe as standalone
from service.client.apply_recipe import apply_recipe
from tests.exporting import load
from tests.networks import CifarResNet, MobileNetV2, randomise
from tests.pruners.test_rules import TinyViT
from workers.export import export_all
from workers.spec import Exports


class Decoder(nn.Module):
    """Group norms, a transposed convolution, and one weight under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.GroupNorm(4, 16)
        self.up = nn.ConvTranspose2d(16, 12, 2, stride=2)
        self.inner, self.again = nn.Linear(12, 12, bias=False), nn.Linear(12, 12, bias=False)
        self.again.weight = self.inner.weight
        self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(torch.relu(self.norm(self.first(x)))).mean((2, 3))
        return self.head(self.again(torch.relu(self.inner(y))))


@dataclass
class Winner:
    """A network cut by half, its class, and its files."""

    make: Callable[[], nn.Module]
    module: fx.GraphModule
    shape: tuple[int, ...]
    folder: Path
    messages: list[str]
    attributes: Callable[[dict[str, Any]], dict[str, int]]

    def file(self, extension: str) -> Path:
        return self.folder / f"network.{extension}"

    def images(self, batch: int) -> Tensor:
        return torch.randn(batch, *self.shape, generator=torch.Generator().manual_seed(1))


def write(
    make: Callable[[], nn.Module],
    shape: tuple[int, ...],
    folder: Path,
    attributes: Callable[[dict[str, Any]], dict[str, int]] = lambda _: {},
    exports: Exports | None = None,
) -> Winner:
    dense = load(randomise(make()), shape, folder / "dense.pt2")
    coupling, messages = traced(dense), list[str]()
    random = np.random.default_rng(0)
    keep = [
        np.sort(random.choice(len(group.classes), max(group.minimum // group.divisor, len(group.classes) // 2), replace=False))
        for group in coupling.prunable
    ]
    small = shrink(dense, coupling, keep).eval()
    widths = [len(kept) * group.divisor for kept, group in zip(keep, coupling.prunable, strict=True)]
    export_all(small, dense, coupling, keep, widths, exports or Exports(), folder, messages.append)
    return Winner(make, small, shape, folder, messages, attributes)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((lambda: CifarResNet(8), (3, 16, 16), lambda number: {"pad": number["pruned"][0][4]}), id="resnet"),
        pytest.param((MobileNetV2, (3, 32, 32)), id="depthwise"),
        pytest.param((TinyViT, (3, 8, 8), lambda number: {"heads": number["pruned"][0][-2]}), id="attention"),
        pytest.param((Decoder, (3, 8, 8)), id="decoder"),
    ],
)
def winner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Winner:
    return write(*request.param[:2], tmp_path_factory.mktemp("winner"), *request.param[2:])


def test_the_users_own_class_takes_up_the_recipe(winner: Winner) -> None:
    theirs, constants = winner.make(), json.loads(winner.file("json").read_text())["constants"]
    attributes = {number["module"]: winner.attributes(number) for number in constants if "norm" not in number["call"]}
    before = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    smaller = apply_recipe(theirs, winner.file("json"), winner.file("safetensors"), attributes)
    assert type(smaller) is type(theirs)
    x = winner.images(5)
    with torch.inference_mode():
        torch.testing.assert_close(smaller(x), winner.module(x), rtol=1e-5, atol=1e-6)
    count = [sum(parameter.numel() for parameter in each.parameters()) for each in (smaller, winner.module, theirs)]
    assert count[0] == count[1] < count[2]
    assert all(torch.equal(before[name], tensor) for name, tensor in theirs.state_dict().items()), "left as it was"
    smaller.train()(x).sum().backward()  # and it trains on


def test_onnx_computes_the_same_for_any_batch(winner: Winner) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(winner.file("onnx"))
    (name,) = [value.name for value in session.get_inputs()]
    for batch in (1, 5):
        x = winner.images(batch)
        with torch.inference_mode():
            expected = winner.module(x).numpy()
        (found,) = session.run(None, {name: x.numpy()})
        assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    assert winner.messages == []


def test_the_file_that_applies_recipes_stands_alone(tmp_path: Path) -> None:
    write(lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), (4,), tmp_path, exports=Exports(onnx=False))
    copied = tmp_path / "apply_recipe.py"
    copied.write_bytes(Path(standalone.__file__).read_bytes())
    code = (
        "import sys; sys.path.insert(0, '.'); from apply_recipe import apply_recipe; from torch import nn;"
        "net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3));"
        "print(apply_recipe(net, 'network.json', 'network.safetensors')[0].out_features, 'pruners' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert printed.stdout.split() == ["4", "False"]


def test_another_network_is_refused_in_a_sentence(tmp_path: Path) -> None:
    files = write(lambda: CifarResNet(8), (3, 16, 16), tmp_path, exports=Exports(onnx=False))
    recipe, weights = files.file("json"), files.file("safetensors")
    said = {f"blocks.{number}.shortcut": {"pad": 4 * number} for number in (1, 2)}
    with pytest.raises(ValueError, match=r"^it has no .*, of which the recipe removes something$"):
        apply_recipe(nn.Linear(2, 2), recipe, weights, said)
    with pytest.raises(ValueError, match=r"too small for what the recipe keeps of it$"):
        apply_recipe(CifarResNet(8, width=4), recipe, weights, said)
    with pytest.raises(ValueError, match=r"^Error\(s\) in loading state_dict .*size mismatch"):
        apply_recipe(CifarResNet(8, channels=1), recipe, weights, said)
    with pytest.raises(ValueError, match=r"^it has no module shortcut, which is to shrink$"):
        apply_recipe(CifarResNet(8), recipe, weights, {**said, "shortcut": {}})
    with pytest.raises(ValueError, match=r"^in forward of blocks\.1\.shortcut a pad.default with .*8, 8.* one with .*4, 4"):
        apply_recipe(CifarResNet(8), recipe, weights)


def test_without_onnx_there_is_no_such_file(tmp_path: Path) -> None:
    write(lambda: CifarResNet(8), (3, 16, 16), tmp_path, exports=Exports(onnx=False))
    assert {file.suffix for file in tmp_path.iterdir()} == {".pt2", ".safetensors", ".json"}
    assert json.loads((tmp_path / "network.json").read_text())["version"] == 1


def test_an_onnx_file_that_is_wrong_is_not_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.export.onnx, "TOLERANCE", 0.0)
    files = write(lambda: CifarResNet(8), (3, 16, 16), tmp_path)
    assert [message.split(" by ")[0] for message in files.messages] == ["There is no ONNX file: it differs from the network"]


def test_a_network_that_onnx_cannot_say_keeps_its_other_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no such operator\nand much more")

    monkeypatch.setattr("torch.onnx.export", fails)
    files = write(lambda: CifarResNet(8), (3, 16, 16), tmp_path)
    assert files.messages == ["There is no ONNX file: the export failed (no such operator)."]
    assert files.file("pt2").exists()
