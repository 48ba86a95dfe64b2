"""Finding coupled channels: label tensors are pushed through the network, operator by operator.

Movement operators move labels, pointwise ones unite the labels that meet, convolutions and linear layers consume labels
and hand out fresh ones, and an operator that is not followed freezes what it touches and says so. Two channels end in
one class exactly when one cannot be removed without the other; ``pruners.graph.assemble`` makes groups of the classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from pruners.graph import ops
from pruners.graph.assemble import Call, Trace, assemble
from pruners.graph.groups import Coupling
from pruners.graph.labels import FIXED, Labels, compact, constant_except, profile, shrink_constant_dims, varying
from pruners.graph.shapes import Shapes, infer_shapes

Contraction = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


@dataclass(frozen=True)
class Raw:
    """A parameter or buffer used outside a module, or something computed from those alone (then without a name)."""

    name: str | None
    shape: torch.Size


@dataclass
class Baked:
    """A number in the graph that counts the channels ``labels``; see ``pruners.graph.groups.Resize``."""

    node: str
    position: tuple[int, ...]
    labels: Tensor
    attribute: str | None = None


def trace(module: fx.GraphModule) -> Coupling:
    """The coupled channels of a network built by ``build_module``.

    Splits into equal parts are rewritten in place as splits by sizes, since the parts may become unequal.

    Raises:
        InvalidInput: the network does not run on its own declared inputs.
    """
    shapes = infer_shapes(module)
    tracer = _Tracer(module, shapes)
    for node in module.graph.nodes:
        tracer.visit(node)
    module.recompile()
    return assemble(module, tracer.result, shapes)


@dataclass
class _Tracer:
    module: fx.GraphModule
    shapes: Shapes
    result: Trace = field(default_factory=Trace)
    values: dict[fx.Node, Any] = field(default_factory=dict)
    tied: dict[str, list[str]] = field(default_factory=dict)  # all names of each parameter that has several

    def __post_init__(self) -> None:
        names: dict[int, list[str]] = {}
        for name, parameter in self.module.named_parameters(remove_duplicate=False):
            names.setdefault(id(parameter), []).append(name)
        self.tied = {name: same for same in names.values() for name in same}

    @property
    def labels(self) -> Labels:
        return self.result.labels

    def visit(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            self.values[node] = _fixed(self.shapes.values[node])
        elif node.op == "get_attr":
            self.values[node] = Raw(str(node.target), self.shapes.values[node])
        elif node.op == "call_module":
            self.values[node] = self._module(node)
        elif node.op == "call_function":
            self.values[node] = self._function(node)
        else:
            self._freeze(node.args, "is an output of the network")

    # Operators

    def _function(self, node: fx.Node) -> Any:
        target: Any = node.target
        if target is ops.ITEM:
            values, place = self._args(node)
            return values[place]
        name = ops.name_of(target)
        kind = ops.KINDS.get(name, ops.Kind.SYMBOLIC)
        if kind is ops.Kind.SYMBOLIC:
            return self.shapes.values[node]
        operands = list(self._leaves(node.args))
        if not any(isinstance(operand, Tensor) for operand in operands):
            return self._derived(node)
        handled = None
        if kind is ops.Kind.POINTWISE:
            handled = self._pointwise(node, operands, summed=name.startswith("add"))
        elif kind is ops.Kind.MOVEMENT:
            handled = self._movement(node, name.partition(".")[0])
        elif kind is ops.Kind.WINDOW:
            handled = self._window(node, dims=next(int(letter) for letter in name.partition(".")[0] if letter.isdigit()))
        elif kind is ops.Kind.REDUCTION:
            handled = self._reduction(node)
        return self._opaque(node, name) if handled is None else handled

    def _pointwise(self, node: fx.Node, operands: list[Any], summed: bool) -> Tensor | None:
        shape = self.shapes.values[node]
        result: Tensor | None = None
        for operand in operands:
            if not isinstance(operand, Tensor):
                continue
            result = operand.expand(shape) if result is None else self._meet(result, operand, shape, summed)
        for operand in operands:
            if isinstance(operand, Raw) and result is not None:
                self._meet_raw(result, operand)
        return result

    def _meet(self, first: Tensor, second: Tensor, shape: torch.Size, summed: bool) -> Tensor:
        """Unites two operands; one that is a single channel spread over many stays as it is and joins none of them."""
        for one, other in ((first, second), (second, first)):
            wide = other.expand(shape)
            offset = len(shape) - one.dim()
            spread = [dim for dim in varying(wide) if dim < offset or (one.shape[dim - offset] == 1)]
            if spread:
                self.labels.freeze(one, "is spread over the channels of another layer")
                return wide
        first, second = first.expand(shape), second.expand(shape)
        self.labels.unite(first, second, summed=summed)
        # Where one side is FIXED the other has been frozen; the label that remains must not hide that.
        return compact(torch.maximum(*shrink_constant_dims(first, second)).expand(shape))

    def _meet_raw(self, labels: Tensor, raw: Raw) -> None:
        """A raw tensor follows the channels along the one dim where they change."""
        along = varying(labels)
        offset = labels.dim() - len(raw.shape)
        touched = [dim for dim in along if dim >= offset and raw.shape[dim - offset] > 1]
        if not touched:
            return
        line = profile(labels, touched[0]) if len(along) == 1 else None
        if line is None or raw.name is None:
            self.labels.freeze(labels, "is combined with a constant of fixed size")
        else:
            self._member(raw.name, touched[0] - offset, line, output=True)

    def _movement(self, node: fx.Node, name: str) -> Any:
        if name in ("pad", "constant_pad_nd"):
            return self._pad(node)
        if name == "slice":
            return self._slice(node)
        if name in ("chunk", "split", "split_with_sizes"):
            return self._split(node)
        args = self._args(node)
        if name == "cat":
            parts = [_as_labels(part) for part in args[0]]
            if any(part is None for part in parts):
                return None
            dim = args[1] % parts[0].dim()
            lines = [profile(part, dim) for part in parts]
            if all(line is not None for line in lines):
                return _along(torch.cat([line for line in lines if line is not None]), dim, self.shapes.values[node])
            return compact(torch.cat(parts, dim))
        operator: Any = node.target
        result = self._rectangular(compact(operator(*args, **node.kwargs)))
        if name in ("view", "reshape", "expand"):
            sizes: Any = node.args[1]
            for dim in varying(result):
                line = profile(result, dim)
                if line is not None and isinstance(sizes[dim], int) and sizes[dim] > 0:
                    self.result.baked.append(Baked(node.name, (1, dim), line))
        return result

    def _rectangular(self, labels: Tensor) -> Tensor:
        """Where channels spread over several dims, removing must leave a box: those at one index of the last dim unite."""
        dims = varying(labels)
        if len(dims) < 2:
            return labels
        united = constant_except(labels, dims[-1:])
        self.labels.unite(labels, united)
        return united

    def _pad(self, node: fx.Node) -> Tensor | None:
        source, amounts, mode, *_ = self._args(node)
        shape = self.shapes.values[node]
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
            front, back = self.labels.fresh(before), self.labels.fresh(after)
            self.result.baked.append(Baked(node.name, (1, index), front))
            self.result.baked.append(Baked(node.name, (1, index + 1), back))
            labels = _along(torch.cat([front, line, back]), dim, shape)
        return _stretch(labels, shape)

    def _slice(self, node: fx.Node) -> Tensor | None:
        args = self._args(node)
        source, dim, start, end, step = args
        dim %= source.dim()
        if dim in varying(source):
            line = profile(source, dim)
            if line is None or step != 1:
                return None
            size = len(line)
            first, last, _ = slice(start, end).indices(size)
            node.args = (node.args[0], dim, first, last, 1)
            self.result.baked.append(Baked(node.name, (2,), line[:first]))
            self.result.baked.append(Baked(node.name, (3,), line[:last]))
            return _along(line[first:last], dim, self.shapes.values[node])
        operator: Any = node.target
        return compact(operator(*args, **node.kwargs))

    def _split(self, node: fx.Node) -> list[Tensor] | None:
        args = self._args(node)
        source, dim = args[0], args[2] % args[0].dim()
        sizes = [shape[dim] for shape in self.shapes.values[node]]
        if dim in varying(source):
            line = profile(source, dim)
            if line is None:
                return None
            node.target = torch.ops.aten.split_with_sizes.default
            node.args = (node.args[0], sizes, dim)
            parts = torch.split(line, sizes)
            self.result.baked.extend(Baked(node.name, (1, place), part) for place, part in enumerate(parts))
            return [_along(part, dim, shape) for part, shape in zip(parts, self.shapes.values[node], strict=True)]
        return [compact(part) for part in torch.split(source, sizes, dim)]

    def _window(self, node: fx.Node, dims: int) -> Tensor | None:
        source, shape = self._args(node)[0], self.shapes.values[node]
        first = source.dim() - dims
        if not isinstance(shape, torch.Size) or any(dim >= first for dim in varying(source)):
            return None
        one: Tensor = source[(..., *[slice(0, 1)] * dims)]
        return one.expand(shape)

    def _reduction(self, node: fx.Node) -> Tensor | None:
        given = self._args(node)[1]
        source: Tensor = self._args(node)[0]
        shape = self.shapes.values[node]
        reduced = {dim % source.dim() for dim in (given or range(source.dim()))}
        if reduced & set(varying(source)):
            return None
        for dim in reduced:
            source = source.narrow(dim, 0, 1)
        if len(shape) != source.dim():
            source = source.squeeze(tuple(reduced))
        return source.expand(shape)

    def _opaque(self, node: fx.Node, name: str) -> Any:
        self._freeze((node.args, node.kwargs), f"passes through {name.removesuffix('.default')}, which is not followed")
        return _fixed(self.shapes.values[node])

    def _derived(self, node: fx.Node) -> Any:
        """A value computed from constants alone."""
        shape = self.shapes.values[node]
        return Raw(None, shape) if isinstance(shape, torch.Size) else [Raw(None, part) for part in shape]

    # Modules

    def _module(self, node: fx.Node) -> Tensor:
        path = str(node.target)
        module = self.module.get_submodule(path)
        source: Tensor = _as_labels(self._args(node)[0])
        if isinstance(module, Contraction):
            return self._contraction(node, path, module, source)
        if isinstance(module, BatchNorm):
            line = profile(source, 1)
            if line is None:
                self.labels.freeze(source, f"passes through {path} with its channels in several dims")
                whole: Tensor = _fixed(self.shapes.values[node])
                return whole
            for name in ("weight", "bias", "running_mean", "running_var"):
                if getattr(module, name) is not None:
                    self._member(f"{path}.{name}", 0, line, output=True)
        return source  # BatchNorm and dropout leave every channel where it is

    def _contraction(self, node: fx.Node, path: str, module: Contraction, source: Tensor) -> Tensor:
        shape = self.shapes.values[node]
        dim = source.dim() - 1 if isinstance(module, nn.Linear) else 1
        groups = 1 if isinstance(module, nn.Linear) else module.groups
        inputs = profile(source, dim)
        if inputs is None:
            self.labels.freeze(source, f"enters {path} with its channels in several dims")
            inputs = torch.full((source.shape[dim],), FIXED)
        weight = f"{path}.weight"
        if groups == 1:
            self._member(weight, 1, inputs)
            outputs = self._outputs(weight, module.weight.shape[0])
        else:
            outputs = self._grouped(path, module, inputs, groups)
        self._member(weight, 0, outputs, output=True)
        if module.bias is not None:
            self._member(f"{path}.bias", 0, outputs, output=True)
        self.result.layers[path] = 0
        kernel = math.prod(module.weight.shape[2:])
        places = math.prod(size for place, size in enumerate(shape) if place not in (0, dim))
        self.result.calls.append(Call(path, kernel * places))
        return _along(outputs, dim, shape)

    def _grouped(self, path: str, module: Contraction, inputs: Tensor, groups: int) -> Tensor:
        """Grouped convolution: every group must lose equally, so channels at one place of all groups go together.

        Depthwise (one input channel per group) is the exception: a channel goes with its whole group.
        """
        weight = f"{path}.weight"
        per_output = module.weight.shape[0] // groups
        if module.weight.shape[1] == 1:
            self.result.baked.append(Baked(path, (), inputs, attribute="groups"))
            self._member(weight, 1, torch.full((1,), FIXED))
            return inputs.repeat_interleave(per_output)
        table = inputs.reshape(groups, -1)
        self.labels.unite(table, table[:1].expand(table.shape))
        self._member(weight, 1, table[0])
        return self._outputs(weight, per_output).repeat(groups)

    def _outputs(self, weight: str, count: int) -> Tensor:
        """Labels of a layer's output channels: fresh, or those of its first call."""
        seen = self.result.members.get((weight, 0))
        return self.labels.fresh(count) if seen is None else seen[:count]

    # Bookkeeping

    def _args(self, node: fx.Node) -> list[Any]:
        """A node's arguments, traced values in place of nodes. The reader filled in every default."""
        return list(fx.map_arg(node.args, lambda argument: self.values[argument]))

    def _member(self, tensor: str, dim: int, labels: Tensor, *, output: bool = False) -> None:
        for name in self.tied.get(tensor, (tensor,)):
            if output:
                self.result.outputs.add((name, dim))
            seen = self.result.members.setdefault((name, dim), labels)
            if seen is not labels:
                self.labels.unite(seen, labels)

    def _freeze(self, value: Any, reason: str) -> None:
        for leaf in self._leaves(value):
            if isinstance(leaf, Tensor):
                self.labels.freeze(shrink_constant_dims(leaf)[0], reason)

    def _leaves(self, value: Any) -> Any:
        """The traced values among possibly nested arguments."""
        if isinstance(value, fx.Node):
            value = self.values[value]
        if isinstance(value, tuple | list):
            for item in value:
                yield from self._leaves(item)
        elif isinstance(value, dict):
            yield from self._leaves(tuple(value.values()))
        else:
            yield value


def _fixed(shape: Any) -> Any:
    if isinstance(shape, torch.Size):
        return torch.tensor(FIXED).expand(shape)
    return [_fixed(part) for part in shape] if isinstance(shape, list) else shape


def _as_labels(value: Any) -> Any:
    return _fixed(value.shape) if isinstance(value, Raw) else value


def _along(line: Tensor, dim: int, shape: torch.Size) -> Tensor:
    """Labels ``[size]`` laid along one dim of a shape, constant along the others."""
    return line.reshape([-1 if place == dim else 1 for place in range(len(shape))]).expand(shape)


def _stretch(labels: Tensor, shape: torch.Size) -> Tensor:
    """Constant dims take the new sizes; the others have them already."""
    for dim, (size, wanted) in enumerate(zip(labels.shape, shape, strict=True)):
        if size != wanted:
            labels = labels.narrow(dim, 0, 1)
    return labels.expand(shape)
