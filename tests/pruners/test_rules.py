"""Norms, attention, transposed convolutions and raw parameters: a shrunk network is its own class, built smaller.

Where a norm averages over channels, masking is no reference. The exact statement is this one: cut every tensor of the state
dict as the coupling says, load it into the user's class with smaller constructor arguments, and the outputs are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from pruners.graph.groups import Coupling, positions
from pruners.graph.shrink import shrink
from pruners.graph.trace import trace
from tests.exporting import count_macs, load

EXACT = {"rtol": 1e-5, "atol": 1e-6}  # float32 sums of the same terms


class Attention(nn.Module):
    """Fused query-key-value, fused attention; ``scale`` is fixed so that a narrower head is not another function."""

    def __init__(self, dim: int, heads: int, head: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * heads * head)
        self.proj = nn.Linear(heads * head, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, scale=0.5)
        return self.proj(y.transpose(1, 2).reshape(batch, tokens, -1))


class TinyViT(nn.Module):
    """Patches, class token, position embedding, two blocks with layer scale."""

    def __init__(self, dim: int = 16, head: int = 4, hidden: int = 24, heads: int = 3) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, dim, 4, 4)
        self.cls = nn.Parameter(torch.randn(1, 1, dim))
        self.pos = nn.Parameter(torch.randn(1, 5, dim))
        self.norms = nn.ModuleList([nn.LayerNorm(dim) for _ in range(5)])
        self.attention = nn.ModuleList([Attention(dim, heads, head) for _ in range(2)])
        self.mlp = nn.ModuleList([nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim)) for _ in range(2)])
        self.gamma = nn.Parameter(torch.rand(dim))
        self.head = nn.Linear(dim, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.pos
        for index in range(2):
            x = x + self.gamma * self.attention[index](self.norms[2 * index](x))
            x = x + self.mlp[index](self.norms[2 * index + 1](x))
        return self.head(self.norms[4](x)[:, 0])


class Handwritten(nn.Module):
    """Attention by matrix products, and an embedding table."""

    def __init__(self, dim: int = 12, head: int = 5, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.table = nn.Linear(7, dim)
        self.q, self.k, self.v = (nn.Linear(dim, heads * head) for _ in range(3))
        self.out = nn.Linear(heads * head, dim)
        self.head = nn.Linear(dim, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.table(x)
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        weights = torch.softmax(q @ k.transpose(-2, -1) * 0.4, -1)
        return self.head((x + self.out((weights @ v).transpose(1, 2).flatten(2))).mean(1))


class GroupedQuery(nn.Module):
    """Two query heads share one of keys and values."""

    def __init__(self, dim: int = 12, head: int = 5, shared: int = 3) -> None:
        super().__init__()
        self.shared = shared
        self.stem = nn.Linear(7, dim)
        self.q, self.k, self.v = (nn.Linear(dim, heads * head) for heads in (2 * shared, shared, shared))
        self.out = nn.Linear(2 * shared * head, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        q = self.q(x).unflatten(-1, (2 * self.shared, -1)).transpose(1, 2)
        k, v = (part(x).unflatten(-1, (self.shared, -1)).transpose(1, 2).repeat_interleave(2, 1) for part in (self.k, self.v))
        return self.out(F.scaled_dot_product_attention(q, k, v, scale=0.4).transpose(1, 2).flatten(2)).mean(1)


class Decoder(nn.Module):
    """Transposed convolutions, group and instance norm, pixel shuffle, per-channel slopes."""

    def __init__(self, first: int = 8, second: int = 12, third: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, first, 3, padding=1)
        self.group = nn.GroupNorm(2, first)
        self.up = nn.ConvTranspose2d(first, second, 4, 2, 1)
        self.instance = nn.InstanceNorm2d(second, affine=True)
        self.slope = nn.PReLU(second)
        self.expand = nn.Conv2d(second, third, 1)
        self.layer = nn.GroupNorm(1, third // 4)
        self.depthwise = nn.ConvTranspose2d(third // 4, third // 4, 2, 2, groups=third // 4)
        self.out = nn.Conv2d(third // 4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.group(self.stem(x)))
        x = self.slope(self.instance(self.up(x)))
        x = F.pixel_shuffle(self.expand(x), 2)
        return self.out(F.interpolate(self.depthwise(self.layer(x)), scale_factor=2.0)).mean((2, 3))


Case = tuple[Callable[..., nn.Module], tuple[int, ...], dict[str, tuple[int, dict[str, int]]]]

CASES: dict[str, Case] = {
    # class, input, and per group the classes that stay and the constructor's arguments that this makes
    "vit": (
        TinyViT,
        (3, 8, 8),
        {
            "patch": (11, {"dim": 11}),
            "attention.0.qkv": (3, {"head": 3}),
            "attention.0.qkv.heads": (2, {"heads": 2}),
            "attention.1.qkv": (3, {"head": 3}),
            "attention.1.qkv.heads": (2, {"heads": 2}),
            "mlp.0.0": (13, {"hidden": 13}),
            "mlp.1.0": (13, {"hidden": 13}),
        },
    ),
    "handwritten": (
        Handwritten,
        (6, 7),
        {"table": (9, {"dim": 9}), "q": (3, {"head": 3}), "q.heads": (2, {"heads": 2}), "v": (3, {"head": 3})},
    ),
    "grouped query": (
        GroupedQuery,
        (6, 7),
        {"stem": (9, {"dim": 9}), "q": (3, {"head": 3}), "q.heads": (2, {"shared": 2}), "v": (3, {"head": 3})},
    ),
    "decoder": (Decoder, (3, 6, 6), {"stem": (3, {"first": 6}), "up": (7, {"second": 7}), "expand": (3, {"third": 12})}),
}


def prepared(name: str, folder: Path) -> tuple[nn.Module, fx.GraphModule, Coupling]:
    torch.manual_seed(0)
    model = CASES[name][0]().eval()
    module = load(model, CASES[name][1], folder / "model.pt2")
    return model, module, trace(module)


def halves(coupling: Coupling, wanted: dict[str, Any]) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    keep = []
    for group in coupling.prunable:
        count = wanted[group.name][0] if group.name in wanted else len(group.classes)
        keep.append(np.sort(random.permutation(len(group.classes))[:count]))
    return keep


@pytest.mark.parametrize("name", CASES)
def test_a_shrunk_network_is_its_class_built_smaller(name: str, tmp_path: Path) -> None:
    kind, shape, wanted = CASES[name]
    model, module, coupling = prepared(name, tmp_path)
    assert {group.name for group in coupling.prunable} == set(wanted)
    keep = halves(coupling, wanted)
    small = shrink(module, coupling, keep)

    arguments = {name: value for _, changes in wanted.values() for name, value in changes.items()}
    smaller = kind(**arguments).eval()
    state, kept = model.state_dict(), coupling.kept(keep)
    for member in coupling.members:
        stay = torch.from_numpy(positions(member, kept))
        state[member.tensor] = state[member.tensor].index_select(member.dim, stay)
    smaller.load_state_dict(state)

    x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(small(x), smaller(x), **EXACT)
    widths = [len(indices) * group.divisor for group, indices in zip(coupling.prunable, keep, strict=True)]
    assert coupling.cost("macs", widths) == count_macs(smaller, shape)
    assert coupling.cost("params", widths) == sum(parameter.numel() for parameter in smaller.parameters())


@pytest.mark.parametrize("name", CASES)
def test_the_network_exports_and_traces_again_after_the_cut(name: str, tmp_path: Path) -> None:
    _, shape, wanted = CASES[name]
    _, module, coupling = prepared(name, tmp_path)
    small = shrink(module, coupling, halves(coupling, wanted))
    again = load(small, shape, tmp_path / "small.pt2")
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(again(x), small(x), **EXACT)
    assert {group.name for group in trace(again).prunable} == set(wanted)


def test_groups_that_a_norm_averages_over_say_so(tmp_path: Path) -> None:
    crossing = {group.name for group in prepared("vit", tmp_path)[2].groups if group.crosses_norm}
    assert crossing == {"patch"}, "the residual stream of a transformer, and nothing else"
    crossing = {group.name for group in prepared("decoder", tmp_path)[2].groups if group.crosses_norm}
    assert crossing == {"stem", "expand"}


def test_multihead_attention_keeps_the_users_names(tmp_path: Path) -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(6, 8)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.head((x + self.attention(x, x, x, need_weights=False)[0]).mean(1))

    torch.manual_seed(0)
    model = Encoder().eval()
    module = load(model, (5, 6), tmp_path / "m.pt2")
    x = torch.randn(3, 5, 6)
    torch.testing.assert_close(module(x), model(x), **EXACT)
    assert module.meta["names"]["attention.in_proj.weight"] == "attention.in_proj_weight"
    groups = {group.name: group for group in trace(module).prunable}
    assert groups["attention.in_proj"].divisor == 6, "a channel of every head, in query, key and value"
    assert groups["attention.in_proj.heads"].divisor == 12, "all channels of a head, in query, key and value"


def test_what_attention_scales_by_does_not_change_with_the_heads_width(tmp_path: Path) -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = nn.Linear(6, 4), nn.Linear(6, 4), nn.Linear(6, 4)
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x)).mean(1))

    torch.manual_seed(0)
    model = Plain().eval()
    module = load(model, (5, 6), tmp_path / "m.pt2")
    coupling = trace(module)
    keep = [np.arange(3) if group.name == "q" else np.arange(4) for group in coupling.prunable]
    with torch.no_grad():
        for layer in (model.q, model.k):
            layer.weight[3] = 0
            layer.bias[3] = 0
    x = torch.randn(3, 5, 6)
    torch.testing.assert_close(shrink(module, coupling, keep)(x), model(x), **EXACT)
