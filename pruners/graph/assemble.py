"""Groups and members out of traced labels.

Classes (labels united by tracing) that sit equally often in the same dims of the same tensors are interchangeable: a
search need only say how many of them stay. Those are a group. Every layer's width is then linear in the group widths.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, fx

from pruners.graph.costs import cost_model
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
    """A product of two activations: MACs are ``factor`` × the channels of ``first`` × those of ``second`` (labels)."""

    factor: int
    first: Tensor
    second: Tensor


@dataclass
class Trace:
    """What tracing collects, in labels."""

    labels: Labels = field(default_factory=Labels)
    members: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    outputs: set[tuple[str, int]] = field(default_factory=set)
    layers: dict[str, int] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    baked: list[Any] = field(default_factory=list)


def assemble(module: fx.GraphModule, trace: Trace, shapes: Shapes) -> Coupling:
    """The coupling of a traced network."""
    roots = {key: trace.labels.roots(labels) for key, labels in trace.members.items()}
    known = np.unique(np.concatenate([np.array([FIXED]), *roots.values()]))
    known = known[known != FIXED]

    def to_classes(labels: Tensor | Indices) -> Indices:
        found = trace.labels.roots(labels)
        return np.where(np.isin(found, known), np.searchsorted(known, found), FIXED)

    members = tuple(
        Member(tensor, dim, to_classes(labels), (tensor, dim) in trace.outputs) for (tensor, dim), labels in roots.items()
    )
    groups = _groups(module, trace, members, known)
    resizes = tuple(
        Resize(baked.node, baked.position, to_classes(baked.labels.numpy()), baked.attribute) for baked in trace.baked
    )
    prunable = [group for group in groups if group.frozen_reason is None]
    at = {(member.tensor, member.dim): member.classes for member in members}
    products = [(call.factor, at[f"{call.layer}.weight", 0], at.get((f"{call.layer}.weight", 1))) for call in trace.calls]
    products += [(product.factor, to_classes(product.first), to_classes(product.second)) for product in trace.products]
    cost = cost_model(module, prunable, members, products, trace.layers, shapes)
    return Coupling(groups, members, resizes, cost, dict(trace.layers), len(known))


def _groups(module: fx.GraphModule, trace: Trace, members: tuple[Member, ...], known: Indices) -> tuple[Group, ...]:
    places: list[list[tuple[int, int]]] = [[] for _ in known]  # per class: which members it sits in, how often
    for index, member in enumerate(members):
        for label, count in zip(*np.unique(member.classes[member.classes >= 0], return_counts=True), strict=True):
            places[label].append((index, int(count)))
    at = {(member.tensor, member.dim): member.classes for member in members}
    outputs = {layer: at[f"{layer}.weight", dim] for layer, dim in trace.layers.items()}
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
    return tuple(groups)
