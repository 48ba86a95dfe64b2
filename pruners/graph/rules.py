"""How channels pass through operators that compute: pointwise ones, windows, reductions, norms, matrix products.

Each rule takes the tracer, the node, the operator's name and its traced tensors, and returns the labels of the result; or
``None`` where it cannot follow, and then what was touched is frozen. ``pruners.graph.ops`` says which rule an operator has.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx

from pruners.graph.assemble import Product
from pruners.graph.labels import FIXED, compact, line_along, profile, shrink_constant_dims, varying
from pruners.graph.tracer import Raw, Tracer, as_labels, fixed, lay

_REDUCED_DIMS = {"linalg_vector_norm": 2, "norm": 2}  # the argument that holds the dims, where it is not the second

_BLIND_TO_ZEROS = frozenset({"sum", "linalg_vector_norm", "norm"})
"""Reductions that a channel of zeros does not change, so that masking one is removing it."""

Operands = list[Tensor | Raw]


def pointwise(tracer: Tracer, node: fx.Node, name: str, operands: Operands) -> Tensor | None:
    """Labels that meet at one position, after broadcasting, are one; an addition makes them a residual stream."""
    if name == "prelu":
        return _prelu(tracer, operands)
    shape = tracer.shape(node)
    result: Tensor | None = None
    for operand in operands:
        if isinstance(operand, Tensor):
            found = operand.expand(shape)
            result = found if result is None else _meet(tracer, result, operand, shape, summed=name in ("add", "add_"))
    for operand in operands:
        if isinstance(operand, Raw) and result is not None:
            meet_raw(tracer, result, operand)
    return result


def _meet(tracer: Tracer, first: Tensor, second: Tensor, shape: torch.Size, *, summed: bool) -> Tensor:
    """Unites two operands; one that is a single channel spread over many stays as it is and joins none of them."""
    for one, other in ((first, second), (second, first)):
        wide = other.expand(shape)
        offset = len(shape) - one.dim()
        if any(dim < offset or one.shape[dim - offset] == 1 for dim in varying(wide)):
            tracer.labels.freeze(shrink_constant_dims(one)[0], "is spread over the channels of another layer")
            return wide
    first, second = first.expand(shape), second.expand(shape)
    tracer.labels.unite(first, second, summed=summed)
    # Where one side is FIXED the other has been frozen; the label that remains must not hide that.
    return compact(torch.maximum(*shrink_constant_dims(first, second)).expand(shape))


def meet_raw(tracer: Tracer, labels: Tensor, raw: Raw) -> None:
    """A raw tensor follows the channels along the one dim where they change."""
    along = varying(labels)
    offset = labels.dim() - len(raw.shape)
    touched = [dim for dim in along if dim >= offset and raw.shape[dim - offset] > 1]
    if not touched:
        return
    line = profile(labels, touched[0]) if len(along) == 1 else None
    if line is None or not tracer.follow(raw, touched[0] - offset, line):
        tracer.freeze(labels, "is combined with a constant of fixed size")


def _prelu(tracer: Tracer, operands: Operands) -> Tensor | None:
    labels, weight = operands
    if not isinstance(labels, Tensor) or not isinstance(weight, Raw):
        return None
    if weight.shape.numel() > 1:  # one slope per channel
        line = profile(labels, 1)
        if line is None or weight.name is None:
            return None
        tracer.member(weight.name, 0, line)
    return labels


def window(tracer: Tracer, node: fx.Node, name: str, operands: Operands) -> Tensor | list[Tensor] | None:
    """Pooling and resampling of the trailing dims, channel by channel."""
    source, shape = as_labels(operands[0]), tracer.shape(node)
    dims = next(int(letter) for letter in name if letter.isdigit())
    first = source.dim() - dims
    if any(dim >= first for dim in varying(source)):
        return None
    one = source[(..., *[slice(0, 1)] * dims)]
    return [one.expand(part) for part in shape] if isinstance(shape, list) else one.expand(shape)


def reduction(tracer: Tracer, node: fx.Node, name: str, operands: Operands) -> Tensor | None:
    """Dims averaged or summed away. A mean over channels is a norm by hand: it can lose some, but is another mean then."""
    source, shape = as_labels(operands[0]), tracer.shape(node)
    given = tracer.args(node)[_REDUCED_DIMS.get(name, 1)]
    given = [given] if isinstance(given, int) else given
    reduced = {dim % source.dim() for dim in (given or range(source.dim()))}
    for dim in reduced & set(varying(source)):
        line = profile(source, dim)
        if line is None:
            return None
        if name not in _BLIND_TO_ZEROS:
            tracer.labels.norm(line)
        return torch.tensor(FIXED).expand(shape)
    for dim in reduced:
        source = source.narrow(dim, 0, 1)
    if len(shape) != source.dim():
        source = source.squeeze(tuple(reduced))
    result: Tensor = source.expand(shape)
    return result


def along(tracer: Tracer, node: fx.Node, name: str, operands: Operands) -> Tensor | None:
    """Operators that mix positions along given dims, and nothing across the others (softmax, roll, flip)."""
    source: Tensor = as_labels(operands[0])
    args = tracer.args(node)
    dims = args[2] if name == "roll" else args[1]
    mixed = {dim % source.dim() for dim in ([dims] if isinstance(dims, int) else dims)}
    whole = name == "roll" and not mixed  # without dims it rolls the flattened tensor
    return None if whole or mixed & set(varying(source)) else source


def constant(tracer: Tracer, node: fx.Node, name: str, operands: Operands) -> Any:
    """New tensors that take only dtype and device from their argument."""
    return fixed(tracer.shape(node))


def norm(tracer: Tracer, node: fx.Node, name: str, operands: Operands) -> Tensor | None:
    """LayerNorm, RMSNorm, GroupNorm, InstanceNorm."""
    source = operands[0]
    if not isinstance(source, Tensor):
        return None
    if name == "group_norm":
        return _group_norm(tracer, node, source)
    if name == "instance_norm":
        line = profile(source, 1)
        return None if line is None or not _norm_parameters(tracer, tracer.args(node)[1:5], 0, line) else source
    return _layer_norm(tracer, node, source)


def _layer_norm(tracer: Tracer, node: fx.Node, source: Tensor) -> Tensor | None:
    _, sizes, *rest = tracer.args(node)
    first = source.dim() - len(sizes)
    for dim in varying(source):
        if dim < first:
            continue
        line = profile(source, dim)
        parameters = [value for value in rest if isinstance(value, Raw)]
        if line is None or not _norm_parameters(tracer, parameters, dim - first, line):
            return None
        tracer.labels.norm(line)
        tracer.bake(node.name, (1, dim - first), line)
    return source


def _group_norm(tracer: Tracer, node: fx.Node, source: Tensor) -> Tensor | None:
    _, groups, weight, bias, *_ = tracer.args(node)
    line = profile(source, 1)
    if line is None or not _norm_parameters(tracer, [weight, bias], 0, line):
        return None
    if groups == len(line):  # every channel by itself
        tracer.bake(node.name, (1,), line)
    else:  # groups stay equally large: channels at one place of all groups go together
        table = line.reshape(groups, -1)
        tracer.labels.unite(table, table[:1].expand(table.shape))
        tracer.labels.norm(line)
    return source


def _norm_parameters(tracer: Tracer, parameters: list[Any], dim: int, line: Tensor) -> bool:
    given = [value for value in parameters if isinstance(value, Raw)]
    if any(value.name is None for value in given):
        return False
    for value in given:
        tracer.member(str(value.name), dim, line, output=True)
    return True


def product(tracer: Tracer, node: fx.Node, name: str, operands: Operands) -> Tensor | None:
    """Matrix products of activations, attention, and rows looked up in a table."""
    if name == "embedding":
        return _embedding(tracer, node, operands)
    if name == "scaled_dot_product_attention":
        return _attention(tracer, node)
    if name == "einsum":
        return _einsum(tracer, node)
    if len(operands) != 2 or any(isinstance(operand, Raw) or operand.dim() < 2 for operand in operands):
        return None
    first, second = (as_labels(operand) for operand in operands)
    shape: torch.Size = tracer.shape(node)
    inner = _contracted(tracer, first, first.dim() - 1, second, second.dim() - 2)
    batch = _batch(tracer, (first, second), shape[:-2])
    rows, columns = first.dim() - 2 in varying(first), second.dim() - 1 in varying(second)
    if inner is None or rows + columns + bool(varying(batch)) > 1:
        return None
    outer = profile(first, -2) if rows else profile(second, -1) if columns else None
    result = batch[..., None, None].expand(shape) if outer is None else lay(outer, len(shape) - (2 if rows else 1), shape)
    _count(tracer, node, 0, tracer.elements(node) * first.shape[-1], inner, result)
    return result


def _einsum(tracer: Tracer, node: fx.Node) -> Tensor | None:
    """A product of two activations in Einstein's notation, each letter once in each; sums over letters of both."""
    equation, operands = tracer.args(node)
    terms, _, result = equation.replace(" ", "").partition("->")
    given = terms.split(",")
    if len(given) != 2 or not all(isinstance(operand, Tensor) for operand in operands):
        return None
    spelt = all(len(set(term)) == len(term) for term in (*given, result)) and "." not in terms and result != ""
    if not spelt or (set(given[0]) ^ set(given[1])) - set(result):
        return None
    lines: dict[str, Tensor] = {}
    for letters, labels in zip(given, operands, strict=True):
        along = varying(labels)
        if len(along) > 1:
            return None
        for place, letter in enumerate(letters):
            found = line_along(labels, place) if place in along else torch.full((labels.shape[place],), FIXED)
            if letter in lines:
                tracer.labels.unite(lines[letter], found)
                found = torch.maximum(lines[letter], found)
            lines[letter] = found
    holding = [letter for letter in result if bool((lines[letter] != FIXED).any())]
    if len(holding) > 1:
        return None
    shape: torch.Size = tracer.shape(node)
    summed = [letter for letter in lines if letter not in result]
    axes = {place: lines[letter] for place, letter in enumerate([*result, *summed]) if bool((lines[letter] != FIXED).any())}
    macs = tracer.elements(node) * math.prod(len(lines[letter]) for letter in summed)
    tracer.result.products[node.name, 0] = Product(macs, axes)
    return lay(lines[holding[0]], result.index(holding[0]), shape) if holding else torch.tensor(FIXED).expand(shape)


