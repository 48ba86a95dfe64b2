"""ADMM: training pulls the weights towards a pruned copy of themselves, then what the copy lost is cut.

Zhang et al., A Systematic DNN Weight Pruning Framework using Alternating Direction Method of Multipliers, arXiv 1804.03294.
Minimise ``f(W) + g(Z)`` with ``W = Z``, where ``f`` is the loss and ``g`` is 0 on the set ``S`` of the tensors that are sparse
enough and ∞ off it. In scaled form, from ``Z = W`` and ``U = 0``, each iteration does

    W ← some epochs on f(W) + ρ/2 · ‖W − Z + U‖²
    Z ← Π_S(W + U)
    U ← U + γ(W − Z)        γ = 1 in the paper, where W is trained until nothing moves any more
    ρ ← gρ, U ← U/g         g = 1 in the paper; ρU are the multipliers, which a new ρ must not change

and in the end ``W ← Π_S(W)``. ``Π_S`` is a one-shot pruner: single weights with ``level``, whole channels with ``l1`` or
``l2``, coupled channels with ``dependency_aware``. ``level`` and ``l2`` are the nearest points of ``S``; ``l1`` ranks channels
by another norm, and coupled ones are ranked by the sum of their layers' norms.

**The dual step γ.** A few epochs leave W short of Z − U, where the penalty pulls it, by a share ``a`` of the way. For a weight
that Z leaves out, whatever the loss wants of it, the lines above are then

    W ← aW − (1 − a)U,      U ← U + γW

whose eigenvalues have the product ``a``. With γ = 1 they are complex: W and U swing about 0 in turns, and with ``a`` near 1 U
adds up what training had no time to undo, until other weights look larger in W + U and Z jumps. They are real, and nothing
swings, up to

    γ = (1 − √a) / (1 + √a)

where both are √a. So γ is that for the ``a`` of each iteration: the paper's 1 where training gets there, next to nothing where
ρ is too small for the epochs. With D and E, W − Z + U before and behind training, and Δ the change from one iteration to the
next, ``a = ⟨ΔE, ΔD⟩ / ⟨ΔD, ΔD⟩``: what the loss does by itself is alike in both iterations and drops out. The first has none to
compare with and leaves U at 0.
"""

from __future__ import annotations

import copy
import inspect
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from pruners.config import ConfigList
from pruners.errors import InvalidInput
from pruners.library.base import Pruner
from pruners.masking import remove_masks
from pruners.schedules.base import Schedule, one_shot

logger = logging.getLogger(__name__)

_LR, _WEIGHT_DECAY = 1e-3, 5e-5  # of Adam, NNI's


