"""Costs as arithmetic: what they say of a width vector is what the shrunk network has, for one vector and for many."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import fx, nn

from pruners.cost import METRICS, ONE, CostModel, Linear, Polynomial, Term
from pruners.graph.groups import Coupling
from pruners.graph.modules import build_module
from pruners.graph.program import read_program
from pruners.graph.shrink import shrink
from pruners.graph.trace import trace
from tests.exporting import load
from tests.networks import CifarResNet, MobileNetV2, SplitJoin, randomise

EVERY = (*METRICS, "activation_bytes")

NETWORKS = {
    "resnet20": (lambda: CifarResNet(20), (3, 32, 32)),
    "mobilenetv2": (MobileNetV2, (3, 16, 16)),
    "splitjoin": (SplitJoin, (3, 8, 8)),
    "half precision": (lambda: CifarResNet(8).to(torch.bfloat16), None),
}


@pytest.fixture(scope="module", params=NETWORKS)
def traced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[fx.GraphModule, Coupling]:
    make, shape = NETWORKS[request.param]
    path = tmp_path_factory.mktemp("cost") / "model.pt2"
    if shape is None:
        model = make().eval()
        batch = {0: torch.export.Dim("batch")}
        torch.export.save(torch.export.export(model, (torch.zeros(2, 3, 8, 8).bfloat16(),), dynamic_shapes=(batch,)), path)
        module = build_module(read_program(path))
    else:
        module = load(randomise(make()), shape, path)
    return module, trace(module)


def random_widths(coupling: Coupling, seed: int, count: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    columns = [group.divisor * random.integers(1, len(group.classes) + 1, count) for group in coupling.prunable]
    return np.stack(columns, axis=1)


def cut(module: fx.GraphModule, coupling: Coupling, widths: np.ndarray) -> fx.GraphModule:
    keep = [np.arange(width // group.divisor) for group, width in zip(coupling.prunable, widths, strict=True)]
    return shrink(module, coupling, keep)


def written(module: nn.Module, example: torch.Tensor) -> int:
    """Bytes that convolutions and linear layers put out, counted while they run."""
    total = 0

    def add(_: nn.Module, __: object, output: torch.Tensor) -> None:
        nonlocal total
        total += output.numel() * output.itemsize

    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.register_forward_hook(add)
    with torch.inference_mode():
        module(example)
    return total


def test_sizes_are_those_of_the_shrunk_network_to_the_byte(traced: tuple[fx.GraphModule, Coupling], tmp_path: Path) -> None:
    module, coupling = traced
    for widths in random_widths(coupling, 0, 3):
        small = cut(module, coupling, widths)
        save_file(small.state_dict(), tmp_path / "small.safetensors")
        with safe_open(tmp_path / "small.safetensors", "pt") as file:
            data = sum(file.get_tensor(name).nbytes for name in file.keys())  # noqa: SIM118  (it is no dict)
        assert coupling.cost("size_bytes", widths) == data
        assert coupling.cost("activation_bytes", widths) == written(small, module.meta["inputs"][0].example(1))


def test_many_vectors_at_once_cost_what_each_costs_alone(traced: tuple[fx.GraphModule, Coupling]) -> None:
    _, coupling = traced
    widths = random_widths(coupling, 1, 50)
    for metric in EVERY:
        assert coupling.cost.batch(metric, widths).tolist() == [coupling.cost(metric, each) for each in widths]


def test_the_gradient_is_the_exact_central_difference(traced: tuple[fx.GraphModule, Coupling]) -> None:
    """A quadratic's central difference is its derivative, whatever the step; costs are exact integers."""
    _, coupling = traced
    divisors = np.array([group.divisor for group in coupling.prunable])
    widths = random_widths(coupling, 2, 1)[0] + divisors  # so that one step down is still a network
    for metric in EVERY:
        above = coupling.cost.batch(metric, widths + np.diag(divisors))
        below = coupling.cost.batch(metric, widths - np.diag(divisors))
        gradient = coupling.cost.gradient(metric, widths)
        assert gradient.dtype == np.float64
        assert gradient == pytest.approx((above - below) / (2 * divisors), rel=1e-12)  # float64 rounding
        between = coupling.cost.gradient(metric, np.stack([widths, widths + 1]))
        assert coupling.cost.gradient(metric, widths + 0.5) == pytest.approx(between.mean(0), rel=1e-12), "linear in the widths"


def test_costs_survive_json(traced: tuple[fx.GraphModule, Coupling]) -> None:
    _, coupling = traced
    again = CostModel.from_json(json.loads(json.dumps(coupling.cost.to_json())))
    widths = random_widths(coupling, 3, 5)
    for metric in EVERY:
        assert again.batch(metric, widths).tolist() == coupling.cost.batch(metric, widths).tolist()


def test_frozen_groups_become_constants(traced: tuple[fx.GraphModule, Coupling]) -> None:
    _, coupling = traced
    reasons = {group.name: "is wanted whole" for group in coupling.prunable[::2]}
    frozen = coupling.frozen(reasons)
    assert [group.name for group in frozen.prunable] == [group.name for group in coupling.prunable[1::2]]
    assert {group.name: group.frozen_reason for group in frozen.groups if group.name in reasons} == reasons
    widths = random_widths(coupling, 4, 1)[0]
    whole = [group.width if group.name in reasons else w for group, w in zip(coupling.prunable, widths, strict=True)]
    for metric in EVERY:
        assert frozen.cost(metric, widths[1::2]) == coupling.cost(metric, whole)


forms = st.builds(Linear, st.integers(0, 50), st.dictionaries(st.integers(0, 3), st.integers(1, 9)))


@given(
    terms=st.lists(
        st.builds(lambda c, factors: Term(c, *factors), st.integers(0, 1000), st.lists(forms | st.just(ONE), max_size=4))
    ),
    at=st.lists(st.integers(0, 99), min_size=4, max_size=4),
)
def test_a_polynomial_is_the_sum_of_its_terms(terms: list[Term], at: list[int]) -> None:
    def value(form: Linear) -> int:
        return form.constant + sum(factor * at[group] for group, factor in form.per_group.items())

    expected = sum(term.coefficient * math.prod(map(value, term.factors)) for term in terms)
    assert int(Polynomial(terms, 4)(np.array(at))) == expected
    left = Polynomial(terms, 4).with_constants({0: at[0], 2: at[2]})
    assert int(left(np.array([at[1], at[3]]))) == expected


def test_a_polynomial_divided_and_moved() -> None:
    terms = [Term(6, Linear(1, {0: 2}), Linear(0, {1: 1})), Term(2, *[Linear(0, {group: 1}) for group in range(3)]), Term(4)]
    at = np.array([3, 5, 7])
    whole = Polynomial(terms, 3)
    assert int((whole // 2)(at)) * 2 == int(whole(at)) == 6 * 7 * 5 + 2 * 3 * 5 * 7 + 4
    assert int((whole + 9)(at)) == int(whole(at)) + 9


def test_costs_beyond_what_floats_hold_are_exact() -> None:
    odd = 2**53 + 1  # no float64
    terms = [Term(odd, Linear(0, {0: 1}), Linear(0, {1: 1})), Term(1, Linear(0, {0: 1}), Linear(0, {1: 1}))]
    assert int(Polynomial(terms, 2)(np.array([1, 3]))) == 3 * (odd + 1)
