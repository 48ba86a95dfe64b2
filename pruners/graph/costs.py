"""The cost model of a traced network: every figure of ``pruners.cost`` as a polynomial of the group widths."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import numpy as np
from torch import Tensor, fx

from pruners.cost import CostModel, Linear, Polynomial, Term
from pruners.graph.groups import Group, Indices, Member
from pruners.graph.shapes import BATCH, Shapes

Width = list[Term]
"""How many positions of a dim stay: the sum of these."""


def cost_model(
    module: fx.GraphModule,
    forms: Forms,
    products: Iterable[tuple[int, Sequence[Indices]]],
    layers: Mapping[str, int],
    shapes: Shapes,
) -> CostModel:
    """The costs of a network by the widths of its prunable groups.

    Args:
        module: the network.
        forms: its widths.
        products: MACs of layers and matrix products for ``BATCH`` inputs, each ``(factor, [classes, …])``: the factor ×
            all these widths.
        layers: see ``Coupling.layers``.
        shapes: of the dense network.
    """

    def polynomial(terms: Iterable[Term]) -> Polynomial:
        return Polynomial(list(terms), len(forms.prunable))

    batch = polynomial(term for factor, axes in products for term in multiplied(factor, *map(forms.of, axes)))
    macs = batch // BATCH
    # What these do not account for (products of constants) does not depend on the widths.
    macs += shapes.macs - int(macs(np.array([len(group.classes) for group in forms.prunable], dtype=np.int64)))
    parameters = _once(module.named_parameters(remove_duplicate=False))
    tensors = {**parameters, **_once(module.named_buffers(remove_duplicate=False))}
    elements = {name: forms.elements(name, tensor) for name, tensor in tensors.items()}
    metrics = {
        "macs": macs,
        "params": polynomial(term for name in parameters for term in elements[name]),
        "size_bytes": polynomial(
            Term(term.coefficient * tensor.itemsize, *term.factors)
            for name, tensor in tensors.items()
            for term in elements[name]
        ),
        "activation_bytes": polynomial(_activations(module, layers, forms, shapes)),
    }
    return CostModel([group.divisor for group in forms.prunable], metrics)


class Forms:
    """Widths by the numbers of classes that the prunable groups keep.

    Args:
        prunable: the groups that vary.
        members: the labelled dims that forms are asked for.
        factors: see ``Coupling.factors``.
    """

    def __init__(self, prunable: Sequence[Group], members: Sequence[Member], factors: Indices) -> None:
        self.prunable = prunable
        self._sizes = [1, *(len(group.classes) for group in prunable)]
        number = np.zeros(len(factors), dtype=np.int64)  # 0: a class of no prunable group
        for index, group in enumerate(prunable):
            number[group.classes] = index + 1
        first = number[factors[:, 0]]
        second = np.where(factors[:, 0] == factors[:, 1], 0, number[factors[:, 1]])
        # Per class the two groups that it is of as one number; the last entry stands for the positions of no class.
        self._groups = np.append(np.minimum(first, second) * len(self._sizes) + np.maximum(first, second), 0)
        known: dict[int, Width] = {}  # many members share their classes: a BatchNorm's, those of a weight and its bias
        self._members: dict[tuple[str, int], Width] = {}
        for member in members:
            if id(member.classes) not in known:
                known[id(member.classes)] = self.of(member.classes)
            self._members[member.tensor, member.dim] = known[id(member.classes)]

    def of(self, classes: Indices) -> Width:
        """How many of these positions stay: a linear form, and for each pair of groups that cross a product of the two."""
        constant = 0
        alone: dict[int, int] = {}
        crossing: list[Term] = []
        found = np.bincount(self._groups[classes])
        for groups in np.flatnonzero(found).tolist():
            first, second = divmod(groups, len(self._sizes))
            # All classes of a group sit equally often here, by what makes them a group, and so do all pairs of two groups.
            each = int(found[groups]) // (self._sizes[first] * self._sizes[second])
            if first:
                crossing.append(Term(each, Linear(0, {first - 1: 1}), Linear(0, {second - 1: 1})))
            elif second:
                alone[second - 1] = each
            else:
                constant = each
        return [*crossing, Term(1, Linear(constant, alone))] if constant or alone else crossing

    def width(self, tensor: str, dim: int) -> Width | None:
        """The size of one dim of a parameter or buffer; ``None`` if it does not vary."""
        return self._members.get((tensor, dim))

    def elements(self, name: str, tensor: Tensor) -> Width:
        """The elements of a parameter or buffer."""
        widths = {dim: form for dim in range(tensor.dim()) if (form := self.width(name, dim)) is not None}
        rest = math.prod(size for dim, size in enumerate(tensor.shape) if dim not in widths)
        return multiplied(rest, *widths.values())


def multiplied(factor: int, *widths: Width) -> list[Term]:
    """``factor`` × the product of these widths, as a sum of terms."""
    terms: list[Term] = []
    for choice in product(*widths):
        factors = [form for term in choice for form in term.factors]
        constant = math.prod(form.constant for form in factors if not form.per_group)
        coefficient = factor * constant * math.prod(term.coefficient for term in choice)
        terms.append(Term(coefficient, *[form for form in factors if form.per_group]))
    return terms


def _once(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors by name, each under its first name alone."""
    by_id: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in tensors:
        by_id.setdefault(id(tensor), (name, tensor))
    return dict(by_id.values())


def _activations(module: fx.GraphModule, layers: Mapping[str, int], forms: Forms, shapes: Shapes) -> Iterable[Term]:
    parts = dict(module.named_modules(remove_duplicate=False))
    for node in module.graph.nodes:
        if node.op == "call_module" and node.target in layers:
            weight, dim = parts[node.target].get_parameter("weight"), layers[node.target]
            width = forms.width(f"{node.target}.weight", dim) or []
            per_channel = shapes.elements[node] // weight.shape[dim]
            yield from multiplied(per_channel * weight.itemsize, width)
