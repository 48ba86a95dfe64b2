"""Whole heads of attention as groups beside the widths of heads, however attention is written."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from pruners import ModelSpeedup
from pruners.cost import METRICS, CostModel
from pruners.criteria.l1_filter import L1Filter
from pruners.graph.check import relative_difference, traced
from pruners.graph.groups import Coupling
from pruners.graph.shrink import shrink
from pruners.graph.trace import trace
from pruners.importance import choose, group_scores
from pruners.mask import mask
from service.cli.picture import draw
from tests.exporting import count_macs, load
from tests.pruners.pruning import shrunk_in_two_steps
from workers.inspection import inspect_model

EXACT = 1e-5  # relative: float32 sums of the same few hundred terms in another order
EVERY = (*METRICS, "activation_bytes")
TOKENS, WIDTH, HEADS, HEAD = 6, 12, 4, 5


class Network(nn.Module):
    """Attention between a layer and the scores. ``attend``: how, given the network and its tokens ``[n, tokens, width]``."""

    def __init__(self, attend: Callable[[Any, Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.stem, self.norm, self.head = nn.Linear(7, WIDTH), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3)
        for name, part in parts.items():
            self.add_module(name, part)
        self.attend = attend

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head((x + self.attend(self, self.norm(x))).mean(1))


def linears(inputs: int = WIDTH, **sizes: int) -> dict[str, nn.Module]:
    return {name: nn.Linear(inputs, size) for name, size in sizes.items()} | {"out": nn.Linear(HEADS * HEAD, WIDTH)}


def heads_first(x: Tensor, heads: int = HEADS) -> Tensor:
    return x.view(x.shape[0], TOKENS, heads, HEAD).transpose(1, 2)


def joined(x: Tensor) -> Tensor:
    return x.transpose(1, 2).reshape(x.shape[0], TOKENS, HEADS * HEAD)


def by_hand(net: Any, x: Tensor) -> Tensor:
    q, k, v = (heads_first(part(x)) for part in (net.q, net.k, net.v))
    return net.out(joined(torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(HEAD), -1) @ v))


def in_einsteins_notation(net: Any, x: Tensor) -> Tensor:
    q, k, v = (heads_first(part(x)) for part in (net.q, net.k, net.v))
    weights = torch.softmax(torch.einsum("b h i d, b h j d -> b h i j", q, k), -1)
    return net.out(joined(torch.einsum("bhij,bhjd->bhid", weights, v)))


def merged_with_the_batch(net: Any, x: Tensor) -> Tensor:
    q, k, v = (heads_first(part(x)).reshape(-1, TOKENS, HEAD) for part in (net.q, net.k, net.v))
    y = torch.bmm(torch.softmax(torch.bmm(q, k.transpose(1, 2)) * 0.4, -1), v)
    return net.out(joined(y.view(-1, HEADS, TOKENS, HEAD)))


def fused(net: Any, x: Tensor) -> Tensor:
    return net.out(joined(F.scaled_dot_product_attention(*(heads_first(part(x)) for part in (net.q, net.k, net.v)))))


def packed_and_unbound(net: Any, x: Tensor) -> Tensor:
    q, k, v = net.qkv(x).reshape(x.shape[0], TOKENS, 3, HEADS, HEAD).permute(2, 0, 3, 1, 4).unbind(0)
    return net.out(joined(F.scaled_dot_product_attention(q, k, v)))


def packed_and_split(net: Any, x: Tensor) -> Tensor:
    q, k, v = (heads_first(part) for part in net.qkv(x).chunk(3, -1))
    return net.out(joined(F.scaled_dot_product_attention(q, k, v)))


def normed_and_biased(net: Any, x: Tensor) -> Tensor:
    """Norms over a head's channels, and parameters of the heads' own: a temperature, and a bias looked up by distance."""
    q, k, v = net.qkv(x).reshape(x.shape[0], TOKENS, 3, HEADS, HEAD).permute(2, 0, 3, 1, 4).unbind(0)
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    bias = net.bias.weight[net.distances.view(-1)].view(TOKENS, TOKENS, -1).permute(2, 0, 1).contiguous().unsqueeze(0)
    return net.out(joined(torch.softmax(q @ k.transpose(-2, -1) * net.heat.weight[:, :, None] + bias, -1) @ v))


def grouped_query(net: Any, x: Tensor) -> Tensor:
    k, v = (heads_first(part(x), HEADS // 2) for part in (net.k, net.v))
    return net.out(joined(F.scaled_dot_product_attention(heads_first(net.q(x)), k, v, enable_gqa=True)))


def expanded_query(net: Any, x: Tensor) -> Tensor:
    shape = (x.shape[0], HEADS // 2, 2, TOKENS, HEAD)
    k, v = (
        heads_first(part(x), HEADS // 2)[:, :, None].expand(shape).reshape(-1, HEADS, TOKENS, HEAD) for part in (net.k, net.v)
    )
    return net.out(joined(F.scaled_dot_product_attention(heads_first(net.q(x)), k, v)))


def torchs_own(net: Any, x: Tensor) -> Tensor:
    return net.attention(x, x, x, need_weights=False)[0]


def torchs_own_unfused(net: Any, x: Tensor) -> Tensor:
    return net.attention(x, x, x)[0]


class PerHead(nn.Module):
    """A parameter with a row for every head."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(shape) + 0.5)


