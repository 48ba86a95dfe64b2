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
    groups = len(forms.prunable)
    batch = Polynomial([term for factor, axes in products for term in multiplied(factor, *map(forms.of, axes))], groups)
    macs = [Term(term.coefficient // BATCH, *term.factors) for term in batch.terms()]
    # What these do not account for (products of constants) does not depend on the widths.
    dense = np.array([len(group.classes) for group in forms.prunable], dtype=np.int64)
    macs.append(Term(shapes.macs - int(Polynomial(macs, groups)(dense))))
    parameters = _once(module.named_parameters(remove_duplicate=False))
    tensors = {**parameters, **_once(module.named_buffers(remove_duplicate=False))}
    metrics = {
        "macs": macs,
        "params": [term for name, tensor in parameters.items() for term in forms.elements(name, tensor)],
        "size_bytes": [term for name, tensor in tensors.items() for term in forms.elements(name, tensor, tensor.itemsize)],
        "activation_bytes": list(_activations(module, layers, forms, shapes)),
    }
    divisors = [group.divisor for group in forms.prunable]
    return CostModel(divisors, {name: Polynomial(terms, groups) for name, terms in metrics.items()})


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
        self._members = {(member.tensor, member.dim): self.of(member.classes) for member in members}

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

    def elements(self, name: str, tensor: Tensor, factor: int = 1) -> Width:
        """``factor`` × the elements of a parameter or buffer."""
        widths = {dim: form for dim in range(tensor.dim()) if (form := self.width(name, dim)) is not None}
        rest = math.prod(size for dim, size in enumerate(tensor.shape) if dim not in widths)
        return multiplied(factor * rest, *widths.values())


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
    for node in module.graph.nodes:
        if node.op == "call_module" and node.target in layers:
            weight, dim = module.get_parameter(f"{node.target}.weight"), layers[node.target]
            width = forms.width(f"{node.target}.weight", dim) or []
            per_channel = shapes.elements[node] // weight.shape[dim]
            yield from multiplied(per_channel * weight.itemsize, width)
