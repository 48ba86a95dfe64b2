"""How channels pass through operators that move, repeat or drop positions without mixing them.

Most are run on the label tensor itself. Sizes that the program wrote down are noted (``Tracer.bake``), since they count
channels; where channels get spread over several dims, removing must leave a box, so those of one column or one row unite.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from pruners.graph.labels import compact, constant_except, profile, shrink_constant_dims, varying
from pruners.graph.rules import Operands
from pruners.graph.tracer import Raw, Tracer, as_labels, lay

_SIZED = {"view": 1, "reshape": 1, "expand": 1, "unflatten": 2}
"""Operators whose argument at this place lists sizes of the result."""

_SAME = frozenset({"clone", "contiguous", "to", "alias", "detach"})
"""Operators that put out what they take in."""

_REPEATING = _SAME | frozenset(
    {"expand", "expand_as", "repeat", "unsqueeze", "squeeze", "view", "reshape", "permute", "transpose", "index"}
)
"""Operators after which some dims of a raw parameter can still be themselves, with other dims added, repeated or looked up."""


def movement(tracer: Tracer, node: fx.Node, name: str, operands: Operands) -> Any:
    """The rule for operators of kind ``MOVEMENT``."""
    special = _SPECIAL.get(name)
    if special is not None:
        return special(tracer, node)
    if isinstance(operands[0], Raw):
        return None
    # Label tensors are seldom contiguous, so a view of them is taken by reshape.
    operator: Any = torch.reshape if name == "view" else node.target
    result = rectangular(tracer, node, compact(operator(*tracer.args(node), **node.kwargs)))
    if name in _SIZED and not _note_sizes(tracer, node, name, result):
        return None
    return result


def of_constants(tracer: Tracer, node: fx.Node, operands: Operands) -> Any:
    """A value computed from raw tensors alone; a parameter keeps its name, and those of its dims that stay whole."""
    shape = tracer.shape(node)
    if not isinstance(shape, torch.Size):
        return [Raw(None, part) for part in shape] if isinstance(shape, list) else shape
    name = str(node.target).removeprefix("aten.").partition(".")[0]
    source = operands[0] if operands else None
    if name not in _REPEATING or not isinstance(source, Raw) or source.name is None:
        return Raw(None, shape)
    dims: list[int | None] = [None] * len(shape)
    for dim, origin in enumerate(source.dims):
        if origin is not None and source.shape[dim] > 1:
            # Where the positions of this dim end up is seen by moving their numbers.
            numbers = torch.arange(source.shape[dim])
            moved = _moved(tracer, node, name, lay(numbers, dim, source.shape))
            for place in varying(moved):
                line = profile(moved, place)
                if moved.shape == shape and line is not None and torch.equal(line, numbers):
                    dims[place] = origin
    return Raw(source.name, shape, tuple(dims), source.sizes + _written_sizes(node, name, dims))


def _moved(tracer: Tracer, node: fx.Node, name: str, numbers: Tensor) -> Tensor:
    """What an operator of ``_REPEATING`` makes of these numbers in place of its first argument."""
    if name in _SAME:
        return numbers
    if name == "expand_as":
        return numbers.expand(tracer.shape(node))
    rest = tracer.args(node)[1:]
    if name == "index":  # what it picks does not matter to the dims that it leaves whole
        rest = [[None if part is None else torch.zeros(part.shape, dtype=torch.int64) for part in rest[0]]]
    operator: Any = torch.reshape if name == "view" else node.target
    result: Tensor = operator(numbers, *rest)
    return result


def _written_sizes(node: fx.Node, name: str, dims: list[int | None]) -> tuple[tuple[int, str, tuple[int, int]], ...]:
    """Sizes of a parameter's dims that a reshaping operator has as plain numbers."""
    if name not in _SIZED:
        return ()
    sizes: Any = node.args[_SIZED[name]]
    first = len(dims) - len(sizes)
    return tuple(
        (dim, node.name, (_SIZED[name], place - first))
        for place, dim in enumerate(dims)
        if dim is not None and place >= first and isinstance(sizes[place - first], int) and sizes[place - first] > 0
    )


