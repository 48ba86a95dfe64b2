"""The cost model of a traced network: every figure of ``pruners.cost`` as a polynomial of the group widths."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from torch import Tensor, fx

from pruners.cost import ONE, CostModel, Linear, Polynomial, Term
from pruners.graph.groups import Group, Indices, Member
from pruners.graph.shapes import BATCH, Shapes


def cost_model(
    module: fx.GraphModule,
    prunable: Sequence[Group],
    members: Sequence[Member],
    products: Iterable[tuple[int, Indices, Indices | None]],
    layers: Mapping[str, int],
    shapes: Shapes,
) -> CostModel:
    """The costs of a network by the widths of its prunable groups.

    Args:
        module: the network.
        prunable: the groups that vary, in the order of the model's variables.
        members: every labelled dim of every parameter and buffer.
        products: MACs, each ``(factor, classes, classes or None)``: the factor × the channels of one or both.
        layers: see ``Coupling.layers``.
        shapes: of the dense network.
    """
    forms = Forms(prunable, members)
    groups = len(prunable)
    macs = [Term(factor, forms.of(first), ONE if second is None else forms.of(second)) for factor, first, second in products]
    # What these do not account for (products of constants) does not depend on the widths.
    dense = np.array([len(group.classes) for group in prunable], dtype=np.int64)
    macs.append(Term(shapes.macs - int(Polynomial(macs, groups)(dense)), ONE))
    parameters = _once(module.named_parameters(remove_duplicate=False))
    tensors = {**parameters, **_once(module.named_buffers(remove_duplicate=False))}
    metrics = {
        "macs": macs,
        "params": [forms.elements(name, tensor) for name, tensor in parameters.items()],
        "size_bytes": [forms.elements(name, tensor, tensor.itemsize) for name, tensor in tensors.items()],
        "activation_bytes": list(_activations(module, layers, forms, shapes)),
    }
    divisors = [group.divisor for group in prunable]
    return CostModel(divisors, {name: Polynomial(terms, groups) for name, terms in metrics.items()})


class Forms:
    """Widths as linear forms of the numbers of classes that the prunable groups keep.

    Args:
        prunable: the groups that vary.
        members: the labelled dims that forms are asked for.
    """

    def __init__(self, prunable: Sequence[Group], members: Sequence[Member]) -> None:
        self._group_of = {int(label): index for index, group in enumerate(prunable) for label in group.classes}
        self._members = {(member.tensor, member.dim): self.of(member.classes) for member in members}

    def of(self, classes: Indices) -> Linear:
        """How many of these positions stay."""
        constant = 0
        per_group: dict[int, int] = {}
        for label, count in zip(*np.unique(classes, return_counts=True), strict=True):
            group = self._group_of.get(int(label))
            if group is None:
                constant += int(count)
            else:
                per_group[group] = int(count)  # equal for all classes of a group, by what makes them a group
        return Linear(constant, per_group)

    def width(self, tensor: str, dim: int) -> Linear | None:
        """The size of one dim of a parameter or buffer; ``None`` if it does not vary."""
        return self._members.get((tensor, dim))

    def elements(self, name: str, tensor: Tensor, factor: int = 1) -> Term:
        """``factor`` × the elements of a parameter or buffer."""
        widths = {dim: form for dim in range(tensor.dim()) if (form := self.width(name, dim)) is not None}
        rest = math.prod(size for dim, size in enumerate(tensor.shape) if dim not in widths)
        return Term(factor * rest, *(list(widths.values()) or [ONE]))


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
            width = forms.width(f"{node.target}.weight", dim) or ONE
            per_channel = math.prod(shapes.values[node]) // (BATCH * weight.shape[dim])
            yield Term(per_channel * weight.itemsize, width)
