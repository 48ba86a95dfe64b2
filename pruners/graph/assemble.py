"""Groups and members out of traced labels.

Classes (labels united by tracing) that sit equally often in the same dims of the same tensors are interchangeable: a
search need only say how many of them stay. Those are a group. Every layer's width is then linear in the group widths.

Where channels were spread over two dims, two tracings are put together: one in which whole columns go (the same place of every
head), and one in which whole rows do (a head). What either takes away leaves a network that holds together, so both may
take away theirs. A group of rows is taken up where it makes full tables with the groups of columns that it meets, so that
widths are products of the two groups' widths.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor, fx

from pruners.graph.costs import Forms, cost_model
from pruners.graph.groups import Coupling, Group, Indices, Member, Resize
from pruners.graph.labels import FIXED, Labels
from pruners.graph.shapes import BATCH, Shapes


@dataclass(frozen=True)
class Product:
    """One run of a layer, or a product of two activations.

    Attributes:
        macs: of the dense network for one input.
        axes: labels ``[size]`` of those of its dims that hold channels, by a number that tells them apart.
    """

    macs: int
    axes: dict[int, Tensor]


@dataclass
class Trace:
    """What tracing collects, in labels.

    In ``spread`` are those that were left where a node spread channels over several dims; ``rewritten`` says whether operator
    calls of the graph were changed.
    """

    labels: Labels = field(default_factory=Labels)
    members: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    outputs: set[tuple[str, int]] = field(default_factory=set)
    layers: dict[str, int] = field(default_factory=dict)
    products: dict[tuple[str, int], Product] = field(default_factory=dict)
    baked: list[Any] = field(default_factory=list)
    spread: dict[str, Tensor] = field(default_factory=dict)
    rewritten: bool = False


Place = tuple[Any, ...]
"""What holds channels: a kind (``member``, ``resize`` or ``axis``) and what tells it from others of its kind."""


class _Numbered:
    """A tracing in numbers.

    Attributes:
        known: the representatives of all classes that sit in a parameter, ascending; a class's number is its index here.
        at: per place the class of each position.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        lines: dict[Place, Tensor] = {("member", *key): labels for key, labels in trace.members.items()}
        lines |= {("resize", baked.node, baked.position, baked.attribute): baked.labels for baked in trace.baked}
        lines |= {("axis", *key, axis): line for key, product in trace.products.items() for axis, line in product.axes.items()}
        # Many places share their labels: a BatchNorm's parameters, a weight and its bias.
        roots = {id(line): trace.labels.roots(line) for line in lines.values()}
        sits = np.zeros(len(trace.labels) + 1, dtype=np.bool_)  # the last entry stands for FIXED
        for line in trace.members.values():
            sits[roots[id(line)]] = True
        self.known = np.flatnonzero(sits[:-1])
        number = np.full(len(sits), FIXED)
        number[self.known] = np.arange(len(self.known))
        numbered = {key: number[found] for key, found in roots.items()}
        self.at: dict[Place, Indices] = {place: numbered[id(line)] for place, line in lines.items()}


def assemble(module: fx.GraphModule, columns: Trace, rows: Trace | None, shapes: Shapes) -> Coupling:
    """The coupling of a traced network.

    Args:
        module: the network.
        columns: its tracing.
        rows: its tracing by rows, where channels are spread over two dims.
        shapes: of the dense network.
    """
    first = _Numbered(columns)
    groups = _groups(module, first)
    at, factors = first.at, np.stack([np.arange(len(first.known))] * 2, axis=1)
    products, outputs = dict(columns.products), set(columns.outputs)
    if rows is not None:
        second = _Numbered(rows)
        at, factors, crossing = _crossed(first, second, _crossing(_groups(module, second), groups, first, second))
        order, taken = list(columns.layers), {group.name for group in groups}
        crossing = [replace(group, name=f"{group.name}.heads") if group.name in taken else group for group in crossing]
        groups = sorted([*groups, *crossing], key=lambda group: order.index(group.layers[0]))
        products |= rows.products
        outputs |= rows.outputs
    members = tuple(Member(tensor, dim, classes, (tensor, dim) in outputs) for (tensor, dim), classes in _of_kind("member", at))
    resizes = tuple(Resize(node, place, classes, part) for (node, place, part), classes in _of_kind("resize", at))
    forms = Forms([group for group in groups if group.frozen_reason is None], members, factors)
    cost = cost_model(module, forms, _per_position(products, at), columns.layers, shapes)
    return Coupling(tuple(groups), members, resizes, cost, dict(columns.layers), factors)


