"""Masks in place: a layer's weights stay plain parameters, with those that are masked held at exactly zero.

A masked layer has buffers ``weight_mask`` and ``bias_mask`` of 0 and 1, in the parameters' shapes, beside its parameters. They
go wherever the layer goes: ``state_dict``, ``deepcopy``, ``torch.save``, ``.to()``, DistributedDataParallel. Weights that
change are masked again before every forward pass, and behind every ``step`` of an optimiser given to ``keep_masked``.

    remask            multiplies the parameters of one layer by its masks
    set_masks         gives a layer masks, in place of those it has
    masks_of          the masks of a network
    remove_masks      makes it a plain network again; masked weights are then ordinary zeros
    keep_masked       masks behind every step of an optimiser
    channel_masks     masks that silence whole output channels
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

Masks = Mapping[str, Mapping[str, Tensor | None]]
"""``{layer: {"weight": Tensor, "bias": Tensor | None}}`` of 0 and 1 in the parameters' shapes; ``None`` masks nothing."""

PARTS = ("weight", "bias")
"""The parameters that may have a mask, which is the buffer ``{part}_mask``."""


def remask(layer: nn.Module) -> None:
    """Multiplies a layer's parameters by its masks, if it has any."""
    for part in PARTS:
        mask, parameter = layer._buffers.get(f"{part}_mask"), layer._parameters.get(part)
        if mask is not None and parameter is not None:
            # Through .data: autograd must not see a change between two calls of one layer in one forward pass.
            parameter.data.mul_(mask)


def set_masks(layer: nn.Module, masks: Mapping[str, Tensor | None]) -> None:
    """Gives a layer masks ``{"weight": …, "bias": …}`` of 0 and 1, in place of those that it has, and masks it."""
    for part, mask in masks.items():
        if mask is not None:
            layer.register_buffer(f"{part}_mask", mask.to(layer.get_parameter(part)))
    if _before_forward not in layer._forward_pre_hooks.values():
        layer.register_forward_pre_hook(_before_forward)
    remask(layer)


def masks_of(model: nn.Module) -> dict[str, dict[str, Tensor | None]]:
    """The masks of a network's layers."""
    return {
        name: {part: layer._buffers.get(f"{part}_mask") for part in PARTS}
        for name, layer in model.named_modules()
        if _before_forward in layer._forward_pre_hooks.values()
    }


def remove_masks(model: nn.Module) -> None:
    """Takes every mask off a network, in place: what is masked stays zero until it is trained."""
    for layer in model.modules():
        for key in [key for key, hook in layer._forward_pre_hooks.items() if hook is _before_forward]:
            remask(layer)
            del layer._forward_pre_hooks[key]
            for part in PARTS:
                layer._buffers.pop(f"{part}_mask", None)


def keep_masked(optimizer: Optimizer, layers: Iterable[nn.Module]) -> RemovableHandle:
    """Masks these layers again behind every step of the optimiser, which momentum and weight decay move."""
    watched = list(layers)

    def mask_again(*_: Any) -> None:
        for layer in watched:
            remask(layer)

    handle: RemovableHandle = optimizer.register_step_post_hook(mask_again)
    return handle


def channel_masks(layer: nn.Module, keep: Tensor) -> dict[str, Tensor | None]:
    """Masks of a layer that keeps the output channels ``keep`` ``[channels]``, bool, its bias with them."""
    weight, bias = layer.get_parameter("weight"), layer._parameters.get("bias")
    kept = keep.to(weight)
    if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        # The weight is [in, out / groups, …]: of each group's inputs, what goes to each of the group's outputs.
        table = kept.view(layer.groups, 1, -1).expand(-1, len(weight) // layer.groups, -1).reshape(weight.shape[:2])
    else:
        table = kept
    mask = table.view(*table.shape, *[1] * (weight.dim() - table.dim())).expand_as(weight).clone()
    return {"weight": mask, "bias": None if bias is None else kept.to(bias)}


def _before_forward(layer: nn.Module, _: Any) -> None:
    """The hook of every masked layer: a function of this module, so that networks that have it can be copied and pickled."""
    if not torch.compiler.is_exporting():  # a program must not write to its weights, which are masked already
        remask(layer)