def rectangular(tracer: Tracer, node: fx.Node, labels: Tensor) -> Tensor:
    """Labels that change along one dim at most: those of one column, or of one row, are united (``Tracer.by_rows``)."""
    dims = varying(labels)
    if len(dims) < 2:
        return labels
    kept = dims[-2] if node.name in tracer.by_rows else dims[-1]
    united = constant_except(labels, [kept])
    tracer.labels.unite(labels, united)
    tracer.result.spread[node.name] = shrink_constant_dims(united)[0]
    return united


def _note_sizes(tracer: Tracer, node: fx.Node, name: str, result: Tensor) -> bool:
    """Notes the sizes that count channels; ``False`` if one of them is computed in a way that cannot be followed."""
    place = _SIZED[name]
    sizes: Any = node.args[place]
    first = tracer.args(node)[1] % (result.dim() - len(sizes) + 1) if name == "unflatten" else result.dim() - len(sizes)
    for dim in varying(result):
        line = profile(result, dim)
        index = dim - first
        if line is None or not 0 <= index < len(sizes) or sizes[index] == -1:
            continue
        if isinstance(sizes[index], int):
            tracer.bake(node.name, (place, index), line)
        elif -1 in sizes or name == "expand":
            return False
        else:  # computed from a dynamic size times channels: leave it to the operator to infer
            sizes = [*sizes[:index], -1, *sizes[index + 1 :]]
            tracer.rewrite(node, args=(*node.args[:place], sizes, *node.args[place + 1 :]))
    return True


def _cat(tracer: Tracer, node: fx.Node) -> Tensor:
    given, dim = tracer.args(node)[:2]
    parts = list(given)
    shape: torch.Size = tracer.shape(node)
    dim %= len(shape)
    # Raw parts (a class token) follow the channels that the others have along another dim.
    for labels in [part for part in parts if isinstance(part, Tensor)]:
        across = [place for place in varying(labels) if place != dim]
        line = profile(labels, across[0]) if len(across) == 1 else None
        if line is None:
            continue
        for index, part in enumerate(parts):
            if isinstance(part, Raw) and tracer.follow(part, across[0], line):
                parts[index] = lay(line, across[0], part.shape)
    parts = [as_labels(part) for part in parts]
    lines = [profile(part, dim) for part in parts]
    if all(line is not None for line in lines) and not any(set(varying(part)) - {dim} for part in parts):
        return lay(torch.cat([line for line in lines if line is not None]), dim, shape)
    return rectangular(tracer, node, compact(torch.cat(parts, dim)))


def _stack(tracer: Tracer, node: fx.Node) -> Tensor:
    parts, dim = tracer.args(node)[:2]
    return rectangular(tracer, node, compact(torch.stack([as_labels(part) for part in parts], dim)))


def _pad(tracer: Tracer, node: fx.Node) -> Tensor | None:
    source, amounts, mode, *_ = tracer.args(node)
    shape: torch.Size = tracer.shape(node)
    along = varying(source)
    labels = source
    for index in range(0, len(amounts), 2):
        dim = source.dim() - 1 - index // 2
        before, after = amounts[index], amounts[index + 1]
        if dim not in along or (before == 0 and after == 0):
            continue
        line = profile(source, dim)
        constant = mode == "constant" or not isinstance(mode, str)  # constant_pad_nd has its value there
        if line is None or not constant or not all(type(n) is int and n >= 0 for n in (before, after)):
            return None
        # Padding makes channels of its own, which join whatever they meet later.
        front, back = tracer.labels.fresh(before), tracer.labels.fresh(after)
        tracer.bake(node.name, (1, index), front)
        tracer.bake(node.name, (1, index + 1), back)
        labels = lay(torch.cat([front, line, back]), dim, shape)
    return _stretch(labels, shape)


def _slice(tracer: Tracer, node: fx.Node) -> Tensor | None:
    source, dim, start, end, step = tracer.args(node)
    dim %= source.dim()
    if dim not in varying(source):
        operator: Any = node.target
        return compact(operator(source, dim, start, end, step))
    line = profile(source, dim)
    if line is None or step != 1:
        return None
    first, last, _ = slice(start, end).indices(len(line))
    tracer.rewrite(node, args=(node.args[0], dim, first, last, 1))
    tracer.bake(node.name, (2,), line[:first])
    tracer.bake(node.name, (3,), line[:last])
    return lay(line[first:last], dim, tracer.shape(node))


