"""Lottery Ticket: train, prune a part, put what is left back to where it began, and train again.

Frankle and Carbin, The Lottery Ticket Hypothesis: Finding Sparse, Trainable Neural Networks, arXiv 1803.03635.

    1. Train the network from θ₀, to θ_j.
    2. Mask the weights that are smallest in θ_j, up to a sparsity of ``1 − (1 − P)^(i/n)`` in round i of n.
    3. Put the weights that are left back to θ₀; begin again at 1.

Larger networks need θ_k of an early training step k in place of θ₀ (Frankle et al., Linear Mode Connectivity and the Lottery
Ticket Hypothesis, arXiv 1912.05671). Rewinding only the learning rate, not the weights, is an alternative (Renda et al.,
Comparing Rewinding and Fine-tuning in Neural Network Pruning, arXiv 2003.02389).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pruners.config import SPARSITY, ConfigList, Number
from pruners.errors import InvalidInput
from pruners.library.filters import CalibratedPruner
from pruners.masking import PARTS, remask
from pruners.schedules.base import Schedule, one_shot

_DIGITS = 12  # of a sparsity: what the power loses in the last places must not cost a weight where the result is round


class LotteryTicketPruner(Schedule):
    """Finds a sparse network that trains from the same beginning.

    Entries of ``config_list`` take ``prune_iterations``, n, the same in all of them, and ``sparsity``, P.

        pruner.compress()
        for _ in pruner.get_prune_iterations():
            pruner.prune_iteration_start()
            ...  # train from the first epoch to the last

    Args:
        model: the network as it begins, θ₀; it is masked itself, not a copy.
        config_list: see above and ``pruners.config``.
        optimizer: what trains the network; its state begins anew in each round, and masked weights stay zero behind its steps.
        lr_scheduler: its learning rates, which begin anew as well.
        rewind: ``"weights"`` to put everything back, or ``"lr"`` to keep what the weights learnt.
        pruning_algorithm: what chooses: ``level``, ``slim``, ``fpgm``, ``l1``, ``l2``, ``apoz``, ``mean_activation``,
            ``taylorfo`` or ``random``; those that need data take ``calibration=[(x, y), …]``.
        options: what else the one-shot pruner takes.

    Raises:
        InvalidInput: a ``config_list`` or an argument that cannot be used.
    """

    optimizer: Optimizer

    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        optimizer: Optimizer,
        lr_scheduler: LRScheduler | None = None,
        rewind: Literal["weights", "lr"] = "weights",
        pruning_algorithm: str = "level",
        **options: Any,
    ) -> None:
        if rewind not in ("weights", "lr"):
            raise InvalidInput("rewind", rewind, 'must be "weights" or "lr"')
        kind = one_shot("pruning_algorithm", pruning_algorithm)
        if issubclass(kind, CalibratedPruner) and options.get("calibration") is None:
            problem = "is missing: the trained weights must be judged before they are rewound, so give batches [(x, y), …]"
            raise InvalidInput("calibration", None, problem)
        numbers = {"prune_iterations": Number(low=1, whole=True), **SPARSITY}
        super().__init__(model, config_list, optimizer, kind, options, numbers)
        asked = {layer.entry: int(layer.values["prune_iterations"]) for layer in self.config.values()}
        self._rounds = next(iter(asked.values()))
        for entry, rounds in asked.items():
            if rounds != self._rounds:
                problem = f"differs from another entry's {self._rounds}; give the same number in all of them"
                raise InvalidInput(f"config_list[{entry}].prune_iterations", rounds, problem)
        self._scheduler = lr_scheduler
        self._rewind = rewind
        self._round: int | None = None
        self.set_rewind_point()

    def set_rewind_point(self) -> None:
        """Makes the network, optimiser and scheduler as they are now the beginning of every later round.

        Constructing the pruner does so. For θ_k call it again at step k of the first training, and let later rounds train from
        step k on.
        """
        self._weights = {name: tensor.detach().clone() for name, tensor in self._tensors().items()}
        self._optimizer_state = copy.deepcopy(self.optimizer.state_dict())
        self._scheduler_state = {} if self._scheduler is None else copy.deepcopy(self._scheduler.state_dict())

    def compress(self) -> nn.Module:
        """Returns the network, which is the same object, with masks of ones: the first training is that of the dense one."""
        self.pruner.mask_to(self.sparsity_in(0))
        return self.model

    def get_prune_iterations(self) -> range:
        """One number for each training that has not begun: at first n + 1 of them, from the dense one, 0."""
        return range(0 if self._round is None else self._round + 1, self._rounds + 1)

    def state_dict(self) -> dict[str, Any]:
        """As ``Schedule.state_dict``, with the learning rates, the round, and the beginning that later rounds rewind to."""
        return {
            **super().state_dict(),
            "scheduler": None if self._scheduler is None else self._scheduler.state_dict(),
            "round": self._round,
            "beginning": (self._weights, self._optimizer_state, self._scheduler_state),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As ``Schedule.load_state_dict``; this round's training goes on, and ``get_prune_iterations`` has the others."""
        super().load_state_dict(state)
        if self._scheduler is not None:
            self._scheduler.load_state_dict(copy.deepcopy(state["scheduler"]))
        self._round = state["round"]
        self._weights, self._optimizer_state, self._scheduler_state = copy.deepcopy(state["beginning"])

    def prune_iteration_start(self) -> None:
        """To be called before each training: masks by the weights that the last one left, then rewinds.

        Raises:
            InvalidInput: all trainings have begun.
        """
        if self._round == self._rounds:
            raise InvalidInput(
                "prune_iterations", self._rounds, f"allows {self._rounds + 1} trainings, all of which have begun"
            )
        self._round = 0 if self._round is None else self._round + 1
        self.pruner.mask_to(self.sparsity_in(self._round))
        if self._round > 0:
            self._begin_anew()

    def sparsity_in(self, iteration: int) -> dict[str, float]:
        """By layer the sparsity of a round, ``1 − (1 − P)^(i/n)``: each takes the same share of what is left."""
        final = {name: layer.values["sparsity"] for name, layer in self.config.items()}
        if iteration == self._rounds:
            return final
        way = iteration / self._rounds
        return {name: round(1 - (1 - last) ** way, _DIGITS) for name, last in final.items()}

    def _begin_anew(self) -> None:
        if self._rewind == "weights":
            with torch.no_grad():
                tensors = self._tensors()
                for name, beginning in self._weights.items():  # somebody else's masks may have come since
                    tensors[name].copy_(beginning)
            for layer in self.pruner.layers.values():
                remask(layer)
        self.optimizer.load_state_dict(copy.deepcopy(self._optimizer_state))  # which would keep the very tensors
        if self._scheduler is not None:
            self._scheduler.load_state_dict(copy.deepcopy(self._scheduler_state))

    def _tensors(self) -> dict[str, Tensor]:
        """Everything that training changes: parameters and buffers, BatchNorm's statistics among them, but not the masks."""
        masks = {f"{name}.{part}_mask" for name in self.pruner.layers for part in PARTS}
        buffers = {name: buffer for name, buffer in self.model.named_buffers() if name not in masks}
        return {**dict(self.model.named_parameters()), **buffers}