class ADMMPruner(Schedule):
    """Prunes after training that prepares for it; ``compress`` runs it all.

    Args:
        model: the network; it is trained and masked itself, not a copy.
        config_list: see ``pruners.config``.
        trainer: called as ``trainer(model, optimizer=…, criterion=…, epoch=…)`` to train one epoch with that optimiser,
            ``epoch`` from 0 in each iteration. The penalty needs nothing from it: each step of the optimiser first adds
            ρ(W − Z + U) to the gradients, so momentum and Adam see it. A trainer that asks for ``callback``, as NNI's early
            ones do, gets a function that does nothing.
        num_iterations: how often Z and U move.
        epochs: of training in each iteration.
        rho: ρ, how hard the weights are pulled at first.
        base_algo: the projection: ``level``, ``l1`` or ``l2``.
        criterion: the loss that ``trainer`` gets; cross-entropy if ``None``.
        optimizer: trains the network; Adam with NNI's learning rate of 1e-3 and weight decay of 5e-5 if ``None``.
        on_iteration: called after each iteration with its number, from 1, and the layers' residuals.
        rho_growth: g, by which ρ is multiplied behind each iteration.
        dual_step: γ, how much of W − Z goes into U; what damps the swing if ``None``, 1 for the paper's.
        options: what else the projection takes, such as ``dependency_aware=True, dummy_input=x``.

    Attributes:
        Z: by layer the pruned copy of its weight; none before ``compress``.
        U: by layer the sum of ``γ(W − Z)`` over the iterations so far, in units of the present ρ.
        rho: ρ of the next iteration.
        history: per iteration, by layer, the residual ‖W − Z‖ / ‖W‖. Near 0 cutting changes nothing any more.

    Raises:
        InvalidInput: a ``config_list`` or an argument that cannot be used, or a layer whose weight is frozen.
    """

    optimizer: Optimizer

    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        trainer: Callable[..., object],
        num_iterations: int = 30,
        epochs: int = 5,
        rho: float = 1e-4,
        base_algo: str = "l1",
        criterion: Callable[..., Tensor] | None = None,
        optimizer: Optimizer | None = None,
        on_iteration: Callable[[int, Mapping[str, float]], None] | None = None,
        rho_growth: float = 1.0,
        dual_step: float | None = None,
        **options: Any,
    ) -> None:
        for field, value in {"num_iterations": num_iterations, "epochs": epochs}.items():
            if value < 1:
                raise InvalidInput(field, value, "must be 1 or more")
        if not rho > 0:
            raise InvalidInput("rho", rho, "must be above 0: without a penalty nothing draws the weights to the sparse ones")
        if not rho_growth >= 1:
            raise InvalidInput("rho_growth", rho_growth, "must be 1 or more: ρ stays or grows")
        if dual_step is not None and not 0 < dual_step <= 1:
            raise InvalidInput("dual_step", dual_step, "must be above 0 and at most 1; leave it out for one that damps")
        optimizer = optimizer or Adam(model.parameters(), lr=_LR, weight_decay=_WEIGHT_DECAY)
        super().__init__(model, config_list, optimizer, one_shot("base_algo", base_algo, ("level", "l1", "l2")), options)
        self.num_iterations = num_iterations
        self.epochs = epochs
        self.rho = rho
        self.rho_growth = rho_growth
        self.dual_step = dual_step
        self.Z: dict[str, Tensor] = {}
        self.U: dict[str, Tensor] = {}
        self.history: list[dict[str, float]] = []
        self._trainer = trainer
        self._criterion = nn.CrossEntropyLoss() if criterion is None else criterion
        self._on_iteration = on_iteration
        self._stepped = False
        self._last: dict[str, tuple[Tensor, Tensor]] = {}  # by layer, W − Z + U before and behind the last training
        for name, weight in self._weights().items():
            if not weight.requires_grad:
                raise InvalidInput("config_list", name, "has a frozen weight, which no training moves; unfreeze or exclude it")

    def compress(self) -> nn.Module:
        """Runs the iterations that are left, masks each layer to its sparsity, and returns the network, the same object.

        Raises:
            InvalidInput: the trainer never steps the optimiser that it is given.
        """
        if not self.Z:
            self.Z = {name: weight.detach().clone() for name, weight in self._weights().items()}
            self.U = {name: torch.zeros_like(z) for name, z in self.Z.items()}
        # A copy of the pruner, with a network of its own on whose weights it projects, and without the optimiser.
        projection = copy.deepcopy(self.pruner, {id(self.optimizer): None})
        handle = self.optimizer.register_step_pre_hook(self._pull)
        try:
            while len(self.history) < self.num_iterations:
                start = self._distances()
                self._train()
                self._project(projection, self._dual_step(start, self._distances()))
        finally:
            handle.remove()
        return self.pruner.compress()

    def state_dict(self) -> dict[str, Any]:
        """As ``Schedule.state_dict``, behind the last whole iteration; for ``on_iteration``.

        Once masked, a network is saved by ``export_model``.
        """
        return {
            **super().state_dict(),
            "Z": dict(self.Z),
            "U": dict(self.U),
            "last": dict(self._last),
            "rho": self.rho,
            "history": [dict(residuals) for residuals in self.history],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As ``Schedule.load_state_dict``; ``compress`` then runs the iterations that are left."""
        super().load_state_dict(state)
        weights = self._weights()
        self.Z = {name: z.to(weights[name], copy=True) for name, z in state["Z"].items()}
        self.U = {name: u.to(weights[name], copy=True) for name, u in state["U"].items()}
        self._last = {name: (d.to(weights[name]), e.to(weights[name])) for name, (d, e) in state["last"].items()}
        self.rho = state["rho"]
        self.history = [dict(residuals) for residuals in state["history"]]

    def _train(self) -> None:
        """W ← some epochs on the loss and the penalty."""
        callback = {"callback": _nothing} if "callback" in inspect.signature(self._trainer).parameters else {}
        self._stepped = False
        for epoch in range(self.epochs):
            self._trainer(self.model, optimizer=self.optimizer, criterion=self._criterion, epoch=epoch, **callback)
        if not self._stepped:
            raise InvalidInput("trainer", None, "never called optimizer.step(); train with the optimizer that it is given")

    def _pull(self, *_: Any) -> None:
        """Adds the penalty's gradient ρ(W − Z + U) before a step, behind gradient clipping and loss scaling."""
        self._stepped = True
        weights = self._weights()
        for name, distance in self._distances().items():
            weight, pull = weights[name], self.rho * distance
            weight.grad = pull if weight.grad is None else weight.grad.add_(pull)

    def _distances(self) -> dict[str, Tensor]:
        """W − Z + U by layer: how far each weight is from where it is pulled."""
        return {name: weight.detach() - self.Z[name] + self.U[name] for name, weight in self._weights().items()}

    def _dual_step(self, start: dict[str, Tensor], end: dict[str, Tensor]) -> float:
        """γ, given W − Z + U before and behind this iteration's training."""
        moved = left = 0.0
        for name, (last_start, last_end) in self._last.items():
            change = start[name] - last_start
            moved += float(change.square().sum())
            left += float((change * (end[name] - last_end)).sum())
        self._last = {name: (start[name], end[name]) for name in start}
        if self.dual_step is not None:
            return self.dual_step
        # Below 0 training went beyond Z − U, which swings as much as falling short by that. At 1 nothing was approached.
        root = min(math.sqrt(abs(left) / moved), 1.0) if moved else 1.0
        return (1 - root) / (1 + root)

    @torch.no_grad()
    def _project(self, projection: Pruner, dual_step: float) -> None:
        """Z ← Π_S(W + U), U ← (U + γ(W − Z)) / g and ρ ← gρ."""
        weights = self._weights()
        remove_masks(projection.model)  # the last iteration's: any other weights may go this time
        for name, layer in projection.layers.items():
            layer.get_parameter("weight").copy_(weights[name] + self.U[name])
        projection.compress()
        for name, layer in projection.layers.items():
            self.Z[name] = layer.get_parameter("weight").detach().clone()
            self.U[name] = (self.U[name] + dual_step * (weights[name].detach() - self.Z[name])) / self.rho_growth
        self.rho *= self.rho_growth
        self._report({name: _residual(weight, self.Z[name]) for name, weight in weights.items()})

    def _report(self, residuals: dict[str, float]) -> None:
        self.history.append(residuals)
        iteration, worst = len(self.history), max(residuals, key=residuals.__getitem__)
        logger.info("ADMM %d of %d: residual at most %.4f (%s)", iteration, self.num_iterations, residuals[worst], worst)
        if self._on_iteration is not None:
            self._on_iteration(iteration, residuals)

    def _weights(self) -> dict[str, nn.Parameter]:
        return {name: layer.get_parameter("weight") for name, layer in self.pruner.layers.items()}


def _residual(weight: Tensor, z: Tensor) -> float:
    """‖W − Z‖ / ‖W‖, 0 for a weight of zeros."""
    norm = float(weight.norm())
    return float((weight - z).norm()) / norm if norm else 0.0


def _nothing() -> None:
    """What a trainer of NNI's early kind calls before each step; the penalty comes with the step itself."""