def _split(tracer: Tracer, node: fx.Node) -> list[Tensor] | None:
    source, _, dim = tracer.args(node)
    dim %= source.dim()
    shapes = tracer.shape(node)
    sizes = [shape[dim] for shape in shapes]
    if dim not in varying(source):
        return [compact(part) for part in torch.split(source, sizes, dim)]
    line = profile(source, dim)
    if line is None:
        return None
    tracer.rewrite(node, target=torch.ops.aten.split_with_sizes.default, args=(node.args[0], sizes, dim))
    parts = torch.split(line, sizes)
    for place, part in enumerate(parts):
        tracer.bake(node.name, (1, place), part)
    return [lay(part, dim, shape) for part, shape in zip(parts, shapes, strict=True)]


def _select(tracer: Tracer, node: fx.Node) -> Tensor | None:
    source, dim, index = tracer.args(node)
    return None if dim % source.dim() in varying(source) else compact(source.select(dim, index))


def _unbind(tracer: Tracer, node: fx.Node) -> list[Tensor] | None:
    source, dim = tracer.args(node)
    return None if dim % source.dim() in varying(source) else [compact(part) for part in source.unbind(dim)]


def _expand_as(tracer: Tracer, node: fx.Node) -> Tensor:
    expanded: Tensor = tracer.args(node)[0].expand(tracer.shape(node))
    return expanded


def _reshape_as(tracer: Tracer, node: fx.Node) -> Tensor | None:
    """The target's channels are the result's, since its sizes follow theirs."""
    source, target = tracer.args(node)
    if not isinstance(source, Tensor):
        return None
    shape: torch.Size = tracer.shape(node)
    result = rectangular(tracer, node, compact(source.reshape(shape)))
    if isinstance(target, Tensor):
        tracer.labels.unite(result, target)
    elif varying(result):
        return None
    return result


def _pixel_shuffle(tracer: Tracer, node: fx.Node) -> Tensor | None:
    """``r²`` channels become one, spread over ``r × r`` pixels."""
    source, factor = tracer.args(node)
    line = profile(source, source.dim() - 3)
    if line is None:
        return None
    table = line.reshape(-1, factor * factor)
    tracer.labels.unite(table, table[:, :1].expand(table.shape))
    return lay(table[:, 0], source.dim() - 3, tracer.shape(node))


def _pixel_unshuffle(tracer: Tracer, node: fx.Node) -> Tensor | None:
    source, factor = tracer.args(node)
    line = profile(source, source.dim() - 3)
    return None if line is None else lay(line.repeat_interleave(factor * factor), source.dim() - 3, tracer.shape(node))


def _channel_shuffle(tracer: Tracer, node: fx.Node) -> Tensor | None:
    """Every group of channels loses equally: those at one place of all groups go together."""
    source, groups = tracer.args(node)
    line = profile(source, 1)
    if line is None:
        return None
    table = line.reshape(groups, -1)
    tracer.labels.unite(table, table[:1].expand(table.shape))
    return lay(table.t().reshape(-1), 1, tracer.shape(node))


def _stretch(labels: Tensor, shape: torch.Size) -> Tensor:
    """Constant dims take the new sizes; the others have them already."""
    for dim, (size, wanted) in enumerate(zip(labels.shape, shape, strict=True)):
        if size != wanted:
            labels = labels.narrow(dim, 0, 1)
    return labels.expand(shape)


_SPECIAL = {
    "cat": _cat,
    "stack": _stack,
    "pad": _pad,
    "constant_pad_nd": _pad,
    "slice": _slice,
    "chunk": _split,
    "split": _split,
    "split_with_sizes": _split,
    "select": _select,
    "unbind": _unbind,
    "expand_as": _expand_as,
    "reshape_as": _reshape_as,
    "view_as": _reshape_as,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    "channel_shuffle": _channel_shuffle,
}
