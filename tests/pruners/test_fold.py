"""Weights that a network computes from weights become weights of plain layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from pruners.errors import InvalidInput
from pruners.graph.check import relative_difference
from pruners.graph.fold import fold
from pruners.graph.modules import build_module
from pruners.graph.program import read_program
from pruners.graph.shrink import shrink
from pruners.graph.silence import silence
from pruners.graph.trace import trace
from tests.exporting import count_macs, export, load

TOLERANCE = 1e-5  # relative: float32 sums in another order


class Standardised(nn.Conv2d):
    """Weight standardisation with a gain (Brock et al. 2021)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)
        self.gain = nn.Parameter(torch.rand(outputs, 1, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        centred = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = self.gain * centred / centred.std((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, padding=1)


class Computed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = Standardised(3, 8)
        self.second = weight_norm(nn.Conv2d(8, 12, 3))
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.second(F.relu(self.first(x)))).mean((2, 3))
        return F.linear(y, self.head.weight * self.scale, self.head.bias * 2) + self.scale


def test_layers_of_computed_weights_lose_channels_like_any_other(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Computed().eval()
    x = torch.randn(4, 3, 8, 8)
    module = load(model, (3, 8, 8), tmp_path / "m.pt2")
    assert relative_difference(module, model, (x,)) <= TOLERANCE
    assert {"first.weight", "second.weight", "head.weight", "head.bias", "scale"} <= set(dict(module.named_parameters()))
    assert "first.gain" not in dict(module.named_parameters())
    coupling = trace(module)
    assert [(group.name, group.width) for group in coupling.prunable] == [("first", 8), ("second", 12)]
    keep = [np.array([0, 3, 5]), np.array([1, 2, 11])]
    small = shrink(module, coupling, keep)
    assert relative_difference(small, silence(module, coupling, keep), (x,)) <= TOLERANCE
    assert coupling.cost("macs", [3, 3]) == count_macs(small, (3, 8, 8))


def test_the_raw_weight_of_a_folded_one_stays_where_it_is_used_otherwise(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plain = nn.Linear(6, 6)
            self.head = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.linear(self.plain(x), self.plain.weight.tanh()))

    model = Tied().eval()
    module = load(model, (6,), tmp_path / "m.pt2")
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    assert relative_difference(module, model, (x,)) <= TOLERANCE
    assert {"plain.weight", "plain.folded.weight"} <= set(dict(module.named_parameters()))


def test_a_program_without_computed_weights_is_left_alone(tmp_path: Path) -> None:
    program = read_program(export(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), (4,), tmp_path / "m.pt2"))
    assert fold(program) is program


def test_a_computation_larger_than_the_file_is_refused_before_it_runs(tmp_path: Path) -> None:
    class Bomb(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.scale.expand(2, 4 * 4).reshape(4, 8).sum(0).expand(2**20, 4, 8).sum(0)[:, :4])

    path = export(Bomb(), (4,), tmp_path / "m.pt2")
    with pytest.raises(InvalidInput, match="more than its file holds"):
        build_module(read_program(path))


def test_attention_over_neighbouring_channels_is_what_it_would_be_with_fewer_of_them(tmp_path: Path) -> None:
    class Neighbours(nn.Module):
        """ECA (Wang et al. 2020): a convolution slides over the pooled channels."""

        def __init__(self, width: int) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, width, 3)
            self.attention = nn.Conv1d(1, 1, 3, padding=1, bias=False)
            self.head = nn.Linear(width, 5)

        def forward(self, x: Tensor) -> Tensor:
            y = F.relu(self.conv(x))
            gate = self.attention(y.mean((2, 3)).unsqueeze(1)).squeeze(1).sigmoid()
            return self.head((y * gate[:, :, None, None]).mean((2, 3)))

    torch.manual_seed(0)
    model = Neighbours(8).eval()
    module = load(model, (3, 8, 8), tmp_path / "m.pt2")
    coupling = trace(module)
    assert [(group.width, group.crosses_norm) for group in coupling.prunable] == [(8, True)]
    stay = [0, 2, 3, 6, 7]
    small = shrink(module, coupling, [np.array(stay)])
    built = Neighbours(len(stay)).eval()
    built.conv.weight.data, built.conv.bias.data = model.conv.weight[stay], model.conv.bias[stay]
    built.head.weight.data, built.head.bias.data = model.head.weight[:, stay], model.head.bias
    built.attention.weight.data = model.attention.weight
    x = torch.randn(4, 3, 8, 8)
    assert relative_difference(small, built, (x,)) <= TOLERANCE
    assert coupling.cost("macs", [len(stay)]) == count_macs(built, (3, 8, 8))
