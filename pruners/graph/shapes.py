"""Shapes of every intermediate value, and the dense network's MACs, without computing or allocating any of them.

Operators run on torch's meta device, where a tensor is a shape and a dtype. Layers and pointwise operators, which are most of
a network, take a few lines of arithmetic instead, since torch's own shape rules for them are slower than a small network is.
"""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from pruners.errors import InvalidInput, reason
from pruners.graph import ops

BATCH = 2  # of the example; a batch of one would make a real batch dim look like a constant

MAX_ELEMENTS = 2**30  # of one intermediate value for two inputs: 4 GiB of float32, far beyond any classifier's

_Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
_Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d | _Transposed


@dataclass(frozen=True)
class Shapes:
    """What running the network on an example of ``BATCH`` inputs would give.

    Attributes:
        values: per node a ``torch.Size``, a size or flag, or a list of these.
        elements: per node that gives one tensor, how many elements that has for a single input.
        macs: multiply-accumulates of convolutions, linear layers and matrix products for a single input.
    """

    values: dict[fx.Node, Any]
    elements: dict[fx.Node, int]
    macs: int


def flop_counter() -> FlopCounterMode:
    """torch's counter of floating-point operations, two a MAC, which by itself overlooks fused attention on the CPU."""

    def attention(query: Any, key: Any, value: Any, *_: object, **__: object) -> int:
        flops: int = sdpa_flop_count(query, key, value)
        return flops

    return FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}
    )


def infer_shapes(module: fx.GraphModule) -> Shapes:
    """Runs the network on shapes alone.

    Raises:
        InvalidInput: the network does not run on its own declared inputs.
    """
    two, three = _run_on_shapes(module, BATCH), _run_on_shapes(module, BATCH + 1)
    # A part that does not depend on the inputs, such as a position embedding, is there once, however many inputs there are.
    elements = {
        node: shape.numel() - (three.values[node].numel() - shape.numel()) * (BATCH - 1)
        for node, shape in two.values.items()
        if isinstance(shape, torch.Size)
    }
    return Shapes(two.values, elements, two.macs - (three.macs - two.macs) * (BATCH - 1))


def _run_on_shapes(module: fx.GraphModule, batch: int) -> _Runner:
    runner = _Runner(module)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about shapes that a real run would have warned of too
            runner.run(batch)
    except Exception as error:
        raise InvalidInput("model", None, f"does not run on its own declared inputs ({reason(error)})") from error
    return runner


@dataclass(frozen=True, slots=True)
class _Value:
    """What is known of a tensor."""

    shape: torch.Size
    dtype: torch.dtype

    def meta(self) -> Tensor:
        return torch.empty(self.shape, dtype=self.dtype, device="meta")


