"""Shapes of every intermediate value, and the dense network's MACs, without computing or allocating any of them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from pruners.errors import InvalidInput

BATCH = 2  # of the example; a batch of one would make a real batch dim look like a constant


def flop_counter() -> FlopCounterMode:
    """torch's counter of floating-point operations, two a MAC, which by itself overlooks fused attention on the CPU."""

    def attention(query: Any, key: Any, value: Any, *_: object, **__: object) -> int:
        flops: int = sdpa_flop_count(query, key, value)
        return flops

    return FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}
    )


MAX_ELEMENTS = 2**30  # of one intermediate value for two inputs: 4 GiB of float32, far beyond any classifier's


@dataclass(frozen=True)
class Shapes:
    """What running the network on an example would give.

    Attributes:
        values: per node a ``torch.Size``, a size or flag, or a list of these.
        macs: multiply-accumulates of convolutions, linear layers and matrix products for one input.
    """

    values: dict[fx.Node, Any]
    macs: int


class _Recorder(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        self.values[n] = _shape(result)
        return result


def infer_shapes(module: fx.GraphModule) -> Shapes:
    """Runs the network on shapes alone.

    Raises:
        InvalidInput: the network does not run on its own declared inputs.
    """
    recorder = _Recorder(module)
    examples = [value.example(BATCH) for value in module.meta["inputs"]]
    counter = flop_counter()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad(), counter, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the fake tensors themselves
            recorder.run(*[mode.from_tensor(example) for example in examples])
    except Exception as error:
        raise InvalidInput("model", None, f"does not run on its own declared inputs ({_first_line(error)})") from error
    return Shapes(recorder.values, counter.get_total_flops() // (2 * BATCH))


def _shape(value: Any) -> Any:
    if isinstance(value, Tensor):
        if value.numel() > MAX_ELEMENTS:
            raise ValueError(f"an intermediate value of {value.numel():,} numbers is more than can be handled")
        return value.shape
    if isinstance(value, tuple | list):
        return [_shape(item) for item in value]
    return value


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
