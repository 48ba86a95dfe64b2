"""What the schedules share: a network, and the one-shot pruner that masks it whenever the schedule says so.

The one-shot pruner decides which channels or weights go; the schedule decides when, and how many.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, fx, nn
from torch.optim import Optimizer

from pruners.config import SPARSITY, ConfigList, LayerConfig, Number, parse_config
from pruners.errors import InvalidInput
from pruners.library.base import Pruner
from pruners.library.filters import (
    ActivationAPoZRankFilterPruner,
    ActivationMeanRankFilterPruner,
    FPGMPruner,
    L1FilterPruner,
    L2FilterPruner,
    RandomFilterPruner,
    TaylorFOWeightFilterPruner,
)
from pruners.library.level import LevelPruner
from pruners.library.slim import SlimPruner
from pruners.masking import PARTS, Masks, set_masks

ONE_SHOT: Mapping[str, type[Pruner]] = {
    "level": LevelPruner,
    "slim": SlimPruner,
    "fpgm": FPGMPruner,
    "l1": L1FilterPruner,
    "l2": L2FilterPruner,
    "apoz": ActivationAPoZRankFilterPruner,
    "mean_activation": ActivationMeanRankFilterPruner,
    "taylorfo": TaylorFOWeightFilterPruner,
    "random": RandomFilterPruner,
}
"""The one-shot pruners by the names that jobs and NNI give them."""


def one_shot(field: str, name: str, names: tuple[str, ...] = tuple(ONE_SHOT)) -> type[Pruner]:
    """The one-shot pruner of that name; raises ``InvalidInput`` about the argument ``field`` if it is none of ``names``."""
    if name not in names:
        raise InvalidInput(field, name, f"is no pruner that this schedule runs; use one of {', '.join(names)}")
    return ONE_SHOT[name]


class Schedule:
    """Base of the schedules.

    Args:
        model: the network; it is masked itself, not a copy.
        config_list: see ``pruners.config``.
        optimizer: what trains the network; masked weights then stay zero behind each of its steps.
        kind: the one-shot pruner.
        options: what else that pruner takes, such as ``dependency_aware=True, dummy_input=x``.
        numbers: the numbers that entries of ``config_list`` take.
        target: which of them is the sparsity where the schedule ends.

    Attributes:
        model: the same network.
        optimizer: the same optimiser.
        config: what was asked, by layer.
        pruner: the one-shot pruner; its own ``config`` holds the sparsities where the schedule ends.

    Raises:
        InvalidInput: a ``config_list`` that cannot be used, or whatever the one-shot pruner refuses.
    """

    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        optimizer: Optimizer | None,
        kind: type[Pruner],
        options: Mapping[str, Any],
        numbers: Mapping[str, Number] = SPARSITY,
        target: str = "sparsity",
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.config: dict[str, LayerConfig] = parse_config(model, config_list, type(self).__name__, kind.supported, numbers)
        entries: dict[int, dict[str, Any]] = {}  # as the user grouped the layers: some pruners rank those of one entry together
        for name, layer in self.config.items():
            entries.setdefault(layer.entry, {"sparsity": layer.values[target], "op_names": []})["op_names"].append(name)
        self.pruner: Pruner = kind(model, list(entries.values()), optimizer, **options)

    @property
    def masks(self) -> Masks:
        """``{layer: {"weight": Tensor, "bias": Tensor | None}}`` of 0 and 1; none before ``compress``."""
        return self.pruner.masks

    @property
    def not_honoured(self) -> dict[str, str]:
        """After ``compact``, by layer why masked channels stayed."""
        return self.pruner.not_honoured

    def update_epoch(self, epoch: int) -> None:
        """To be called before each epoch of training, counted from 0."""
        self.pruner.update_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """All that ``load_state_dict`` needs to go on from here: the network with its masks, the optimiser, and the schedule.

        What the caller keeps (learning rate schedulers, a random order of the data) is not in it. The tensors are not copies.
        """
        return {
            "layers": sorted(self.config),
            "model": self.model.state_dict(),
            "optimizer": None if self.optimizer is None else self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over what ``state_dict`` gave, into a schedule made with the same arguments; do not call ``compress`` before.

        Raises:
            InvalidInput: a state of other layers.
        """
        if state["layers"] != sorted(self.config):
            problem = f"is not of the layers {sorted(self.config)}; use the same config_list"
            raise InvalidInput("state", state["layers"], problem)
        for name, layer in self.pruner.layers.items():
            masks = {part: state["model"].get(f"{name}.{part}_mask") for part in PARTS}
            if masks["weight"] is not None:
                set_masks(layer, masks)
        self.model.load_state_dict(state["model"])
        if self.optimizer is not None:
            self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))  # which would keep the very tensors

    def export_model(
        self,
        model_path: str | Path,
        mask_path: str | Path | None = None,
        onnx_path: str | Path | None = None,
        input_shape: tuple[int, ...] | None = None,
    ) -> None:
        """As ``Pruner.export_model``."""
        self.pruner.export_model(model_path, mask_path, onnx_path, input_shape)

    def compact(self, dummy_input: Tensor | tuple[Tensor, ...]) -> fx.GraphModule:
        """As ``Pruner.compact``."""
        return self.pruner.compact(dummy_input)