class _Runner:
    """One run: ``values`` holds per node what ``Shapes.values`` holds, ``macs`` those of all inputs together."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.values: dict[fx.Node, Any] = {}
        self.macs = 0
        self._module = module
        self._parts = dict(module.named_modules(remove_duplicate=False))
        self._found: dict[fx.Node, Any] = {}
        self._known: dict[Any, tuple[Any, int]] = {}  # networks call the same operator on the same shapes over and over

    def run(self, batch: int) -> None:
        inputs = iter(self._module.meta["inputs"])
        for node in self._module.graph.nodes:
            if node.op == "placeholder":
                value = next(inputs)
                found: Any = _Value(torch.Size(value.sizes(batch)), value.dtype)
            elif node.op == "get_attr":
                found = _value(operator.attrgetter(node.target)(self._module))
            elif node.op == "call_module":
                found = self._call_module(self._parts[node.target], self._found[node.args[0]])
            elif node.op == "call_function":
                found = self._call_function(node.target, self._given(node.args), self._given(node.kwargs))
            else:
                found = self._given(node.args[0])
            self._found[node] = found
            self.values[node] = _shape(found)

    def _given(self, argument: Any) -> Any:
        """An argument with what is known of them in place of nodes."""
        if isinstance(argument, fx.Node):
            return self._found[argument]
        if isinstance(argument, tuple | list):
            return [self._given(item) for item in argument]
        if isinstance(argument, dict):
            return {name: self._given(item) for name, item in argument.items()}
        return argument

    def _call_module(self, part: nn.Module, source: _Value) -> _Value:
        if isinstance(part, nn.Linear):
            shape, macs = _linear(part, source.shape)
        elif isinstance(part, _Convolution):
            shape, macs = _convolution(part, source.shape)
        else:  # BatchNorm and dropout
            return source
        self.macs += macs
        return _Value(torch.Size(shape), source.dtype)

    def _call_function(self, target: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if target is ops.ITEM:
            return args[0][args[1]]
        name = ops.name_of(target)
        if ops.KINDS.get(name) is ops.Kind.POINTWISE and name.partition(".")[0] not in _RETYPING:
            first, *others = [value for value in args if isinstance(value, _Value)]
            if first.dtype.is_floating_point and all(value.dtype == first.dtype for value in others):
                return first if all(value.shape == first.shape for value in others) else _broadcast(first, *others)
        key = (target, _key(args), _key(kwargs))
        if key not in self._known:
            simple = None if kwargs else _ARITHMETIC.get(name)
            shape = simple(*args) if simple else None
            known = (_Value(torch.Size(shape), _first(args).dtype), 0) if shape is not None else None
            self._known[key] = known or _run(name.partition(".")[0], target, _on_meta(args), _on_meta(kwargs))
        result, macs = self._known[key]
        self.macs += macs
        return result


def _run(name: str, target: Any, args: Any, kwargs: Any) -> tuple[Any, int]:
    """What is known of an operator's result on the meta device, and its MACs."""
    if name in _CREATING:
        kwargs = {**kwargs, "device": "meta"}
    if name in _SEVERAL:
        with flop_counter() as counter:
            result = target(*args, **kwargs)
        return _value(result), counter.get_total_flops() // 2
    result = target(*args, **kwargs)
    return _value(result), _MACS[name](args, result) if name in _MACS else 0


def _broadcast(*values: _Value) -> _Value:
    return _Value(torch.Size(np.broadcast_shapes(*[value.shape for value in values])), values[0].dtype)


def _on_meta(argument: Any) -> Any:
    """An argument with tensors, which have shapes and no memory, in place of what is known of them."""
    if isinstance(argument, _Value):
        return argument.meta()
    if isinstance(argument, list):
        return [_on_meta(item) for item in argument]
    if isinstance(argument, dict):
        return {name: _on_meta(item) for name, item in argument.items()}
    return argument


def _value(result: Any) -> Any:
    """What is known of a result."""
    if isinstance(result, Tensor):
        return _Value(result.shape, result.dtype)
    return [_value(item) for item in result] if isinstance(result, tuple | list) else result


def _key(value: Any) -> Any:
    """An argument, hashable."""
    if isinstance(value, list):
        return tuple([_key(item) for item in value])
    if isinstance(value, dict):
        return tuple([(name, _key(item)) for name, item in value.items()])
    return value, type(value)  # 1, 1.0 and True are equal


def _shape(value: Any) -> Any:
    if isinstance(value, _Value):
        if value.shape.numel() > MAX_ELEMENTS:
            raise ValueError(f"an intermediate value of {value.shape.numel():,} numbers is more than can be handled")
        return value.shape
    if isinstance(value, list):
        return [_shape(item) for item in value]
    return {name: _shape(item) for name, item in value.items()} if isinstance(value, dict) else value


def _linear(part: nn.Linear, source: torch.Size) -> tuple[list[int], int]:
    if source[-1] != part.in_features:
        raise ValueError(f"a linear layer of {part.in_features} inputs gets {source[-1]}")
    shape = [*source[:-1], part.out_features]
    return shape, math.prod(shape) * part.in_features


