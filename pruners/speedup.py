"""Masks into a smaller network: NNI's ``ModelSpeedup``, on the coupled channels of ``pruners.graph``.

A channel goes if every layer that produces it, or is coupled to it, masks it; otherwise it stays with its weights masked. What
all the BatchNorms that read a layer mask, with nothing else reading it, counts as masked by the layer. Either way the network
computes what the masked one does, with one exception that is NNI's too: what a BatchNorm, or an activation with f(0) ≠ 0,
makes of a channel of zeros goes with the channel.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from pruners.errors import InvalidInput
from pruners.graph.check import traced
from pruners.graph.export import plain_copy, write_program
from pruners.graph.groups import Coupling, Group, Indices
from pruners.graph.layers import BatchNorm
from pruners.graph.modules import build_module
from pruners.graph.program import read_program
from pruners.graph.shrink import shrink
from pruners.masking import Masks, remove_masks


class ModelSpeedup:
    """Removes the masked channels of a network for real.

    Args:
        model: any network that ``torch.export`` takes; it is copied, not changed.
        dummy_input: an example ``[batch, …]``, or a tuple of them where the network takes several.
        masks_or_path: the masks, or a file of them written by ``torch.save``.

    Attributes:
        not_honoured: after ``speedup_model``, by layer why channels that it masks stayed.

    Raises:
        InvalidInput: masks that are no masks, or not of this network.
    """

    def __init__(self, model: nn.Module, dummy_input: Tensor | tuple[Tensor, ...], masks_or_path: Masks | str | Path) -> None:
        self._model = model
        self._inputs = (dummy_input,) if isinstance(dummy_input, Tensor) else tuple(dummy_input)
        self._masks = _load(masks_or_path) if isinstance(masks_or_path, str | Path) else masks_or_path
        self.not_honoured: dict[str, str] = {}
        _check(model, self._masks)

    def speedup_model(self) -> fx.GraphModule:
        """The smaller network: real modules under the user's own names, in eval mode on the model's device.

        Raises:
            InvalidInput: a network that cannot be exported or read.
        """
        module = as_graph(_masked(self._model, self._masks), self._inputs)
        coupling = traced(module)
        vote = _Vote(module, coupling, self._masks)
        keep = [vote.kept(group) for group in coupling.prunable]
        self.not_honoured = vote.explain(keep)
        device = next((parameter.device for parameter in self._model.parameters()), torch.device("cpu"))
        return shrink(module, coupling, keep).to(device)


class _Vote:
    """Which channel classes every layer agrees to lose; where two groups cross, that is a whole row or a whole column."""

    def __init__(self, module: fx.GraphModule, coupling: Coupling, masks: Masks) -> None:
        self._coupling = coupling
        members = {(member.tensor, member.dim): member.classes for member in coupling.members}
        norms = norms_behind(module)
        self._masked: dict[str, Indices] = {}  # per masked layer the classes that it masks wherever they occur in it
        self._wanted: dict[str, Indices] = {}  # likewise, those that can go by themselves
        votes: dict[int, bool] = {}
        for layer, dim in coupling.layers.items():
            classes, part = members[f"{layer}.weight", dim], module.get_submodule(layer)
            readers = norms.get(layer, [])
            if layer not in masks and _passes_on(part) and not any(norm in masks for norm in readers):
                continue
            gone = _zero_channels(masks.get(layer, {}), dim, len(classes))
            if readers:
                gone |= np.logical_and.reduce([_zero_channels(masks.get(norm, {}), 0, len(classes)) for norm in readers])
            labelled = classes >= 0
            factors = coupling.factors[classes[labelled]].T
            self._masked[layer] = _wherever(classes[labelled], gone[labelled])
            self._wanted[layer] = _wherever(np.concatenate(factors), np.tile(gone[labelled], 2))
            for label in np.unique(factors).tolist():
                votes[label] = votes.get(label, True) and label in self._wanted[layer]
        self._gone = np.array([label for label, agrees in votes.items() if agrees], dtype=np.int64)

    def kept(self, group: Group) -> Indices:
        """The indices into a group's classes that stay: the first one at least, since no layer can be emptied."""
        stay = np.flatnonzero(~np.isin(group.classes, self._gone))
        least = group.minimum // group.divisor
        return stay if len(stay) >= least else np.arange(least)

    def explain(self, keep: list[Indices]) -> dict[str, str]:
        """Why masked channels stayed, by layer."""
        kept = self._coupling.kept(keep)
        reasons: dict[str, str] = {}
        for layer, masked in self._masked.items():
            stayed = masked[kept[masked]]
            if len(stayed):
                count = f"{len(stayed)} of {len(masked)} masked channels stay: "
                reasons[layer] = count + self._reason(layer, int(stayed[0]))
        return reasons

    def _reason(self, layer: str, label: int) -> str:
        factors = self._coupling.factors[label].tolist()
        groups = [group for group in self._coupling.groups for factor in factors if factor in group.classes]
        free = [group for group in groups if group.frozen_reason is None]
        if not free:
            return f"the layer {groups[0].frozen_reason if groups else 'cannot be pruned'}"
        wanted = [factor for factor in factors if factor in self._wanted[layer]]
        if not wanted:
            return "only whole heads can go, or the same channels of every head"
        if wanted[0] in self._gone:
            return "a layer cannot be emptied"
        (group,) = {group.name: group for group in groups if wanted[0] in group.classes}.values()
        others = [name for name in group.layers if name in self._wanted and wanted[0] not in self._wanted[name]]
        return f"{', '.join(others)} must lose the same ones and does not mask them"