def _attention(tracer: Tracer, node: fx.Node) -> Tensor | None:
    """``scaled_dot_product_attention``: query and key share their channels, the output has the value's, all have its heads."""
    query, key, value, bias, *_ = tracer.args(node)
    if not all(isinstance(part, Tensor) for part in (query, key, value)):
        return None
    if any(part.dim() - 2 in varying(part) for part in (query, key, value)):
        return None
    shape: torch.Size = tracer.shape(node)
    if node.kwargs.get("enable_gqa"):  # neighbouring heads of the query share one of key and value
        key, value = (part.repeat_interleave(shape[-3] // part.shape[-3], -3) for part in (key, value))
    inner = _contracted(tracer, query, query.dim() - 1, key, key.dim() - 1)
    batch = _batch(tracer, (query, key, value), shape[:-2])
    scores = batch[..., None, None].expand(*shape[:-1], key.shape[-2])
    columns = value.dim() - 1 in varying(value)
    if inner is None or (columns and varying(batch)):
        return None
    if isinstance(bias, Raw):
        meet_raw(tracer, scores, bias)
    elif bias is not None:
        scores = _meet(tracer, scores, bias, scores.shape, summed=False)
    result = lay(value[(0,) * (value.dim() - 1)], len(shape) - 1, shape) if columns else batch[..., None, None].expand(shape)
    if node.kwargs.get("scale") is None:
        tracer.rewrite(node, kwargs={**node.kwargs, "scale": query.shape[-1] ** -0.5})
    pairs = tracer.elements(node) // shape[-1] * key.shape[-2]
    _count(tracer, node, 0, pairs * query.shape[-1], inner, scores)
    _count(tracer, node, 1, pairs * value.shape[-1], None, result)
    return result


def _batch(tracer: Tracer, operands: tuple[Tensor, ...], shape: torch.Size) -> Tensor:
    """Labels of a product's leading dims ``shape``, which it does not mix: those of all operands united."""
    result = torch.tensor(FIXED)
    for labels in operands:
        leading = [dim for dim in varying(labels) if dim < labels.dim() - 2]
        found = labels[..., 0, 0] if leading else fixed(labels.shape[:-2])
        result = _meet(tracer, result, found, shape, summed=False)
    return result


def _contracted(tracer: Tracer, first: Tensor, first_dim: int, second: Tensor, second_dim: int) -> Tensor | None:
    """Unites the channels that a product sums over; a tensor without any is ``FIXED``. ``None``: they cannot be followed."""
    lines = []
    for labels, dim in ((first, first_dim), (second, second_dim)):
        changes = dim in varying(labels)
        line = profile(labels, dim) if changes else torch.full((labels.shape[dim],), FIXED)
        if line is None:
            return None
        lines.append(line)
    tracer.labels.unite(*lines)
    return torch.maximum(*lines)


def _count(tracer: Tracer, node: fx.Node, number: int, macs: int, inner: Tensor | None, result: Tensor) -> None:
    """Notes a product's MACs for one input, and which of the dims that it sums over or puts out hold channels."""
    axes = {dim: line for dim in varying(result) if (line := profile(result, dim)) is not None}
    if inner is not None and bool((inner != FIXED).any()):
        axes[-1] = inner
    tracer.result.products[node.name, number] = Product(macs, axes)


def _embedding(tracer: Tracer, node: fx.Node, operands: Operands) -> Tensor | None:
    table = operands[0]
    if not isinstance(table, Raw) or table.name is None:
        return None
    shape: torch.Size = tracer.shape(node)
    line = tracer.outputs(table.name, 1, shape[-1])
    tracer.member(table.name, 1, line, output=True)
    return lay(line, len(shape) - 1, shape)
