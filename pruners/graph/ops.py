"""Every operator that an uploaded program may use, and how channels pass through it.

The list is explicit: a program with any other operator is refused by name. All of these compute on their arguments alone:
none reads a file, runs code or reaches outside the program. How ``pruners.graph.trace`` follows channels:

    POINTWISE    each output position depends on the same position of the (broadcast) inputs
    MOVEMENT     positions are moved, repeated or dropped, never mixed
    WINDOW       pooling and resampling of the trailing dims, channel by channel
    REDUCTION    dims are averaged or summed away
    ALONG        positions are mixed along given dims only (softmax, roll)
    NORM         LayerNorm and its kin
    PRODUCT      matrix products of activations, attention, table look-up
    CONSTANT     new tensors that take only their dtype and device from an argument
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
from torch._ops import OpOverload

from pruners.errors import InvalidInput


class Kind(Enum):
    """How channels pass through an operator."""

    POINTWISE = auto()
    MOVEMENT = auto()
    WINDOW = auto()
    REDUCTION = auto()
    ALONG = auto()
    NORM = auto()
    PRODUCT = auto()
    CONSTANT = auto()
    SYMBOLIC = auto()
    MODULE = auto()
    OPAQUE = auto()


_TABLE: dict[Kind, str] = {
    Kind.POINTWISE: """
        relu relu_ hardtanh hardtanh_ relu6 relu6_ sigmoid sigmoid_ tanh tanh_ silu silu_ gelu elu elu_ leaky_relu
        leaky_relu_ hardswish hardswish_ hardsigmoid hardsigmoid_ mish softplus selu selu_ celu abs neg exp sqrt rsqrt
        reciprocal square erf log sin cos clamp clamp_ clamp_min pow.Tensor_Scalar clone contiguous detach detach_
        alias lift_fresh_copy to.dtype to.dtype_layout to.device _to_copy type_as add.Tensor add_.Tensor add.Scalar
        sub.Tensor sub_.Tensor sub.Scalar rsub.Scalar mul.Tensor mul_.Tensor mul.Scalar div.Tensor div_.Tensor
        div.Scalar div.Tensor_mode div.Scalar_mode floor_divide remainder.Tensor remainder.Scalar pow.Tensor_Tensor
        pow.Scalar floor ceil round sign clamp_max atan maximum minimum addcmul prelu where.self masked_fill.Scalar
        masked_fill_.Scalar eq.Scalar ne.Scalar lt.Scalar gt.Scalar le.Scalar ge.Scalar eq.Tensor lt.Tensor gt.Tensor
        logical_not logical_and zeros_like ones_like full_like""",
    Kind.MOVEMENT: """
        view reshape flatten.using_ints permute transpose.int swapaxes t unsqueeze squeeze.dim squeeze.dims
        slice.Tensor cat stack chunk split.Tensor split_with_sizes expand expand_as reshape_as view_as pad
        constant_pad_nd select.int unbind.int unflatten.int repeat movedim.int movedim.intlist pixel_shuffle
        pixel_unshuffle channel_shuffle repeat_interleave.self_int""",
    Kind.WINDOW: """
        max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
        adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d upsample_nearest1d.vec upsample_nearest2d.vec
        upsample_nearest3d.vec upsample_bilinear2d.vec upsample_bicubic2d.vec upsample_trilinear3d.vec
        upsample_linear1d.vec""",
    Kind.REDUCTION: """
        mean.dim sum.dim_IntList amax amin linalg_vector_norm norm.ScalarOpt_dim std.correction std.dim
        var.correction var.dim""",
    Kind.ALONG: "softmax.int log_softmax.int cumsum roll flip",
    Kind.NORM: "layer_norm rms_norm group_norm instance_norm",
    Kind.PRODUCT: "matmul bmm einsum scaled_dot_product_attention embedding",
    Kind.CONSTANT: "new_zeros new_ones new_full",
    Kind.MODULE: """
        conv1d conv2d conv3d conv1d.padding conv2d.padding conv3d.padding linear batch_norm dropout dropout_
        feature_dropout feature_dropout_ conv_transpose1d conv_transpose2d.input conv_transpose3d.input""",
    Kind.SYMBOLIC: "sym_size.int",
    Kind.OPAQUE: """
        mm addmm lstm.input gru.input mean sum prod.dim_int max.dim min.dim argmax
        topk gather index.Tensor index_select tril triu arange arange.start zeros ones full view_as
        var_mean.correction _weight_norm baddbmm im2col unfold glu fill_.Tensor fill_.Scalar copy_ bitwise_not
        bitwise_and.Tensor bitwise_or.Tensor __and__.Tensor __or__.Tensor logical_or""",
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

CHECKS = frozenset({"torch.ops.aten._assert_tensor_metadata.default"})
"""Targets that compute nothing: assertions that export leaves behind, dropped on reading."""

EVAL_MODE: dict[str, Any] = {"train": False, "training": False, "use_input_stats": False, "dropout_p": 0.0}
"""The arguments by which an operator behaves differently in training, and their values in eval mode."""

_OWN_STATISTICS = ("training", "use_input_stats")  # of batch_norm and instance_norm

REMEDIES = {
    "torch.ops.higher_order.wrap_with_set_grad_enabled": "take torch.no_grad() and the like out of forward",
    "torch.ops.higher_order.wrap_with_autocast": "take torch.autocast out of forward",
}
"""What to do about operators that are refused and come from something a user may not recognise in them."""


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


def bind(operator: OpOverload, given: dict[str, Any]) -> tuple[OpOverload, tuple[Any, ...], dict[str, Any]]:
    """An operator in eval mode, its arguments by position with the defaults filled in, and those passed by keyword only.

    Raises:
        InvalidInput: an argument that is missing or unknown.
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    if operator is torch.ops.aten.to.device:  # to where the weights are: only the dtype is left
        operator, given = torch.ops.aten.to.dtype, {name: value for name, value in given.items() if name != "device"}
    for parameter in operator._schema.arguments:
        if parameter.name in given:
            value = given.pop(parameter.name)
        elif parameter.has_default_value():
            value = parameter.default_value
        else:
            raise InvalidInput("model", None, f"calls {operator} without {parameter.name!r}; export it again")
        # A norm without running statistics (its argument 3) has no eval mode.
        if parameter.name in EVAL_MODE and not (parameter.name in _OWN_STATISTICS and args[3] is None):
            value = EVAL_MODE[parameter.name]
        if not parameter.kwarg_only:
            args.append(value)
        elif not parameter.has_default_value() or value != parameter.default_value:
            kwargs[parameter.name] = value
    if given:
        raise InvalidInput("model", None, f"calls {operator} with an argument that it does not take; export it again")
    return operator, tuple(args), kwargs


def name_of(target: Callable[..., Any]) -> str:
    """The name under which ``KINDS`` lists an operator; arithmetic on sizes has its plain name."""
    if isinstance(target, torch._ops.OpOverload):
        return str(target).removeprefix("aten.")
    return str(getattr(target, "__name__", target))


ITEM = operator.getitem
"""Picks one of several results; the reader adds these itself."""