def _wherever(classes: Indices, gone: NDArray[np.bool_]) -> Indices:
    """The classes all of whose positions are gone."""
    return np.setdiff1d(classes, classes[~gone])


def norms_behind(module: fx.GraphModule) -> dict[str, list[str]]:
    """By layer the BatchNorms that read it, if nothing else does: what they silence, nobody hears."""
    readers: dict[str, list[str]] = {}
    heard: set[str] = set()  # layers that something else reads too
    for node in module.graph.nodes:
        for user in node.users if node.op == "call_module" else ():
            if user.op == "call_module" and isinstance(module.get_submodule(user.target), BatchNorm):
                readers.setdefault(node.target, []).append(user.target)
            else:
                heard.add(node.target)
    return {layer: norms for layer, norms in readers.items() if layer not in heard}


def _passes_on(layer: nn.Module) -> bool:
    """Whether it is depthwise: each output channel is made of one input channel, and goes when that does."""
    return getattr(layer, "groups", 1) > 1 and layer.in_channels == layer.groups


def _zero_channels(masks: Mapping[str, Tensor | None], dim: int, positions: int) -> NDArray[np.bool_]:
    """Which positions of a weight's output dim are masked throughout, and their bias with them if it has a mask."""
    weight, bias = masks.get("weight"), masks.get("bias")
    if weight is None:
        return np.zeros(positions, dtype=np.bool_)
    gone = (weight.transpose(0, dim).reshape(positions, -1) == 0).all(1)
    if bias is not None and len(bias) == len(gone):
        gone &= bias == 0
    zero: NDArray[np.bool_] = gone.cpu().numpy()
    return zero


def _load(path: str | Path) -> Masks:
    try:
        masks: Masks = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InvalidInput("masks_or_path", str(path), "does not exist; give the file that export_model wrote") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        problem = "is no file of masks; give one that torch.save wrote from a dict of tensors"
        raise InvalidInput("masks_or_path", str(path), problem) from error
    return masks


def _check(model: nn.Module, masks: Masks) -> None:
    if not isinstance(masks, Mapping):
        raise InvalidInput("masks_or_path", type(masks).__name__, "is no dict of masks by layer; give pruner.masks")
    layers = dict(model.named_modules(remove_duplicate=False))
    for name, parts in masks.items():
        if name not in layers:
            raise InvalidInput(f"masks_or_path[{name!r}]", None, "is no layer of the model; give the masks made for it")
        if not isinstance(parts, Mapping):
            raise InvalidInput(f"masks_or_path[{name!r}]", None, 'is no dict of masks; give {"weight": …, "bias": …}')
        for part, mask in parts.items():
            field = f"masks_or_path[{name!r}][{part!r}]"
            parameter = getattr(layers[name], part, None)
            if mask is None:
                continue
            if not isinstance(parameter, Tensor) or not isinstance(mask, Tensor) or mask.shape != parameter.shape:
                wanted = list(parameter.shape) if isinstance(parameter, Tensor) else "absent"
                raise InvalidInput(field, None, f"does not have the shape of the layer's {part}, which is {wanted}")
            if not bool(((mask == 0) | (mask == 1)).all()):
                raise InvalidInput(field, None, "holds other values than 0 and 1; give masks, not weights")


def _masked(model: nn.Module, masks: Masks) -> nn.Module:
    masked = plain_copy(model)
    remove_masks(masked)
    with torch.no_grad():
        for name, parts in masks.items():
            for part, mask in parts.items():
                if mask is not None:
                    getattr(masked.get_submodule(name), part).mul_(mask.cpu())
    return masked


def as_graph(model: nn.Module, inputs: tuple[Tensor, ...]) -> fx.GraphModule:
    """The network as ``pruners.graph`` reads it, for any batch size.

    Args:
        model: with the weights to read; it is copied, not changed.
        inputs: examples ``[batch, …]``.

    Raises:
        InvalidInput: a network that cannot be exported or read.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt2"
        write_program(model, inputs, path)
        return build_module(read_program(path))
