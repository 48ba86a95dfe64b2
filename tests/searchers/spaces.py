"""Search spaces for tests: chains and residual networks of pretend layers, and hypothesis' random ones."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import reject
from hypothesis import strategies as st

from pruners.cost import CostModel, Linear, Polynomial, Term
from pruners.errors import InvalidInput
from searchers.space import Budget, Group, SearchSpace


def width(group: int | None, divisors: Sequence[int], fixed: int = 3) -> Linear:
    """A layer's width: that of a group, or a number that no search changes (``None``)."""
    return Linear(fixed, {}) if group is None else Linear(0, {group: divisors[group]})


def model(layers: Sequence[tuple[int, int | None, int | None]], groups: Sequence[Group]) -> CostModel:
    """The cost of layers ``(positions, input group, output group)``: 3x3 convolutions with a bias."""
    divisors = [group.divisor for group in groups]
    macs, params = [], []
    for positions, source, sink in layers:
        inputs, outputs = width(source, divisors), width(sink, divisors, fixed=10)
        macs.append(Term(9 * positions, inputs, outputs))
        params += [Term(9, inputs, outputs), Term(1, outputs)]
    polynomials = {"macs": Polynomial(macs, len(groups)), "params": Polynomial(params, len(groups))}
    return CostModel(divisors, polynomials)


def chain(groups: Sequence[Group], positions: int = 4) -> CostModel:
    """One layer per group, each reading the one before, and a last layer of 10 classes."""
    order = [None, *range(len(groups)), None]
    return model([(positions, source, sink) for source, sink in pairwise(order)], groups)


def parallel(groups: Sequence[Group]) -> CostModel:
    """Branches between a fixed input and a fixed output: each group's cost is its own."""
    return model([(4, None, i) for i in range(len(groups))] + [(4, i, None) for i in range(len(groups))], groups)


def space(
    groups: Sequence[Group], cost: CostModel, *, metric: str = "macs", ratio: float = 0.5, round_to: int = 1
) -> SearchSpace:
    """A space at a share of its dense cost."""
    dense = cost(metric, [group.width for group in groups])
    return SearchSpace(groups, cost, Budget.of(metric, dense, ratio=ratio), round_to)


def within_one_step(of: SearchSpace, widths: Sequence[int], widest: Sequence[int] | None = None) -> bool:
    """Whether widths are on the grid, fit the budget, and no group short of ``widest`` (dense) has room for a step."""
    wider = [[*widths[:i], widths[i] + of.step[i], *widths[i + 1 :]] for i in range(len(widths))]
    allowed = all(
        least <= w <= dense and (dense - w) % step == 0
        for w, least, dense, step in zip(widths, of.least, of.dense, of.step, strict=True)
    )
    growable = [wide for i, wide in enumerate(wider) if widths[i] < (widest or of.dense)[i]]
    return allowed and of.fits(widths) and not any(of.fits(wide) for wide in growable)


@st.composite
def random_groups(draw: st.DrawFn) -> list[Group]:
    divisors = draw(st.lists(st.sampled_from([1, 1, 1, 2, 4]), min_size=1, max_size=5))
    groups = []
    for i, divisor in enumerate(divisors):
        dense = divisor * draw(st.integers(1, 12))
        minimum = draw(st.one_of(st.just(1), st.integers(1, dense), st.just(dense)))
        groups.append(Group(f"layer{i}", dense, divisor, minimum, residual=draw(st.booleans())))
    return groups


@st.composite
def random_spaces(draw: st.DrawFn) -> SearchSpace:
    """Products of widths as layers multiply them, and any budget that can be reached."""
    groups = draw(random_groups())
    metric, round_to = draw(st.sampled_from(["macs", "params"])), draw(st.sampled_from([1, 1, 3, 8]))
    any_group = st.one_of(st.none(), st.integers(0, len(groups) - 1))
    extra = draw(st.lists(st.tuples(st.integers(1, 1000), any_group, any_group), max_size=4))
    order = [None, *range(len(groups)), None]
    layers = [(draw(st.integers(1, 1000)), *pair) for pair in pairwise(order)]
    cost = model(layers + extra, groups)
    dense = cost(metric, [group.width for group in groups])
    try:
        widest = SearchSpace(groups, cost, Budget(metric, dense - 1), round_to)
    except InvalidInput:
        reject()
    limit = draw(st.integers(widest.cost(widest.least), dense - 1))
    return SearchSpace(groups, cost, Budget(metric, limit), round_to)
