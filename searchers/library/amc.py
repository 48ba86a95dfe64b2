"""NNI's AMC pruner on this package's machine; see ``searchers.amc``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from pruners.config import ConfigList, Number
from pruners.errors import InvalidInput
from searchers.amc import AMC, AMCParams
from searchers.base import Outcome
from searchers.library.base import SearchPruner
from searchers.library.network import Inputs

_REWARDS = ("acc_reward", "acc_flops_reward")

_AGENT = "is not to be set: the agent has its own, those that were found to learn in a few hundred episodes"
_FIXED: Mapping[str, tuple[object, str]] = {
    "rbound": (1.0, "is not to be set: a group that the agent wants whole stays whole; exclude layers in config_list instead"),
    "n_calibration_batches": (60, "has no use: weights are not reconstructed after a cut; fine-tune the pruned network"),
    "n_points_per_layer": (10, "has no use: weights are not reconstructed after a cut; fine-tune the pruned network"),
    **dict.fromkeys(["hidden1", "hidden2"], (300, _AGENT)),
    "lr_c": (1e-3, _AGENT),
    "lr_a": (1e-4, _AGENT),
    "discount": (1.0, _AGENT),
    "bsize": (64, _AGENT),
    "rmsize": (100, _AGENT),
    "window_length": (1, _AGENT),
    "tau": (0.01, _AGENT),
    "epsilon": (50000, "has no use, here as in NNI: noise falls by delta_decay"),
    "max_episode_length": (1e9, "has no use, here as in NNI: an episode is one walk over the groups"),
    "debug": (False, "has no use; search_history.csv has every episode"),
}
"""NNI's other arguments: the defaults, which are accepted, and why no other value is."""


