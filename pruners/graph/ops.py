"""Every operator that an uploaded program may use, and how channels pass through it.

The list is explicit: a program with any other operator is refused by name. All of these compute on their arguments alone:
none reads a file, runs code or reaches outside the program. How ``pruners.graph.trace`` follows channels:

    POINTWISE    each output position depends on the same position of the (broadcast) inputs
    MOVEMENT     positions are moved, repeated or dropped, never mixed
    WINDOW       pooling and resampling of the trailing dims, channel by channel
    REDUCTION    dims are averaged or summed away
    SYMBOLIC     arithmetic on sizes
    OPAQUE       allowed, not followed: the channels it touches stay whole, and the report says so

Convolutions, linear layers, norms and dropout become modules (``pruners.graph.modules``) and have rules of their own.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from enum import Enum, auto
from typing import Any

import torch


class Kind(Enum):
    """How channels pass through an operator."""

    POINTWISE = auto()
    MOVEMENT = auto()
    WINDOW = auto()
    REDUCTION = auto()
    SYMBOLIC = auto()
    MODULE = auto()
    OPAQUE = auto()


_TABLE: dict[Kind, str] = {
    Kind.POINTWISE: """
        relu relu_ hardtanh hardtanh_ relu6 relu6_ sigmoid sigmoid_ tanh tanh_ silu silu_ gelu elu elu_ leaky_relu leaky_relu_
        hardswish hardswish_ hardsigmoid hardsigmoid_ mish softplus selu selu_ celu abs neg exp sqrt rsqrt reciprocal
        square erf log sin cos clamp clamp_ clamp_min pow.Tensor_Scalar clone contiguous detach detach_ alias lift_fresh_copy
        to.dtype to.dtype_layout to.device _to_copy type_as
        add.Tensor add_.Tensor add.Scalar sub.Tensor sub_.Tensor sub.Scalar rsub.Scalar mul.Tensor mul_.Tensor mul.Scalar
        div.Tensor div_.Tensor div.Scalar maximum minimum""",
    Kind.MOVEMENT: """
        view reshape flatten.using_ints permute transpose.int t unsqueeze squeeze.dim squeeze.dims slice.Tensor
        cat chunk split.Tensor split_with_sizes expand pad constant_pad_nd""",
    Kind.WINDOW: """
        max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
        adaptive_avg_pool3d upsample_nearest2d.vec upsample_bilinear2d.vec""",
    Kind.REDUCTION: "mean.dim sum.dim_IntList amax",
    Kind.MODULE: """
        conv1d conv2d conv3d conv1d.padding conv2d.padding conv3d.padding linear batch_norm dropout feature_dropout""",
    Kind.SYMBOLIC: "sym_size.int",
    Kind.OPAQUE: """
        layer_norm group_norm instance_norm softmax.int log_softmax.int matmul bmm mm addmm scaled_dot_product_attention
        embedding conv_transpose1d conv_transpose2d.input conv_transpose3d.input lstm.input gru.input prelu einsum select.int
        stack unflatten.int roll flip pixel_shuffle pixel_unshuffle repeat_interleave.self_int repeat unbind.int movedim.int
        movedim.intlist channel_shuffle mean sum prod.dim_int cumsum max.dim min.dim argmax topk gather index.Tensor
        index_select where.self masked_fill.Scalar masked_fill_.Scalar eq.Scalar ne.Scalar lt.Scalar gt.Scalar le.Scalar
        ge.Scalar eq.Tensor lt.Tensor gt.Tensor logical_not logical_and tril triu arange arange.start zeros ones full
        zeros_like ones_like full_like new_zeros new_ones new_full expand_as view_as adaptive_max_pool1d adaptive_max_pool2d
        upsample_bicubic2d.vec upsample_trilinear3d.vec linalg_vector_norm norm.ScalarOpt_dim std.correction var.correction
        var_mean.correction baddbmm im2col unfold glu""",
}

KINDS: dict[str, Kind] = {
    (name if "." in name else f"{name}.default"): kind for kind, names in _TABLE.items() for name in names.split()
}
"""Allowed aten operators, ``name.overload``, by how channels pass through them."""

ARITHMETIC: dict[str, Callable[..., Any]] = {
    name: getattr(operator, name)
    for name in ("add", "sub", "mul", "floordiv", "mod", "neg", "eq", "ne", "lt", "le", "gt", "ge")
}
"""Allowed arithmetic on sizes."""


def resolve(target: str) -> Callable[..., Any] | None:
    """The operator of a serialized target such as ``torch.ops.aten.relu.default``; ``None`` if it is not allowed."""
    if target.startswith("_operator."):
        return ARITHMETIC.get(target.removeprefix("_operator."))
    name = target.removeprefix("torch.ops.aten.")
    if name == target or name not in KINDS:
        return None
    packet, _, overload = name.partition(".")
    found: Callable[..., Any] | None = getattr(getattr(torch.ops.aten, packet, None), overload, None)
    return found


def name_of(target: Callable[..., Any]) -> str:
    """The name under which ``KINDS`` lists an operator; arithmetic on sizes has its plain name."""
    if isinstance(target, torch._ops.OpOverload):
        return str(target).removeprefix("aten.")
    return str(getattr(target, "__name__", target))


ITEM = operator.getitem
"""Picks one of several results; the reader adds these itself."""