def _of_kind(kind: str, at: dict[Place, Indices]) -> Iterator[tuple[Place, Indices]]:
    """The places of one kind, without its name."""
    return ((place[1:], classes) for place, classes in at.items() if place[0] == kind)


def _per_position(products: dict[tuple[str, int], Product], at: dict[Place, Indices]) -> list[tuple[int, list[Indices]]]:
    """Per product its MACs for ``BATCH`` inputs and one position of each of its axes that hold channels, and these axes."""
    axes: dict[tuple[str, int], list[Indices]] = {key: [] for key in products}
    for (node, number, _), classes in _of_kind("axis", at):
        axes[node, number].append(classes)
    # For BATCH inputs, since one of the axes may be the inputs times the heads.
    return [(product.macs * BATCH // math.prod(map(len, axes[key])), axes[key]) for key, product in products.items()]


def _groups(module: fx.GraphModule, traced: _Numbered) -> list[Group]:
    trace, known = traced.trace, traced.known
    layers = list(trace.layers)
    outputs = [traced.at["member", f"{layer}.weight", dim] for layer, dim in trace.layers.items()]
    classes = _in_order(np.concatenate(outputs), len(known))
    kinds = _number(_signatures(traced)[classes])
    sizes = np.bincount(kinds)
    kind_of = np.full(len(known) + 1, len(sizes))  # its last entry stands for FIXED
    kind_of[classes] = kinds
    found = np.stack([np.bincount(kind_of[each], minlength=len(sizes) + 1)[:-1] for each in outputs])
    summed, normed = trace.labels.summed()[known], trace.labels.normed()[known]
    parts = dict(module.named_modules(remove_duplicate=False))
    groups: list[Group] = []
    names: Counter[str] = Counter()
    for kind, alike in enumerate(np.split(classes[np.argsort(kinds, kind="stable")], np.cumsum(sizes)[:-1])):
        # All classes of a kind sit equally often in each layer.
        source_of = np.flatnonzero(found[:, kind])
        sources, divisor = [layers[index] for index in source_of], int(found[source_of[0], kind]) // len(alike)
        names[sources[0]] += 1
        suffix = "" if names[sources[0]] == 1 else f"#{names[sources[0]]}"
        reason = trace.labels.reason(int(known[alike[0]]))
        groups.append(
            Group(
                name=sources[0] + suffix,
                width=divisor * len(alike),
                divisor=divisor,
                minimum=divisor,
                layers=tuple(sources),
                types=tuple(type(parts[layer]).__name__ for layer in sources),
                residual=bool(summed[alike].any()),
                crosses_norm=bool(normed[alike].any()),
                frozen_reason=reason or ("has a single channel" if len(alike) == 1 else None),
                classes=alike,
            )
        )
    return groups


def _in_order(channels: Indices, classes: int) -> Indices:
    """The classes among ``channels`` in the order in which they first appear, without ``FIXED``."""
    places = np.arange(len(channels))
    first = np.empty(classes + 1, dtype=np.int64)
    first[channels[::-1]] = places[::-1]  # of several values for one index the last stays
    in_order: Indices = channels[(channels != FIXED) & (first[channels] == places)]
    return in_order


def _number(values: Indices) -> Indices:
    """Equal values get equal numbers: 0, 1, 2, … in the order in which they first appear."""
    starts = np.flatnonzero(np.append(True, values[1:] != values[:-1]))  # runs of equal values, which are few
    _, firsts, inverse = np.unique(values[starts], return_index=True, return_inverse=True)
    number = np.empty_like(firsts)
    number[np.argsort(firsts)] = np.arange(len(firsts))
    numbers: Indices = np.repeat(number[inverse], np.diff(starts, append=len(values)))
    return numbers


def _signatures(traced: _Numbered) -> Indices:
    """A number per class, equal for those that sit equally often in all the same places and are frozen for the same reason.

    It is the class's count in each place times that place's random number, added up; that two classes of different counts
    come out equal is as likely as guessing a number of 63 bits.
    """
    lines = [classes for place, classes in traced.at.items() if place[0] != "resize"]
    reasons = traced.trace.labels.reasons(traced.known)
    random = np.random.default_rng(0)
    of_place = random.integers(2**63, size=len(lines))
    of_reason = random.integers(2**63, size=int(reasons.max(initial=0)) + 2)  # the last one is for those that are not frozen
    signatures = np.append(of_reason[reasons], 0)  # the last one is for FIXED
    np.add.at(signatures, np.concatenate(lines), np.repeat(of_place, [len(line) for line in lines]))
    return signatures


def _crossing(rows: Sequence[Group], columns: Sequence[Group], first: _Numbered, second: _Numbered) -> list[Group]:
    """The prunable groups of rows that make full tables with the prunable groups of columns that they meet, wherever they do.

    Channels that belong to no row and column in the first place, each a class in both tracings, make none.
    """
    rows = [group for group in rows if group.frozen_reason is None]
    columns = [group for group in columns if group.frozen_reason is None]
    row_of, column_of = _group_of(rows, len(second.known)), _group_of(columns, len(first.known))
    failed: set[int] = set()
    seen: set[tuple[int, int]] = set()  # places whose labels are another's
    for place, labels in second.at.items():
        others = first.at.get(place)
        if (id(labels), id(others)) in seen:
            continue
        seen.add((id(labels), id(others)))
        column = FIXED if others is None else np.where(column_of[others] == FIXED, FIXED, others)
        # A cell is a row's class and a column's, as one number.
        cells = (labels * len(column_of) + column + 1)[row_of[labels] != FIXED]
        cells, counts = np.unique(cells, return_counts=True)
        tables = row_of[cells // len(column_of)] * (len(columns) + 1) + column_of[cells % len(column_of) - 1] + 1
        for table in np.unique(tables).tolist():
            row, column = divmod(table, len(columns) + 1)
            size = len(rows[row].classes) * (len(columns[column - 1].classes) if column else 1)
            cell_counts = counts[tables == table]
            if len(cell_counts) != size or cell_counts.min() != cell_counts.max():
                failed.add(row)
    return [group for index, group in enumerate(rows) if index not in failed]


def _group_of(groups: Sequence[Group], classes: int) -> Indices:
    """The group of each class, ``FIXED`` for none; a last entry stands for the class ``FIXED``."""
    group_of = np.full(classes + 1, FIXED)
    for index, group in enumerate(groups):
        group_of[group.classes] = index
    return group_of


def _crossed(
    first: _Numbered, second: _Numbered, crossing: Sequence[Group]
) -> tuple[dict[Place, Indices], Indices, list[Group]]:
    """Two tracings in one: the classes of every place, their factors, and the groups of rows in these classes' numbers.

    First come the classes of columns, then those of rows, then those of positions that belong to one of each.
    """
    number = np.full(len(second.known) + 1, FIXED)  # its last entry stands for FIXED
    count, renumbered = len(first.known), []
    for group in crossing:
        classes = np.arange(count, count := count + len(group.classes))
        number[group.classes] = classes
        renumbered.append(replace(group, classes=classes))
    pairs: dict[Place, tuple[Indices, Indices]] = {}
    for place in dict.fromkeys([*first.at, *second.at]):
        nothing = np.full(len(first.at.get(place, second.at.get(place, ()))), FIXED)
        column, row = first.at.get(place, nothing), number[second.at.get(place, nothing)]
        pairs[place] = np.where(row == FIXED, column, row), np.where(column == FIXED, row, column)
    codes = {place: row * count + column for place, (row, column) in pairs.items()}
    tables = np.unique(np.concatenate([codes[place][row != column] for place, (row, column) in pairs.items()]))
    at = {
        place: np.where(row == column, row, count + np.searchsorted(tables, codes[place]))
        for place, (row, column) in pairs.items()
    }
    alone = np.arange(count)
    factors = np.concatenate([np.stack([alone, alone], axis=1), np.stack([tables // count, tables % count], axis=1)])
    return at, factors, renumbered
