"""Gradual pruning: sparsity grows from step to step while the network trains; a curve says how fast."""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Literal

from torch import nn
from torch.optim import Optimizer

from pruners.config import ConfigList, LayerConfig, Number
from pruners.errors import InvalidInput
from pruners.library.ranking import share
from pruners.schedules.base import Schedule, one_shot


class GradualPruner(Schedule, ABC):
    """Base of the schedules whose sparsity follows a curve over time.

    Entries of ``config_list`` take ``initial_sparsity`` (0), ``final_sparsity``, ``start_epoch`` (0), ``end_epoch`` and
    ``frequency`` (1). Sparsity is ``initial_sparsity`` before ``start_epoch``, moves there and every ``frequency`` epochs from
    then on, and reaches ``final_sparsity`` after ``n = (end_epoch − start_epoch − 1) // frequency`` moves, as in NNI: with a
    frequency of 1 the last epoch before ``end_epoch`` trains at ``final_sparsity``. Masks only grow.

    Sparsity is a function of the epoch alone. To go on where a run stopped, give its ``state_dict`` to ``load_state_dict`` and
    call ``update_epoch`` with the next epoch; steps are counted on from the saved one.

    Args:
        model: the network; it is masked itself, not a copy.
        config_list: see above and ``pruners.config``.
        optimizer: what trains the network; masked weights then stay zero behind each of its steps.
        pruning_algorithm: what chooses: ``level``, ``slim``, ``fpgm``, ``l1``, ``l2``, ``apoz``, ``mean_activation``,
            ``taylorfo`` or ``random``.
        unit: ``"epoch"``, which ``update_epoch`` counts, or ``"step"``: then the keys are ``start_step`` and ``end_step``,
            they and ``frequency`` count steps of the optimiser, and sparsity moves behind those steps on its own.
        options: what else the one-shot pruner takes, such as ``dependency_aware=True, dummy_input=x``.

    Attributes:
        step: with ``unit="step"`` the steps taken so far.

    Raises:
        InvalidInput: a ``config_list`` that cannot be used or leaves no time to prune, ``unit="step"`` without an optimiser, or
            whatever the one-shot pruner refuses.
    """

    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        optimizer: Optimizer | None = None,
        pruning_algorithm: str = "level",
        unit: Literal["epoch", "step"] = "epoch",
        **options: Any,
    ) -> None:
        if unit not in ("epoch", "step"):
            raise InvalidInput("unit", unit, 'must be "epoch" or "step"')
        numbers = {
            "initial_sparsity": Number(below=1.0, default=0.0),
            "final_sparsity": Number(below=1.0),
            f"start_{unit}": Number(whole=True, default=0),
            f"end_{unit}": Number(whole=True),
            "frequency": Number(low=1, whole=True, default=1),
        }
        kind = one_shot("pruning_algorithm", pruning_algorithm)
        super().__init__(model, config_list, optimizer, kind, options, numbers, target="final_sparsity")
        self.step = 0
        self._unit = unit
        self._reached: dict[str, float] = {}
        for layer in self.config.values():
            self._check(layer)
        if unit == "step":
            if optimizer is None:
                raise InvalidInput("optimizer", None, 'is missing; unit="step" counts its steps')
            optimizer.register_step_post_hook(self._after_step)

    def state_dict(self) -> dict[str, Any]:
        """As ``Schedule.state_dict``, with the steps taken; statistics that are being gathered are gathered again."""
        return {**super().state_dict(), "step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As ``Schedule.load_state_dict``."""
        super().load_state_dict(state)
        self.step = state["step"]

    @abstractmethod
    def curve(self, way: Fraction) -> Fraction:
        """Which share of the sparsity is reached after a share of the time; 0 ↦ 0, 1 ↦ 1, never falling."""

    def compress(self) -> nn.Module:
        """Masks each layer as the first epoch (or step) wants it and returns the network, which is the same object."""
        self._mask_at(self.step)
        return self.model

    def update_epoch(self, epoch: int) -> None:
        """To be called before each epoch of training, counted from 0.

        Raises:
            InvalidInput: a negative epoch.
        """
        super().update_epoch(epoch)
        if self._unit == "epoch":
            self._mask_at(epoch)

    def sparsity_at(self, now: int) -> dict[str, float]:
        """By layer the sparsity that an epoch trains with, or that holds after so many steps."""
        return {name: _as_number(self._sparsity(layer, now)) for name, layer in self.config.items()}

    def _sparsity(self, layer: LayerConfig, now: int) -> Fraction:
        initial, final = (share(layer.values[f"{end}_sparsity"], 1) for end in ("initial", "final"))
        start, moves = int(layer.values[f"start_{self._unit}"]), self._moves(layer)
        done = min(max((now - start) // int(layer.values["frequency"]), 0), moves)
        return initial + (final - initial) * self.curve(Fraction(done, moves))

    def _moves(self, layer: LayerConfig) -> int:
        start, end = layer.values[f"start_{self._unit}"], layer.values[f"end_{self._unit}"]
        return int(end - start - 1) // int(layer.values["frequency"])

    def _mask_at(self, now: int) -> None:
        wanted = self.sparsity_at(now)
        if wanted != self._reached:
            self.pruner.mask_to(wanted)
            self._reached = wanted

    def _after_step(self, *_: Any) -> None:
        self.step += 1
        self._mask_at(self.step)

    def _check(self, layer: LayerConfig) -> None:
        field, values = f"config_list[{layer.entry}]", layer.values
        if values["initial_sparsity"] > values["final_sparsity"]:
            problem = f"is above final_sparsity {values['final_sparsity']:g}; masks only grow, so begin lower"
            raise InvalidInput(f"{field}.initial_sparsity", values["initial_sparsity"], problem)
        if self._moves(layer) < 1:
            end = f"end_{self._unit}"
            least = values[f"start_{self._unit}"] + values["frequency"] + 1
            raise InvalidInput(f"{field}.{end}", values[end], f"leaves no time to prune; give {least:g} or more")


def _as_number(sparsity: Fraction) -> float:
    """Rounded up behind the last digit that every float holds, so that 41/60 of 60 weights are 41 of them, not 40."""
    unit: int = 10**sys.float_info.dig
    return math.ceil(sparsity * unit) / unit