SIZE = HEADS * HEAD


def normed() -> nn.Module:
    parts = {"heat": PerHead(HEADS, 1), "bias": PerHead(2 * TOKENS - 1, HEADS)}
    net = Network(normed_and_biased, **linears(qkv=3 * SIZE), **parts)
    net.register_buffer("distances", torch.arange(TOKENS)[:, None] - torch.arange(TOKENS) + TOKENS - 1)
    return net


FOLLOWED: dict[str, Callable[[], nn.Module]] = {
    "by hand": lambda: Network(by_hand, **linears(q=SIZE, k=SIZE, v=SIZE)),
    "in Einstein's notation": lambda: Network(in_einsteins_notation, **linears(q=SIZE, k=SIZE, v=SIZE)),
    "merged with the batch": lambda: Network(merged_with_the_batch, **linears(q=SIZE, k=SIZE, v=SIZE)),
    "fused": lambda: Network(fused, **linears(q=SIZE, k=SIZE, v=SIZE)),
    "packed and unbound": lambda: Network(packed_and_unbound, **linears(qkv=3 * SIZE)),
    "packed and split": lambda: Network(packed_and_split, **linears(qkv=3 * SIZE)),
    "normed and biased": normed,
    "grouped query": lambda: Network(grouped_query, **linears(q=SIZE, k=SIZE // 2, v=SIZE // 2)),
    "expanded query": lambda: Network(expanded_query, **linears(q=SIZE, k=SIZE // 2, v=SIZE // 2)),
    "torch's own": lambda: Network(torchs_own, attention=nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)),
    "torch's own, unfused": lambda: Network(
        torchs_own_unfused, attention=nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    ),
}


def loaded(make: Callable[[], nn.Module], folder: Path) -> fx.GraphModule:
    torch.manual_seed(0)
    return load(make(), (TOKENS, 7), folder / "model.pt2")


def random_cut(coupling: Coupling, kind: str, seed: int) -> tuple[list[np.ndarray], list[int]]:
    """What stays if only heads, only other groups, or both lose some classes at random; and the widths."""
    random = np.random.default_rng(seed)
    keep = []
    for group in coupling.prunable:
        size = len(group.classes)
        cut = kind == "both" or group.name.endswith(".heads") == (kind == "heads")
        # Two at least: torch runs an einsum over one channel without a product that its counter would see.
        keep.append(np.sort(random.permutation(size)[: random.integers(min(2, size - 1), size) if cut else size]))
    return keep, [len(indices) * group.divisor for group, indices in zip(coupling.prunable, keep, strict=True)]


def beside_norms(coupling: Coupling, keep: list[np.ndarray]) -> list[np.ndarray]:
    """The same, with groups that a norm averages over whole, since masking them is not removing them."""
    return [
        np.arange(len(group.classes)) if group.crosses_norm else indices
        for group, indices in zip(coupling.prunable, keep, strict=True)
    ]


@pytest.mark.parametrize("name", FOLLOWED)
def test_heads_and_their_widths_go_exactly(name: str, tmp_path: Path) -> None:
    module = loaded(FOLLOWED[name], tmp_path)
    coupling = traced(module)
    (heads,) = [group for group in coupling.prunable if group.name.endswith(".heads")]
    assert len(heads.classes) == (HEADS // 2 if "query" in name else HEADS)
    x = torch.randn(3, TOKENS, 7, generator=torch.Generator().manual_seed(1))
    for number in range(20):
        keep, widths = random_cut(coupling, ("heads", "widths", "both")[number % 3], number)
        small = shrink(module, coupling, keep)
        assert coupling.cost("macs", widths) == count_macs(small, (TOKENS, 7))
        assert coupling.cost("params", widths) == sum(parameter.numel() for parameter in small.parameters())
        if number < 6:
            within = beside_norms(coupling, keep)
            assert relative_difference(shrink(module, coupling, within), mask(module, coupling, within), (x,)) < EXACT
            assert relative_difference(shrunk_in_two_steps(module, coupling, keep), small, (x,)) < EXACT
    again = load(small, (TOKENS, 7), tmp_path / "small.pt2")
    assert relative_difference(again, small, (x,)) < EXACT


class Unprojected(nn.Module):
    """What attention puts out is added to the stream as it is, so the stream's channels are those of the heads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(7, SIZE), nn.Linear(SIZE, 3)
        self.q, self.k, self.v = (nn.Linear(SIZE, SIZE) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = F.scaled_dot_product_attention(*(heads_first(part(x)) for part in (self.q, self.k, self.v)))
        return self.head((x + joined(y)).mean(1))


def test_heads_that_meet_the_stream_take_its_channels_with_them(tmp_path: Path) -> None:
    module = loaded(Unprojected, tmp_path)
    coupling = traced(module)
    groups = {group.name: group for group in coupling.prunable}
    assert groups["stem"].layers == ("stem", "v")
    assert groups["stem.heads"].layers == ("stem", "q", "k", "v")
    assert groups["stem.heads"].residual
    keep, widths = random_cut(coupling, "both", 0)
    small = shrink(module, coupling, keep)
    x = torch.randn(3, TOKENS, 7, generator=torch.Generator().manual_seed(1))
    assert relative_difference(small, mask(module, coupling, keep), (x,)) < EXACT
    assert coupling.cost("macs", widths) == count_macs(small, (TOKENS, 7))


def first_head_apart(net: Any, x: Tensor) -> Tensor:
    q, k, v = (heads_first(part(x)) for part in (net.q, net.k, net.v))
    y = F.scaled_dot_product_attention(q, k, v)
    return net.out(joined(y)) * torch.sigmoid(y[:, 0].mean((1, 2)))[:, None, None]


def constant_bias(net: Any, x: Tensor) -> Tensor:
    q, k, v = (heads_first(part(x)) for part in (net.q, net.k, net.v))
    bias = net.table * 0.5
    return net.out(joined(torch.softmax(q @ k.transpose(-2, -1) + bias, -1) @ v))


def weights_put_out(net: Any, x: Tensor) -> Tensor:
    """A head of zeros attends to every place alike, which is not nothing."""
    q, k, v = (heads_first(part(x)) for part in (net.q, net.k, net.v))
    weights = torch.softmax(q @ k.transpose(-2, -1), -1)
    return net.out(joined(weights @ v)) + (weights * weights).sum((1, 2, 3))[:, None, None]


def biased() -> nn.Module:
    net = Network(constant_bias, **linears(q=SIZE, k=SIZE, v=SIZE))
    net.register_buffer("table", torch.rand(HEADS, TOKENS, TOKENS))
    return net


WHOLE = {
    "first head apart": lambda: Network(first_head_apart, **linears(q=SIZE, k=SIZE, v=SIZE)),
    "constant bias": biased,
    "weights put out": lambda: Network(weights_put_out, **linears(q=SIZE, k=SIZE, v=SIZE)),
}


@pytest.mark.parametrize("name", WHOLE)
def test_where_heads_cannot_go_their_widths_still_can(name: str, tmp_path: Path) -> None:
    module = loaded(WHOLE[name], tmp_path)
    coupling = traced(module)
    names = {group.name for group in coupling.prunable}
    assert not any(name.endswith(".heads") for name in names)
    assert {"stem", "v"} <= names
    keep, widths = random_cut(coupling, "both", 3)
    small = shrink(module, coupling, keep)
    assert coupling.cost("macs", widths) == count_macs(small, (TOKENS, 7))
    within = beside_norms(coupling, keep)
    x = torch.randn(3, TOKENS, 7, generator=torch.Generator().manual_seed(1))
    assert relative_difference(shrink(module, coupling, within), mask(module, coupling, within), (x,)) < EXACT


def test_costs_of_crossing_groups(tmp_path: Path) -> None:
    """No cost has a variable beyond its square, so central differences are derivatives."""
    coupling = trace(loaded(FOLLOWED["packed and unbound"], tmp_path))
    cost = coupling.cost
    dense = np.array([group.width for group in coupling.prunable])
    divisors = np.array([group.divisor for group in coupling.prunable])
    widths = np.stack([dense - divisors * (i % 2 + np.arange(len(dense)) % 2) for i in range(5)])
    names = [group.name for group in coupling.prunable]
    frozen = coupling.frozen({"qkv.heads": "is wanted whole"}).cost
    again = CostModel.from_json(json.loads(json.dumps(cost.to_json())))
    for metric in EVERY:
        one_by_one = [cost(metric, each) for each in widths]
        assert cost.batch(metric, widths).tolist() == one_by_one
        assert again.batch(metric, widths).tolist() == one_by_one
        slopes = cost.gradient(metric, widths)
        steps = np.diag(divisors)
        above, below = (cost.batch(metric, widths[:, None] + sign * steps) for sign in (1, -1))
        assert slopes == pytest.approx((above - below) / (2 * divisors), rel=1e-12)  # float64 rounding
        whole = widths.copy()
        whole[:, names.index("qkv.heads")] = 3 * SIZE
        left = np.delete(whole, names.index("qkv.heads"), axis=1)
        assert frozen.batch(metric, left).tolist() == cost.batch(metric, whole).tolist()


def test_a_heads_score_is_the_mean_over_its_channels(tmp_path: Path) -> None:
    module = loaded(FOLLOWED["by hand"], tmp_path)
    coupling = trace(module)
    groups = {group.name: index for index, group in enumerate(coupling.prunable)}
    scores = group_scores(module, coupling, L1Filter())
    table = {}
    for name in ("q", "k", "v"):
        channels = L1Filter().scores(module.get_submodule(name)).double().numpy()
        table[name] = (channels / channels.mean()).reshape(HEADS, HEAD)
    np.testing.assert_allclose(scores[groups["q.heads"]], np.mean([table[n].mean(1) for n in "qkv"], axis=0))
    np.testing.assert_allclose(scores[groups["q"]], np.mean([table[n].mean(0) for n in "qk"], axis=0))
    widths = [group.width for group in coupling.prunable]
    widths[groups["q.heads"]] = 2 * HEAD
    best = np.sort(np.argsort(-scores[groups["q.heads"]])[:2])
    assert choose(coupling, scores, widths)[groups["q.heads"]].tolist() == best.tolist()


def test_layer_widths_are_products(tmp_path: Path) -> None:
    coupling = trace(loaded(FOLLOWED["packed and unbound"], tmp_path))
    kept = {"qkv": 3, "qkv.heads": 2}
    widths = [kept.get(group.name, len(group.classes)) * group.divisor for group in coupling.prunable]
    assert coupling.layer_widths(widths)["qkv"] == (3 * 3 * 2, 3 * SIZE)


def test_inspection_counts_channels_in_both_groups_and_the_picture_shows_both(tmp_path: Path) -> None:
    loaded(FOLLOWED["packed and unbound"], tmp_path)
    scores = nn.Sequential(FOLLOWED["packed and unbound"]())
    load(scores, (TOKENS, 7), tmp_path / "model.pt2")
    found = inspect_model(tmp_path / "model.pt2")
    (layer,) = [layer for layer in found["layers"] if layer["name"] == "0.qkv"]
    assert layer["groups"] == {"0.qkv": 3 * SIZE, "0.qkv.heads": 3 * SIZE}
    (heads,) = [group for group in found["groups"] if group["name"] == "0.qkv.heads"]
    assert (heads["width"], heads["divisor"], heads["minimum"]) == (3 * SIZE, 3 * HEAD, 3 * HEAD)
    picture = ElementTree.fromstring(draw(found, "heads"))  # noqa: S314 - drawn just now
    bars = [bar for bar in picture.iter() if bar.get("data-group") in layer["groups"] and bar.get("class") == "share"]
    (width,) = {bar.get("width") for bar in bars}
    assert float(str(width)) > 0
    tops = sorted(float(str(bar.get("y"))) for bar in bars)
    assert tops[1] - tops[0] == pytest.approx(float(str(bars[0].get("height"))))


def test_speedup_removes_masked_heads_and_masked_widths(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = FOLLOWED["by hand"]().eval()
    gone = np.zeros((HEADS, HEAD), dtype=bool)
    gone[1] = gone[:, 3] = True
    masks: dict[str, dict[str, Tensor | None]] = {}
    for name in ("q", "k", "v"):
        keep = torch.from_numpy(~gone.reshape(-1)).float()
        masks[name] = {"weight": keep[:, None].expand(SIZE, WIDTH).clone(), "bias": keep}
    x = torch.randn(2, TOKENS, 7, generator=torch.Generator().manual_seed(1))
    speedup = ModelSpeedup(model, x, masks)
    small = speedup.speedup_model()
    assert not speedup.not_honoured
    assert small.get_submodule("v").out_features == (HEADS - 1) * (HEAD - 1)
    with torch.no_grad():
        for name, parts in masks.items():
            for part, values in parts.items():
                getattr(model.get_submodule(name), part).mul_(values)
    assert relative_difference(small, model, (x,)) < EXACT


def test_speedup_says_why_single_channels_of_a_head_stay(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = FOLLOWED["by hand"]().eval()
    one, head = torch.ones(SIZE, WIDTH), torch.ones(SIZE, WIDTH)
    one[0], head[:HEAD] = 0, 0
    x = torch.randn(2, TOKENS, 7)
    speedup = ModelSpeedup(model, x, {"q": {"weight": head, "bias": None}, "v": {"weight": one, "bias": None}})
    speedup.speedup_model()
    assert speedup.not_honoured == {
        "q": "5 of 5 masked channels stay: k, v must lose the same ones and does not mask them",
        "v": "1 of 1 masked channels stay: only whole heads can go, or the same channels of every head",
    }
