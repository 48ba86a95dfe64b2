"""What the tracing rules work with: the values seen so far, and where channels were found to sit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from pruners.graph.assemble import Trace
from pruners.graph.labels import FIXED, Labels, shrink_constant_dims
from pruners.graph.shapes import Shapes


@dataclass(frozen=True)
class Raw:
    """A parameter or buffer used outside a module, or something computed from those alone.

    Attributes:
        name: of the parameter, as long as its elements are merely moved, repeated or picked; ``None`` after any computation.
        shape: of the value.
        dims: for each dim of the value the parameter's dim that it is, or ``None``.
        sizes: numbers in the graph that are the size of one of the parameter's dims: that dim, the node, the position.
    """

    name: str | None
    shape: torch.Size
    dims: tuple[int | None, ...] = ()
    sizes: tuple[tuple[int, str, tuple[int, int]], ...] = ()


@dataclass(frozen=True)
class Baked:
    """A number in the graph that counts the channels ``labels``; see ``pruners.graph.groups.Resize``."""

    node: str
    position: tuple[int, ...]
    labels: Tensor
    attribute: str | None = None


class Tracer:
    """The state of one tracing.

    Args:
        module: the network.
        shapes: of all its values.
        by_rows: nodes that spread channels over several dims and at which those in one row unite, in the last such dim but
            one (a head of attention). At others those in one column do: at one place of the last dim.

    Attributes:
        result: labels, members, calls and baked numbers found so far.
        parts: the network's modules by path.
        values: per node a label tensor, a ``Raw``, a size, or a list of these.
    """

    def __init__(self, module: fx.GraphModule, shapes: Shapes, by_rows: frozenset[str]) -> None:
        self.parts = dict(module.named_modules(remove_duplicate=False))
        self.by_rows = by_rows
        self.result = Trace()
        self.values: dict[fx.Node, Any] = {}
        self._shapes = shapes
        names: dict[int, list[str]] = {}
        for name, parameter in module.named_parameters(remove_duplicate=False):
            names.setdefault(id(parameter), []).append(name)
        self._tied = {name: same for same in names.values() for name in same}

    @property
    def labels(self) -> Labels:
        """All labels."""
        return self.result.labels

    def args(self, node: fx.Node) -> list[Any]:
        """A node's arguments, traced values in place of nodes. The reader filled in every default."""
        return list(fx.map_arg(node.args, lambda argument: self.values[argument]))

    def shape(self, node: fx.Node) -> Any:
        """The shape of a node's value, a list of shapes, or the value itself where it is a size."""
        return self._shapes.values[node]

    def elements(self, node: fx.Node) -> int:
        """How many elements a node's value has for a single input."""
        return self._shapes.elements[node]

    def member(self, tensor: str, dim: int, labels: Tensor, *, output: bool = False) -> None:
        """Notes that the positions of a parameter's dim are these channels; what was noted before is united with them.

        Args:
            tensor: the parameter's or buffer's name.
            dim: which of its dims.
            labels: ``[size of the dim]``.
            output: whether these are channels that it puts out.
        """
        for name in self._tied.get(tensor, (tensor,)):
            if output:
                self.result.outputs.add((name, dim))
            seen = self.result.members.setdefault((name, dim), labels)
            if seen is not labels:
                self.labels.unite(seen, labels)

    def follow(self, raw: Raw, dim: int, labels: Tensor) -> bool:
        """Notes that a raw tensor has these channels along ``dim`` of its value; ``False`` if it is no parameter's dim."""
        source = raw.dims[dim] if raw.name is not None else None
        if raw.name is None or source is None:
            return False
        self.member(raw.name, source, labels, output=True)
        for counted, node, position in raw.sizes:
            if counted == source:
                self.bake(node, position, labels)
        return True

    def bake(self, node: str, position: tuple[int, ...], labels: Tensor, attribute: str | None = None) -> None:
        """Notes that a number in the graph counts these channels."""
        self.result.baked.append(Baked(node, position, labels, attribute))

    def rewrite(self, node: fx.Node, *, target: Any = None, args: Any = None, kwargs: Any = None) -> None:
        """Changes an operator call; what is not given stays."""
        before = node.target, node.args, node.kwargs
        node.target, node.args, node.kwargs = target or node.target, args or node.args, kwargs or node.kwargs
        self.result.rewritten |= before != (node.target, node.args, node.kwargs)

    def outputs(self, weight: str, dim: int, count: int) -> Tensor:
        """Labels of a weight's output channels: fresh, or those of its first use."""
        seen = self.result.members.get((weight, dim))
        return self.labels.fresh(count) if seen is None else seen[:count]

    def freeze(self, value: Any, reason: str) -> None:
        """Freezes all channels in a traced value, or in arguments that hold such values."""
        for labels in self._label_tensors(value):
            self.labels.freeze(shrink_constant_dims(labels)[0], reason)

    def _label_tensors(self, value: Any) -> Iterator[Tensor]:
        if isinstance(value, fx.Node):
            value = self.values[value]
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict):
            yield from self._label_tensors(tuple(value.values()))
        elif isinstance(value, tuple | list):
            for item in value:
                yield from self._label_tensors(item)


def fixed(shape: Any) -> Any:
    """``FIXED`` everywhere, in a shape or in each of a list of shapes; sizes come back as they are."""
    if isinstance(shape, torch.Size):
        return torch.tensor(FIXED).expand(shape)
    return [fixed(part) for part in shape] if isinstance(shape, list) else shape


def as_labels(value: Any) -> Any:
    """A traced value as labels: a raw tensor is ``FIXED``."""
    return fixed(value.shape) if isinstance(value, Raw) else value


def lay(line: Tensor, dim: int, shape: torch.Size) -> Tensor:
    """Labels ``[size]`` laid along one dim of a shape, constant along the others."""
    strides = [0] * len(shape)
    strides[dim] = line.stride(0)
    return line.as_strided(shape, strides, line.storage_offset())