def _convolution(part: _Convolution, source: torch.Size) -> tuple[list[int], int]:
    """Output shape and MACs; the formulas are those in the documentation of ``nn.Conv2d`` and ``nn.ConvTranspose2d``."""
    dims = part.weight.dim() - 2
    batch, channels, places = source[: -dims - 1], source[-dims - 1], source[-dims:]
    if channels != part.in_channels or len(batch) > 1:
        raise ValueError(f"a convolution of {part.in_channels} channels gets inputs of shape {list(source)}")
    sizes = []
    for dim, size in enumerate(places):
        reach = part.dilation[dim] * (part.kernel_size[dim] - 1)
        if part.padding == "same":
            sizes.append(size)
        elif isinstance(part, _Transposed):
            padding = int(part.padding[dim])
            sizes.append((size - 1) * part.stride[dim] - 2 * padding + reach + part.output_padding[dim] + 1)
        else:
            padding = 0 if part.padding == "valid" else int(part.padding[dim])
            sizes.append((size + 2 * padding - reach - 1) // part.stride[dim] + 1)
    if min(sizes) < 1:
        raise ValueError(f"a convolution leaves nothing of inputs of shape {list(source)}")
    # A transposed convolution multiplies once per input place, all others once per output place.
    applied = places if isinstance(part, _Transposed) else sizes
    return [*batch, part.out_channels, *sizes], math.prod(batch) * math.prod(applied) * part.weight.numel()


def _first(args: list[Any]) -> Any:
    return args[0][0] if isinstance(args[0], list) else args[0]


def _cat(parts: list[_Value], dim: int) -> list[int] | None:
    first, rank = parts[0], len(parts[0].shape)
    others = [[*part.shape[: dim % rank], *part.shape[dim % rank + 1 :]] for part in parts if len(part.shape) == rank]
    if len(others) < len(parts) or any(other != others[0] for other in others) or any(p.dtype != first.dtype for p in parts):
        return None
    return [sum(p.shape[place] for p in parts) if place == dim % rank else size for place, size in enumerate(first.shape)]


def _mean(source: _Value, dims: list[int] | None, keep: bool) -> list[int] | None:
    if not source.dtype.is_floating_point or not dims:
        return None
    gone = {range(len(source.shape))[dim] for dim in dims}
    return [1 if place in gone else size for place, size in enumerate(source.shape) if keep or place not in gone]


def _layer_norm(source: _Value, sizes: list[int], *_: Any) -> torch.Size | None:
    return source.shape if list(source.shape[-len(sizes) :]) == sizes else None


def _adaptive_pool(source: _Value, sizes: list[int]) -> list[int] | None:
    return [*source.shape[: -len(sizes)], *sizes] if len(source.shape) - len(sizes) in (1, 2) else None


_ARITHMETIC: dict[str, Callable[..., Sequence[int] | None]] = {
    "cat.default": _cat,
    "mean.dim": _mean,
    "layer_norm.default": _layer_norm,
    "adaptive_avg_pool2d.default": _adaptive_pool,
}
"""Shapes of results by arithmetic, where torch's own rules are slow and networks have many; ``None``: leave it to those."""


def _attention_macs(args: Any, result: Tensor) -> int:
    query, key, value = args[:3]
    macs: int = math.prod(result.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])
    return macs


def _convolution_macs(args: Any, result: Tensor) -> int:
    """Of one whose weight is computed, so that it is no module: once per output place."""
    weight: Tensor = args[1]
    return math.prod(result.shape) * math.prod(weight.shape[1:])


_MACS: dict[str, Callable[[Any, Tensor], int]] = {
    "matmul": lambda args, result: math.prod(result.shape) * args[0].shape[-1],
    "mm": lambda args, result: math.prod(result.shape) * args[0].shape[-1],
    "bmm": lambda args, result: math.prod(result.shape) * args[0].shape[-1],
    "linear": lambda args, result: math.prod(result.shape) * args[0].shape[-1],
    "addmm": lambda args, result: math.prod(result.shape) * args[1].shape[-1],
    "baddbmm": lambda args, result: math.prod(result.shape) * args[1].shape[-1],
    "scaled_dot_product_attention": _attention_macs,
    "conv1d": _convolution_macs,
    "conv2d": _convolution_macs,
    "conv3d": _convolution_macs,
}
"""MACs of single products by operator, from the arguments and the result."""

_CREATING = frozenset({"zeros", "ones", "full", "arange"})
"""Operators that make a tensor of nothing, on the default device if none is named."""

_RETYPING = frozenset(
    {"to", "_to_copy", "type_as", "eq", "ne", "lt", "gt", "le", "ge", "logical_not", "logical_and"}
    | {"zeros_like", "ones_like", "full_like", "prelu"}
)
"""Pointwise operators whose result has another dtype than their arguments, and one whose second argument is no operand."""

_SEVERAL = frozenset({"einsum", "lstm", "gru", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"})
"""Operators that hold several products, or whose MACs depend on more than that: torch's counter runs them."""