class AMCPruner(SearchPruner):
    """An agent learns how much of each group of channels to keep, at a share of the network's MACs that no plan exceeds.

    Args:
        model, config_list, base_algo, dummy_input: see ``SearchPruner``; entries of ``config_list`` select layers and take no
            ``sparsity``.
        evaluator: called as ``evaluator(val_loader, model)``, as by NNI, or where it takes one argument as
            ``evaluator(model)``; returns the accuracy.
        val_loader: batches, tensors or tuples that begin with one; the first one is the example where ``dummy_input`` is not
            given.
        suffix: added to the folder's name.
        model_type, dataset: for the folder's name alone; any network is taken.
        flops_ratio: the share of the dense network's MACs to keep, between 0 and 1.
        lbound: the keep fraction left to every group at least, unless ``flops_ratio`` asks for less.
        reward: ``acc_reward``, the accuracy, or ``acc_flops_reward``, −(100 − accuracy)/100 · log(MACs), for which the
            evaluator returns percent.
        channel_round: widths are multiples of this in layers whose own width is one; NNI's default is 8.
        warmup: episodes that explore blindly.
        init_delta: standard deviation of the first action noise after the warm-up.
        delta_decay: what each later episode multiplies it by; ``None`` leaves a twentieth in the last one.
        train_episode: episodes, the warm-up included.
        output_dir: where the folder ``{model_type}_{dataset}_r{flops_ratio}_search`` is made; see ``experiment_data_dir`` of
            ``SearchPruner``.
        seed: every random choice derives from it; ``None`` is 0.
        others: NNI's other arguments, with NNI's defaults alone.

    Raises:
        InvalidInput: an argument that cannot be used, or a network that cannot be exported or read.
    """

    numbers: ClassVar[Mapping[str, Number]] = {}

    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        evaluator: Callable[..., float],
        val_loader: Iterable[Any],
        suffix: str | None = None,
        model_type: str = "mobilenet",
        dataset: str = "cifar10",
        flops_ratio: float = 0.5,
        lbound: float = 0.2,
        *,
        reward: str = "acc_reward",
        channel_round: int = 1,
        warmup: int = 100,
        init_delta: float = 0.5,
        delta_decay: float | None = None,
        train_episode: int = 800,
        output_dir: str | Path | None = "./logs",
        seed: int | None = None,
        base_algo: str = "l1",
        dummy_input: Inputs | None = None,
        **others: Any,
    ) -> None:
        _check(others)
        if not 0 < flops_ratio < 1:
            raise InvalidInput("flops_ratio", flops_ratio, "must be between 0 and 1, both excluded")
        if not 0 <= lbound < 1:
            raise InvalidInput("lbound", lbound, "must be 0 or more and less than 1")
        if reward not in _REWARDS:
            raise InvalidInput("reward", reward, f"must be one of {', '.join(_REWARDS)}")
        if not 1 <= warmup < train_episode:
            problem = f"must be 1 or more and less than train_episode, which is {train_episode}, or the agent never learns"
            raise InvalidInput("warmup", warmup, problem)
        if not init_delta > 0 or not (delta_decay is None or 0 < delta_decay <= 1):
            raise InvalidInput("init_delta, delta_decay", (init_delta, delta_decay), "must be above 0, the second at most 1")
        if channel_round < 1:
            raise InvalidInput("channel_round", channel_round, "must be 1 or more")
        folder = "-".join([f"{model_type}_{dataset}_r{flops_ratio}_search", *([suffix] if suffix else [])])
        super().__init__(
            model,
            config_list,
            evaluator,
            base_algo,
            "maximize",
            None if output_dir is None else Path(output_dir) / folder,
            _first_inputs(val_loader) if dummy_input is None else dummy_input,
            "macs",
            seed or 0,
        )
        self._limit = self.network.limit("flops_ratio", flops_ratio, flops_ratio, channel_round)
        self._round_to = channel_round
        self._trials = train_episode
        self._guaranteed = reward == "acc_flops_reward"
        self._arguments = (val_loader,) if _takes_two(evaluator) else ()
        self._params = AMCParams(
            warmup=warmup,
            sigma=init_delta,
            decay=delta_decay,
            floor=lbound,
            reward="guaranteed" if self._guaranteed else "accuracy",
        )

    def compress(self) -> nn.Module:
        """Searches, and returns the network, which is the same object, masked to the best plan."""
        space = self.network.space(self._limit, round_to=self._round_to)
        searcher = AMC(space, self._params, self._seed, self._trials)
        with self._searching() as dense:
            widths = self._search(searcher, lambda proposal: self._try(dense, proposal, *self._arguments, self.model)).widths
            self._set(dense, widths)
        return self._finish(widths, self.history.performance(widths), self._limit)

    def _outcome(self, value: float) -> Outcome:
        outcome = super()._outcome(value)
        if not self._guaranteed or outcome.score is None:
            return outcome
        if not 0 <= value <= 100:
            raise InvalidInput(
                "evaluator", value, "was returned; reward acc_flops_reward needs an accuracy in percent, 0 to 100"
            )
        return Outcome(outcome.score, metric=value / 100)


def _check(others: Mapping[str, object]) -> None:
    for name, value in others.items():
        if name not in _FIXED:
            raise InvalidInput(name, None, "is no argument of AMCPruner; check its spelling or leave it out")
        default, problem = _FIXED[name]
        if value != default:
            raise InvalidInput(name, value, f"{problem} (NNI's default, {default}, is accepted)")


def _first_inputs(val_loader: Iterable[Any]) -> Inputs:
    batch = next(iter(val_loader), None)
    first = batch[0] if isinstance(batch, tuple | list) and batch else batch
    if not isinstance(first, Tensor):
        raise InvalidInput("val_loader", None, "gives no batch that begins with a tensor; give an example as dummy_input")
    return first[:1]


def _takes_two(evaluator: Callable[..., float]) -> bool:
    """Whether it must be given two arguments."""
    try:
        parameters = inspect.signature(evaluator).parameters.values()
    except (TypeError, ValueError):
        return False
    return sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters) > 1
