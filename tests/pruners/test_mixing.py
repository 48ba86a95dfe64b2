"""Networks whose linear layers run over positions while channels are along another dim."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pruners.graph.check import relative_difference, traced
from pruners.graph.shrink import shrink
from pruners.graph.silence import silence
from tests.exporting import count_macs, load

EXACT = 1e-5  # relative: float32 sums of the same few hundred terms in another order
TOKENS = 6


class Mixer(nn.Module):
    """MLP-Mixer's block (Tolstikhin et al. 2021) without its norms: one MLP over the tokens, one over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(7, 12)
        self.over_tokens = nn.Sequential(nn.Linear(TOKENS, 10), nn.GELU(), nn.Linear(10, TOKENS))
        self.over_channels = nn.Sequential(nn.Linear(12, 16), nn.GELU(), nn.Linear(16, 12))
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.over_tokens(x.transpose(1, 2)).transpose(1, 2)
        return self.head((x + self.over_channels(x)).mean(1))


class Gated(nn.Module):
    """gMLP's spatial gate (Liu et al. 2021): half of the channels, mixed over the tokens, gate the other half."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(7, 16), nn.Linear(8, 3)
        self.gate = nn.Linear(TOKENS, TOKENS)

    def forward(self, x: Tensor) -> Tensor:
        u, v = F.gelu(self.stem(x)).chunk(2, -1)
        return self.head((u * self.gate(v.transpose(-1, -2)).transpose(-1, -2)).mean(1))


def test_channels_and_mixed_positions_are_groups_of_their_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = load(Mixer(), (TOKENS, 7), tmp_path / "m.pt2")
    coupling = traced(module)
    assert [(group.name, group.width) for group in coupling.prunable] == [
        ("stem", 12),
        ("over_tokens.0", 10),
        ("over_channels.0", 16),
    ]
    random = np.random.default_rng(0)
    x = torch.randn(3, TOKENS, 7)
    for _ in range(10):
        keep = [np.sort(random.permutation(g.width)[: random.integers(1, g.width + 1)]) for g in coupling.prunable]
        small = shrink(module, coupling, keep)
        assert relative_difference(small, silence(module, coupling, keep), (x,)) <= EXACT
        assert coupling.cost("macs", [len(each) for each in keep]) == count_macs(small, (TOKENS, 7))
        assert coupling.cost("params", [len(each) for each in keep]) == sum(p.numel() for p in small.parameters())


def test_channels_pass_by_a_layer_that_no_positions_can_be_taken_from(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = load(Gated(), (TOKENS, 7), tmp_path / "m.pt2")
    coupling = traced(module)
    assert [(group.name, group.width, group.divisor) for group in coupling.prunable] == [("stem", 16, 2)]
    keep = [np.array([0, 2, 3, 7])]
    small = shrink(module, coupling, keep)
    assert relative_difference(small, silence(module, coupling, keep), (torch.randn(3, TOKENS, 7),)) <= EXACT
    assert coupling.cost("macs", [8]) == count_macs(small, (TOKENS, 7))
