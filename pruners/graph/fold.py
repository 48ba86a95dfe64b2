"""Weights that a network computes from weights, such as standardised ones, computed once and for all.

Weight standardisation, weight norm and spectral norm, scaled weights: the layer's weight is no tensor of the file but the
result of operators on such tensors. A layer like that cannot lose channels, and does not train as a layer. So its weight is
computed here and takes the place of what it came from: the outputs stay the same, and training goes on with a plain layer.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pruners.errors import InvalidInput
from pruners.graph import ops
from pruners.graph.program import Node, Program, Ref

_SLOTS = {1: "weight", 2: "bias"}
"""The arguments of every convolution and linear layer that may be folded."""

_LAYERS = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear")


def fold(program: Program) -> Program:
    """The same program with every computed weight and bias of its layers as a tensor of its own.

    Raises:
        InvalidInput: a computation that asks for more memory than all tensors of the file together.
    """
    folding = _Folding(program)
    nodes = tuple(folding.layer(node) for node in program.nodes)
    if not folding.folded:
        return program
    left = _without_dead_nodes(replace(program, nodes=nodes))
    weights, tensors = dict(left.weights), dict(left.tensors)
    for value, folded in folding.folded.items():
        name = _free_name(folded, tensors)
        weights[value], tensors[name] = name, folded.tensor
    parameters = left.parameters | (tensors.keys() - left.tensors.keys())
    return replace(left, weights=weights, tensors=tensors, parameters=parameters)


@dataclass(frozen=True)
class _Folded:
    """A computed tensor, the module it belongs to, and what it is there: ``weight`` or ``bias``."""

    tensor: Tensor
    path: list[str]
    slot: str


class _Folding:
    def __init__(self, program: Program) -> None:
        self._program = program
        self._makers = {name: node for node in program.nodes for name in _names(node)}
        self._limit = sum(tensor.numel() for tensor in program.tensors.values())
        self._values: dict[str, Any] = {}
        self.folded: dict[str, _Folded] = {}

    def layer(self, node: Node) -> Node:
        """The node with computed weights replaced by references to folded ones."""
        if ops.name_of(node.target).partition(".")[0] not in _LAYERS:
            return node
        args = list(node.args)
        for place, slot in _SLOTS.items():
            value = args[place]
            if isinstance(value, Ref) and value.name in self._makers and (sources := self._sources(value.name)):
                args[place] = Ref(f"{value.name}_folded")
                if args[place].name not in self.folded:
                    tensor = self._value(value.name).clone()
                    self.folded[args[place].name] = _Folded(tensor, self._home(tensor, sources, slot), slot)
        return replace(node, args=tuple(args))

    def _sources(self, name: str) -> list[str] | None:
        """The tensors that a value is computed from; ``None`` if an input of the network is among them."""
        found: list[str] = []
        waiting, seen = [name], {name}
        while waiting:
            value = waiting.pop()
            if value in self._program.weights:
                found.append(self._program.weights[value])
            elif value in self._makers:
                before = {ref.name for ref in _refs((self._makers[value].args, self._makers[value].kwargs))} - seen
                seen |= before
                waiting += sorted(before)
            else:
                return None
        return found

    def _home(self, tensor: Tensor, sources: list[str], slot: str) -> list[str]:
        """The path of the module whose weight this is: the one that holds the tensor of its shape among its sources."""
        alike = [name for name in sources if self._program.tensors[name].shape == tensor.shape]
        own = [name for name in alike if name.endswith(f".{slot}")] or alike or sources
        return [part for part in own[0].split(".")[:-1] if part not in ("parametrizations", slot)]  # of nn.utils.parametrize

    def _value(self, name: str) -> Any:
        if name in self._program.weights:
            return self._program.tensors[self._program.weights[name]].detach()
        if name not in self._values:
            node = self._makers[name]
            args, kwargs = self._resolved(node.args), self._resolved(node.kwargs)
            self._check_size(node, args, kwargs)
            with torch.no_grad():
                results = node.target(*args, **kwargs)
            names = _names(node)
            self._values.update(zip(names, [results] if isinstance(node.outputs, str) else results, strict=True))
        return self._values[name]

    def _check_size(self, node: Node, args: Any, kwargs: Any) -> None:
        shapes = node.target(*_bare(args), **_bare(kwargs))
        for shape in shapes if isinstance(shapes, tuple | list) else [shapes]:
            if isinstance(shape, Tensor) and shape.numel() > self._limit:
                raise InvalidInput("model", None, f"computes weights of {shape.numel():,} numbers, more than its file holds")

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, Ref):
            return self._value(value.name)
        if isinstance(value, tuple | list):
            return type(value)(self._resolved(item) for item in value)
        if isinstance(value, dict):
            return {key: self._resolved(item) for key, item in value.items()}
        return value


def _free_name(folded: _Folded, taken: Container[str]) -> str:
    path = folded.path
    while (name := ".".join([*path, folded.slot])) in taken:
        path = [*path, "folded"]
    return name


def _without_dead_nodes(program: Program) -> Program:
    """The program without nodes and tensors that nothing depends on any more."""
    needed = {ref.name for ref in _refs(program.outputs)}
    nodes: list[Node] = []
    for node in reversed(program.nodes):
        if needed & set(_names(node)):
            needed |= {ref.name for ref in _refs((node.args, node.kwargs))}
            nodes.append(node)
    weights = {value: name for value, name in program.weights.items() if value in needed}
    kept = set(weights.values())
    return replace(
        program,
        nodes=tuple(reversed(nodes)),
        weights=weights,
        tensors={name: tensor for name, tensor in program.tensors.items() if name in kept or _counter(name)},
        parameters=program.parameters & kept,
    )


def _counter(name: str) -> bool:
    return name.endswith(".num_batches_tracked")  # no operator reads it, and BatchNorm takes it along


def _names(node: Node) -> tuple[str, ...]:
    return (node.outputs,) if isinstance(node.outputs, str) else node.outputs


def _refs(value: Any) -> Iterator[Ref]:
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, dict):
        yield from _refs(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _refs(item)


def _bare(value: Any) -> Any:
    """Arguments with tensors on the meta device, which have shapes and no memory."""
    if isinstance(value, Tensor):
        return value.to("meta")
    if isinstance(value, tuple | list):
        return type(value)(_bare(item) for item in value)
    if isinstance(value, dict):
        return {key: _bare(item) for key, item in value.items()}
    return value
