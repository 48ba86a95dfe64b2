"""Shapes and MACs found without running the network equal those of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from pruners.graph.shapes import BATCH, infer_shapes
from pruners.graph.shrink import shrink
from pruners.graph.trace import trace
from tests.exporting import count_macs, load
from tests.networks import CifarResNet, MobileNetV2, SplitJoin


class Volumes(nn.Module):
    """Convolutions of every rank, transposed, grouped, dilated, padded by name."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = nn.Conv2d(3, 8, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=1)
        self.same = nn.Conv2d(8, 8, 3, padding="same", groups=4)
        self.up = nn.ConvTranspose2d(8, 6, 3, stride=2, padding=1, output_padding=1, groups=2)
        self.deep = nn.Conv3d(6, 4, (1, 3, 3), padding="valid")
        self.line = nn.Conv1d(4, 4, 3, padding=1)
        self.back = nn.ConvTranspose1d(4, 2, 4, dilation=2)

    def forward(self, x: Tensor) -> Tensor:
        y = F.hardswish(self.up(self.same(F.relu(self.flat(x)))))
        y = self.deep(y.unsqueeze(2)).flatten(2)
        return self.back(self.line(y)).mean(2)


class Attention(nn.Module):
    """Products by hand and fused, layer norm, a cast, a comparison, and a sequence of recurrent steps."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(12)
        self.qkv = nn.Linear(12, 36)
        self.steps = nn.GRU(12, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        scores = (q @ k.transpose(1, 2)).softmax(-1)
        y = torch.where(v > 0, v, scores @ v) + F.scaled_dot_product_attention(q, k, v)
        return self.steps(torch.einsum("bnc,bnd->bcd", y, y).half().float())[0][:, -1]


class Positions(nn.Module):
    """A position embedding that a layer makes of constants, once for all inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.rand(1, 2, 8, 8))
        self.embed = nn.Conv2d(2, 6, 3, padding=1)
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.stem(x) + self.embed(self.places)).mean((2, 3)))


class _Sizes(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        parts = list(result) if isinstance(result, tuple | list) else result
        sizes = [part.shape for part in parts] if isinstance(parts, list) else parts
        self.values[n] = sizes.shape if isinstance(sizes, Tensor) else sizes
        return result


@pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")  # torch.export about its own handling of a GRU
@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (CifarResNet(8), (3, 16, 16)),
        (MobileNetV2(), (3, 32, 32)),
        (SplitJoin(), (3, 8, 8)),
        (Volumes(), (3, 9, 12)),
        (Positions(), (3, 8, 8)),
        (Attention(), (7, 12)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_shapes_and_macs_are_those_of_a_run(model: nn.Module, shape: tuple[int, ...], tmp_path: Path) -> None:
    module = load(model, shape, tmp_path / "m.pt2")
    found = infer_shapes(module)
    run = _Sizes(module)
    with torch.no_grad():
        run.run(torch.zeros(BATCH, *shape))
    assert found.values == run.values
    with torch.backends.mkldnn.flags(enabled=False, allow_tf32=None):  # whose recurrent kernel torch's counter does not know
        assert found.macs == count_macs(module, shape)


def test_what_depends_on_no_input_costs_the_same_for_one_as_for_many(tmp_path: Path) -> None:
    module = load(Positions(), (3, 8, 8), tmp_path / "m.pt2")
    coupling = trace(module)
    small = shrink(module, coupling, [np.array([0, 4])])
    assert coupling.cost("macs", [2]) == count_macs(small, (3, 8, 8))
