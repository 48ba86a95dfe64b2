"""The base of all pruners of the library: a network, what to prune of it, and masks in place.

A one-shot pruner implements ``mask_to``. Schedules call it again and again with growing sparsities; searches set masks of their
own and share ``Masked`` with it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from torch import Tensor, fx, nn
from torch.optim import Optimizer

from pruners.config import SPARSITY, ConfigList, LayerConfig, Number, parse_config
from pruners.errors import InvalidInput
from pruners.library.export import export
from pruners.masking import Masks, keep_masked, masks_of, remask, set_masks
from pruners.speedup import ModelSpeedup


class Masked:
    """A network that is masked in place, and what can be had of it.

    Args:
        model: the network; it is masked itself, not a copy.

    Attributes:
        model: the same network.
        layers: by name what has masks, or will have some.
        not_honoured: after ``compact``, by layer why masked channels stayed.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.layers: dict[str, nn.Module] = {}
        self.not_honoured: dict[str, str] = {}

    @property
    def masks(self) -> Masks:
        """``{layer: {"weight": Tensor, "bias": Tensor | None}}`` of 0 and 1; none before ``compress``."""
        return {name: parts for name, parts in masks_of(self.model).items() if name in self.layers}

    def update_epoch(self, epoch: int) -> None:
        """To be called before each epoch of training, counted from 0: masks again what training moved.

        Schedules move on here; a one-shot pruner stays as it is.
        """
        if epoch < 0:
            raise InvalidInput("epoch", epoch, "must be 0 or more")
        for layer in self.layers.values():
            remask(layer)

    def export_model(
        self,
        model_path: str | Path,
        mask_path: str | Path | None = None,
        onnx_path: str | Path | None = None,
        input_shape: tuple[int, ...] | None = None,
    ) -> None:
        """Writes the network as a plain state dict whose masked weights are zero; loads into the unmasked class.

        Args:
            model_path: the state dict, on the CPU.
            mask_path: the masks, a file that ``ModelSpeedup`` takes.
            onnx_path: the network in ONNX; needs the packages onnx and onnxscript.
            input_shape: of its input, batch first; needed for ONNX.

        Raises:
            InvalidInput: nothing is masked yet, or ONNX cannot be written.
        """
        self._require_masks()
        export(self.model, model_path, mask_path, onnx_path, input_shape)

    def compact(self, dummy_input: Tensor | tuple[Tensor, ...]) -> fx.GraphModule:
        """The smaller network, masked channels removed for real by ``ModelSpeedup``; the masked one stays as it is.

        Args:
            dummy_input: an example ``[batch, …]``, or a tuple of them.

        Raises:
            InvalidInput: nothing is masked yet, or the network cannot be exported or read.
        """
        self._require_masks()
        speedup = ModelSpeedup(self.model, dummy_input, self.masks)
        small = speedup.speedup_model()
        self.not_honoured = speedup.not_honoured
        return small

    def _require_masks(self) -> None:
        if not self.masks:
            raise InvalidInput("masks", None, "are not set; call compress() first")


class Pruner(Masked, ABC):
    """Masks the layers that ``config_list`` selects, in place.

    Args:
        model: the network; it is masked itself, not a copy.
        config_list: see ``pruners.config``.
        optimizer: what trains the network; masked weights then stay zero behind each of its steps.

    Attributes:
        optimizer: the same optimiser.
        config: what was asked, by layer.

    Raises:
        InvalidInput: a ``config_list`` that cannot be used.
    """

    supported: ClassVar[tuple[type[nn.Module], ...]]
    """The layer types that it takes: those of ``op_types: ["default"]``."""

    numbers: ClassVar[Mapping[str, Number]] = SPARSITY
    """The numbers that entries of its ``config_list`` take."""

    def __init__(self, model: nn.Module, config_list: ConfigList, optimizer: Optimizer | None = None) -> None:
        super().__init__(model)
        self.optimizer = optimizer
        self.config: dict[str, LayerConfig] = parse_config(
            model, config_list, type(self).__name__, self.supported, self.numbers
        )
        self.layers = {name: model.get_submodule(name) for name in self.config}
        if optimizer is not None:
            keep_masked(optimizer, self.layers.values())

    def compress(self) -> nn.Module:
        """Masks each layer to its sparsity and returns the network, which is the same object."""
        self.mask_to({name: layer.values["sparsity"] for name, layer in self.config.items()})
        return self.model

    @abstractmethod
    def mask_to(self, sparsity: Mapping[str, float]) -> None:
        """Masks to these sparsities, by the weights as they are now.

        What is masked is zero in place and has no other value to come back to, so it goes first whatever its score: masks
        only grow, and a sparsity below the one reached already changes nothing.

        Args:
            sparsity: per layer of ``config``, in [0, 1).
        """

    def _set(self, name: str, masks: Mapping[str, Tensor | None]) -> None:
        set_masks(self.layers[name], masks)

    def _before(self, name: str) -> Tensor | None:
        """Which weights of a layer stayed until now, bool in the weight's shape; ``None`` if it has no mask."""
        mask = self.layers[name]._buffers.get("weight_mask")
        return None if mask is None else mask != 0

    def _by_entry(self) -> list[list[str]]:
        """The layers that one entry of ``config_list`` decides, for each entry."""
        names: dict[int, list[str]] = {}
        for name, layer in self.config.items():
            names.setdefault(layer.entry, []).append(name)
        return list(names.values())
