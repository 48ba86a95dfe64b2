"""Finding coupled channels: label tensors are pushed through the network, operator by operator.

Movement operators move labels, pointwise ones unite the labels that meet, layers consume labels and hand out fresh ones, and
an operator that is not followed freezes what it touches and says so. Two channels end in one class exactly when one cannot be
removed without the other; ``pruners.graph.assemble`` makes groups of the classes. Where channels are spread over two dims, as
those of attention are over heads, this is done once by columns and once by rows.

The rules themselves are in ``rules`` (operators), ``movement`` (operators that move channels about) and ``layers`` (modules).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx

from pruners.graph import layers, movement, ops, rules
from pruners.graph.assemble import Trace, assemble
from pruners.graph.groups import Coupling
from pruners.graph.shapes import Shapes, infer_shapes
from pruners.graph.tracer import Raw, Tracer, fixed

_RULES = {
    ops.Kind.POINTWISE: rules.pointwise,
    ops.Kind.MOVEMENT: movement.movement,
    ops.Kind.WINDOW: rules.window,
    ops.Kind.REDUCTION: rules.reduction,
    ops.Kind.ALONG: rules.along,
    ops.Kind.NORM: rules.norm,
    ops.Kind.PRODUCT: rules.product,
    ops.Kind.CONSTANT: rules.constant,
}


def trace(module: fx.GraphModule) -> Coupling:
    """The coupled channels of a network built by ``build_module``.

    Splits into equal parts are rewritten in place as splits by sizes, since the parts may become unequal, and attention gets
    its scale written out, since it must not change with the width of a head.

    Raises:
        InvalidInput: the network does not run on its own declared inputs.
    """
    shapes = infer_shapes(module)
    columns = _traced(module, shapes)
    rows = _by_rows(module, shapes, columns)
    if columns.rewritten or columns.spread:  # by rows other calls may have changed
        module.recompile()
    return assemble(module, columns, rows, shapes)


def _by_rows(module: fx.GraphModule, shapes: Shapes, columns: Trace) -> Trace | None:
    """A tracing that unites rows where the first one united columns, or ``None`` if they get stuck everywhere.

    Where they do get stuck, columns are united again: query, key and value, say, are the rows of what holds all three, and
    part before each of them is spread over heads.
    """
    places = frozenset(columns.spread)
    if not places:
        return None
    rows = _traced(module, shapes, places)
    left = places - {node for node, labels in rows.spread.items() if rows.labels.frozen(labels)}
    if left == places:
        return rows
    return _traced(module, shapes, left) if left else None


def _traced(module: fx.GraphModule, shapes: Shapes, by_rows: frozenset[str] = frozenset()) -> Trace:
    tracer = Tracer(module, shapes, by_rows)
    for node in module.graph.nodes:
        tracer.values[node] = _value(tracer, node)
    return tracer.result


def _value(tracer: Tracer, node: fx.Node) -> Any:
    if node.op == "placeholder":
        return fixed(tracer.shape(node))
    if node.op == "get_attr":
        shape = tracer.shape(node)
        return Raw(str(node.target), shape, tuple(range(len(shape))))
    if node.op == "call_module":
        return layers.module(tracer, node)
    if node.op == "call_function":
        return _function(tracer, node)
    tracer.freeze(node.args, "is an output of the network")
    return None


def _function(tracer: Tracer, node: fx.Node) -> Any:
    target: Any = node.target
    if target is ops.ITEM:
        values, place = tracer.args(node)
        return values[place]
    name = ops.name_of(target)
    kind = ops.KINDS.get(name, ops.Kind.SYMBOLIC)
    if kind is ops.Kind.SYMBOLIC:
        return tracer.shape(node)
    operands = list(_tensors(tracer.args(node)))
    if kind is not ops.Kind.PRODUCT and not any(isinstance(operand, Tensor) for operand in operands):
        return movement.of_constants(tracer, node, operands)
    rule = _RULES.get(kind)
    result = rule(tracer, node, name.partition(".")[0], operands) if rule else None
    if result is None:
        tracer.freeze((node.args, node.kwargs), f"passes through {name.removesuffix('.default')}, which is not followed")
        return fixed(tracer.shape(node))
    return result


def _tensors(value: Any) -> Iterator[Tensor | Raw]:
    """The traced tensors among possibly nested arguments."""
    if isinstance(value, Tensor | Raw):
        yield value
    elif isinstance(value, tuple | list) and not isinstance(value, torch.Size):
        for item in value:
            yield from _tensors(item)
