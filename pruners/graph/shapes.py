"""Shapes of every intermediate value, and the dense network's MACs, without computing or allocating any of them.

Operators run on torch's meta device, where a tensor is a shape and a dtype. Layers and pointwise operators, which are most of
a network, take a few lines of arithmetic instead, since torch's own shape rules for them are slower than a small network is.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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


def _run_on_shapes(module: fx.GraphModule, batch: int) -> _Recorder:
    recorder = _Recorder(module)
    examples = [value.example(batch).to("meta") for value in module.meta["inputs"]]
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about shapes that a real run would have warned of too
            recorder.run(*examples)
    except Exception as error:
        raise InvalidInput("model", None, f"does not run on its own declared inputs ({reason(error)})") from error
    return recorder


class _Recorder(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.values: dict[fx.Node, Any] = {}
        self.macs = 0
        self._known: dict[Any, tuple[Any, int]] = {}  # networks call the same operator on the same shapes over and over

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        self.values[n] = _shape(result)
        return result

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        return super().get_attr(target, args, kwargs).to("meta")

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        part, source = self.submodules[target], args[0]
        if isinstance(part, nn.Linear):
            shape, count = _linear(part, source)
        elif isinstance(part, _Convolution):
            shape, count = _convolution(part, source)
        else:  # BatchNorm and dropout
            return source
        self.macs += count
        return source.new_empty(shape)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        name = ops.name_of(target).partition(".")[0]
        if ops.KINDS.get(ops.name_of(target)) is ops.Kind.POINTWISE and name not in _RETYPING:
            tensors = [value for value in args if isinstance(value, Tensor)]
            if all(value.is_floating_point() and value.dtype == tensors[0].dtype for value in tensors):
                return tensors[0].new_empty(torch.broadcast_shapes(*[value.shape for value in tensors]))
        key = (target, _key(args), _key(kwargs))
        if key not in self._known:
            self._known[key] = _run(name, target, args, kwargs)
        result, macs = self._known[key]
        self.macs += macs
        return result


def _run(name: str, target: Any, args: Any, kwargs: Any) -> tuple[Any, int]:
    """An operator's result on the meta device, and its MACs."""
    if name in _CREATING:
        kwargs = {**kwargs, "device": "meta"}
    if name in _SEVERAL:
        with flop_counter() as counter:
            result = target(*args, **kwargs)
        return result, counter.get_total_flops() // 2
    result = target(*args, **kwargs)
    return result, _MACS[name](args, result) if name in _MACS else 0


def _key(value: Any) -> Any:
    """What a result's shape depends on, hashable."""
    if isinstance(value, Tensor):
        return value.shape, value.dtype
    if isinstance(value, tuple | list):
        return tuple(_key(item) for item in value)
    if isinstance(value, dict):
        return tuple((name, _key(item)) for name, item in value.items())
    return value, type(value)  # 1, 1.0 and True are equal


def _linear(part: nn.Linear, source: Tensor) -> tuple[list[int], int]:
    if source.shape[-1] != part.in_features:
        raise ValueError(f"a linear layer of {part.in_features} inputs gets {source.shape[-1]}")
    shape = [*source.shape[:-1], part.out_features]
    return shape, math.prod(shape) * part.in_features


def _convolution(part: _Convolution, source: Tensor) -> tuple[list[int], int]:
    """Output shape and MACs; the formulas are those in the documentation of ``nn.Conv2d`` and ``nn.ConvTranspose2d``."""
    dims = part.weight.dim() - 2
    batch, channels, places = source.shape[: -dims - 1], source.shape[-dims - 1], source.shape[-dims:]
    if channels != part.in_channels or len(batch) > 1:
        raise ValueError(f"a convolution of {part.in_channels} channels gets inputs of shape {list(source.shape)}")
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
        raise ValueError(f"a convolution leaves nothing of inputs of shape {list(source.shape)}")
    # A transposed convolution multiplies once per input place, all others once per output place.
    applied = places if isinstance(part, _Transposed) else sizes
    return [*batch, part.out_channels, *sizes], math.prod(batch) * math.prod(applied) * part.weight.numel()


def _shape(value: Any) -> Any:
    if isinstance(value, Tensor):
        if value.numel() > MAX_ELEMENTS:
            raise ValueError(f"an intermediate value of {value.numel():,} numbers is more than can be handled")
        return value.shape
    if isinstance(value, tuple | list):
        return [_shape(item) for item in value]
    return value


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
