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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor, fx

from pruners.graph.costs import Forms, cost_model
from pruners.graph.groups import Coupling, Group, Indices, Member, Resize
from pruners.graph.labels import FIXED, Labels
from pruners.graph.shapes import Shapes


@dataclass(frozen=True)
class Call:
    """One run of a convolution or linear layer: MACs are ``factor`` × its weight's output and (per-group) input channels."""

    layer: str
    factor: int


@dataclass(frozen=True)
class Product:
    """A product of two activations.

    Attributes:
        macs: of the dense network, for ``BATCH`` inputs.
        axes: labels ``[size]`` of those of its dims that hold channels, by a number that tells them apart.
    """

    macs: int
    axes: dict[int, Tensor]


@dataclass
class Trace:
    """What tracing collects, in labels; in ``spread`` those that were left where a node spread channels over several dims."""

    labels: Labels = field(default_factory=Labels)
    members: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    outputs: set[tuple[str, int]] = field(default_factory=set)
    layers: dict[str, int] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    products: dict[tuple[str, int], Product] = field(default_factory=dict)
    baked: list[Any] = field(default_factory=list)
    spread: dict[str, Tensor] = field(default_factory=dict)


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
        roots = {place: trace.labels.roots(line) for place, line in lines.items()}
        self.known = np.unique(np.concatenate([np.array([FIXED]), *(roots["member", *key] for key in trace.members)]))[1:]
        self.at: dict[Place, Indices] = {
            place: np.where(np.isin(found, self.known), np.searchsorted(self.known, found), FIXED)
            for place, found in roots.items()
        }


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
        order = list(columns.layers)
        groups = sorted([*groups, *crossing], key=lambda group: order.index(group.layers[0]))
        products |= rows.products
        outputs |= rows.outputs
    members = tuple(Member(tensor, dim, classes, (tensor, dim) in outputs) for (tensor, dim), classes in _of_kind("member", at))
    resizes = tuple(Resize(node, place, classes, part) for (node, place, part), classes in _of_kind("resize", at))
    weights = dict(_of_kind("member", at))
    calls = [
        (call.factor, weights[f"{call.layer}.weight", 0], weights.get((f"{call.layer}.weight", 1))) for call in columns.calls
    ]
    forms = Forms([group for group in groups if group.frozen_reason is None], members, factors)
    cost = cost_model(module, forms, calls, _per_position(products, at), columns.layers, shapes)
    return Coupling(tuple(groups), members, resizes, cost, dict(columns.layers), factors)


def _of_kind(kind: str, at: dict[Place, Indices]) -> Iterator[tuple[Place, Indices]]:
    """The places of one kind, without its name."""
    return ((place[1:], classes) for place, classes in at.items() if place[0] == kind)


def _per_position(products: dict[tuple[str, int], Product], at: dict[Place, Indices]) -> list[tuple[int, list[Indices]]]:
    """Per product its MACs for one position of each of its axes that hold channels, and these axes."""
    axes: dict[tuple[str, int], list[Indices]] = {key: [] for key in products}
    for (node, number, _), classes in _of_kind("axis", at):
        axes[node, number].append(classes)
    return [(product.macs // math.prod(map(len, axes[key])), axes[key]) for key, product in products.items()]


def _groups(module: fx.GraphModule, traced: _Numbered) -> list[Group]:
    trace, known, members = traced.trace, traced.known, dict(_of_kind("member", traced.at))
    places: list[list[tuple[int, int]]] = [[] for _ in known]  # per class: which members it sits in, how often
    for index, found in enumerate(members.values()):
        for label, count in zip(*np.unique(found[found >= 0], return_counts=True), strict=True):
            places[label].append((index, int(count)))
    outputs = {layer: members[f"{layer}.weight", dim] for layer, dim in trace.layers.items()}
    alike: dict[tuple[Any, ...], list[int]] = {}
    for classes_of_layer in outputs.values():
        for label in dict.fromkeys(classes_of_layer.tolist()):
            if label != FIXED:
                alike.setdefault((trace.labels.reason(int(known[label])), *places[label]), []).append(label)
    summed, normed = trace.labels.summed(), trace.labels.normed()
    groups: list[Group] = []
    names: dict[str, int] = {}
    for (reason, *_), labels in alike.items():
        classes = np.array(list(dict.fromkeys(labels)), dtype=np.int64)
        sources = [layer for layer, produced in outputs.items() if classes[0] in produced]
        divisor = int((outputs[sources[0]] == classes[0]).sum())
        names[sources[0]] = names.get(sources[0], 0) + 1
        suffix = "" if names[sources[0]] == 1 else f"#{names[sources[0]]}"
        groups.append(
            Group(
                name=sources[0] + suffix,
                width=divisor * len(classes),
                divisor=divisor,
                minimum=divisor,
                layers=tuple(sources),
                types=tuple(type(module.get_submodule(layer)).__name__ for layer in sources),
                residual=any(int(known[label]) in summed for label in classes),
                crosses_norm=any(int(known[label]) in normed for label in classes),
                frozen_reason=reason or ("has a single channel" if len(classes) == 1 else None),
                classes=classes,
            )
        )
    return groups


def _crossing(rows: Sequence[Group], columns: Sequence[Group], first: _Numbered, second: _Numbered) -> list[Group]:
    """The prunable groups of rows that make full tables with the prunable groups of columns that they meet, wherever they do.

    Channels that belong to no row and column in the first place, each a class in both tracings, make none.
    """
    rows = [group for group in rows if group.frozen_reason is None]
    columns = [group for group in columns if group.frozen_reason is None]
    row_of, column_of = _group_of(rows, len(second.known)), _group_of(columns, len(first.known))
    failed: set[int] = set()
    for place, labels in second.at.items():
        others = first.at.get(place, np.full(len(labels), FIXED))
        cells = np.stack([labels, np.where(column_of[others] == FIXED, FIXED, others)])[:, row_of[labels] != FIXED]
        cells, counts = np.unique(cells, axis=1, return_counts=True)
        tables = row_of[cells[0]] * (len(columns) + 1) + column_of[cells[1]] + 1
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
        renumbered.append(replace(group, name=f"{group.name}.heads", classes=classes))
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
