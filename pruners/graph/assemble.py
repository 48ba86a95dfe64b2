"""Groups, members and costs out of traced labels.

Classes (labels united by tracing) that sit equally often in the same dims of the same tensors are interchangeable: a
search need only say how many of them stay. Those are a group. Every layer's width is then linear in the group widths.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, fx

from pruners.cost import ONE, CostModel, Linear, Polynomial, Term
from pruners.graph.groups import Coupling, Group, Indices, Member, Resize
from pruners.graph.labels import FIXED, Labels
from pruners.graph.shapes import Shapes


@dataclass(frozen=True)
class Call:
    """One run of a convolution or linear layer: MACs are ``factor`` × its weight's output and (per-group) input channels."""

    layer: str
    factor: int


@dataclass
class Trace:
    """What tracing collects, in labels."""

    labels: Labels = field(default_factory=Labels)
    members: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    baked: list[Any] = field(default_factory=list)


def assemble(module: fx.GraphModule, trace: Trace, shapes: Shapes) -> Coupling:
    """The coupling of a traced network."""
    roots = {key: trace.labels.roots(labels) for key, labels in trace.members.items()}
    known = np.unique(np.concatenate([np.array([FIXED]), *roots.values()]))
    known = known[known != FIXED]

    def to_classes(labels: Indices) -> Indices:
        found = trace.labels.roots(labels)
        return np.where(np.isin(found, known), np.searchsorted(known, found), FIXED)

    members = tuple(Member(tensor, dim, to_classes(labels)) for (tensor, dim), labels in roots.items())
    layers = list(dict.fromkeys(call.layer for call in trace.calls))
    groups = _groups(module, trace, members, layers, known)
    resizes = tuple(
        Resize(baked.node, baked.position, to_classes(baked.labels.numpy()), baked.attribute) for baked in trace.baked
    )
    cost = _cost(module, trace.calls, members, [group for group in groups if group.frozen_reason is None], shapes.macs)
    return Coupling(groups, members, resizes, cost, len(known))


def _groups(
    module: fx.GraphModule, trace: Trace, members: tuple[Member, ...], layers: list[str], known: Indices
) -> tuple[Group, ...]:
    places: list[list[tuple[int, int]]] = [[] for _ in known]  # per class: which members it sits in, how often
    for index, member in enumerate(members):
        for label, count in zip(*np.unique(member.classes[member.classes >= 0], return_counts=True), strict=True):
            places[label].append((index, int(count)))
    outputs = {member.tensor: member for member in members if member.dim == 0}
    alike: dict[tuple[Any, ...], list[int]] = {}
    for layer in layers:
        for label in dict.fromkeys(outputs[f"{layer}.weight"].classes.tolist()):
            if label != FIXED:
                alike.setdefault((trace.labels.reason(int(known[label])), *places[label]), []).append(label)
    summed = trace.labels.summed()
    groups: list[Group] = []
    names: dict[str, int] = {}
    for (reason, *_), labels in alike.items():
        classes = np.array(list(dict.fromkeys(labels)), dtype=np.int64)
        sources = [layer for layer in layers if classes[0] in outputs[f"{layer}.weight"].classes]
        divisor = int((outputs[f"{sources[0]}.weight"].classes == classes[0]).sum())
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
                frozen_reason=reason or ("has a single channel" if len(classes) == 1 else None),
                classes=classes,
            )
        )
    return tuple(groups)


def _cost(
    module: fx.GraphModule, calls: list[Call], members: tuple[Member, ...], prunable: list[Group], dense_macs: int
) -> CostModel:
    group_of = {int(label): index for index, group in enumerate(prunable) for label in group.classes}
    form = {(member.tensor, member.dim): _form(member, group_of) for member in members}
    macs = [Term(call.factor, form[f"{call.layer}.weight", 0], form.get((f"{call.layer}.weight", 1), ONE)) for call in calls]
    params: list[Term] = []
    seen: set[int] = set()
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if id(parameter) in seen:
            continue
        seen.add(id(parameter))
        factors = [form[name, dim] for dim in range(parameter.dim()) if (name, dim) in form]
        rest = parameter.numel()
        for dim in range(parameter.dim()):
            if (name, dim) in form:
                rest //= parameter.shape[dim]
        params.append(Term(rest, *(factors or [ONE])))
    divisors = [group.divisor for group in prunable]
    dense = np.array([len(group.classes) for group in prunable], dtype=np.int64)
    # What the layers above do not account for (matrix products of activations) does not depend on the widths.
    macs.append(Term(dense_macs - int(Polynomial(macs, len(prunable))(dense)), ONE))
    return CostModel(divisors, {"macs": Polynomial(macs, len(prunable)), "params": Polynomial(params, len(prunable))})


def _form(member: Member, group_of: dict[int, int]) -> Linear:
    per_group: dict[int, int] = {}
    constant = 0
    counted: dict[int, int] = {}
    for label in member.classes.tolist():
        group = group_of.get(label)
        if group is None:
            constant += 1
        else:
            counted[label] = counted.get(label, 0) + 1
    for label, count in counted.items():
        per_group[group_of[label]] = count  # equal for all classes of a group, by what makes them a group
    return Linear(constant, per_group)
