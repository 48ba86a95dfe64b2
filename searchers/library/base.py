"""The base of NNI's automatic pruners: a search whose trials are the caller's functions on the caller's network.

The network is changed in place for every trial and put back behind it. Whatever ends a search, the caller's own exception too,
leaves the network as it was or masked to the best plan, never half-way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pruners.config import SPARSITY, ConfigList, Number, parse_config
from pruners.criteria.base import LAYERS
from pruners.errors import InvalidInput
from pruners.library.base import Masked
from pruners.masking import masks_of, remask, remove_masks
from searchers.base import Outcome, Proposal, Searcher, ranked
from searchers.library.history import History, Trial
from searchers.library.network import Inputs, Kept, network_of
from searchers.space import Widths

State = dict[str, Tensor]
"""A network's parameters and buffers, without masks."""


class SearchPruner(Masked):
    """Base of the pruners that search.

    Args:
        model: the network; it is masked itself, not a copy.
        config_list: see ``pruners.config``.
        evaluator: returns one finite number for the network as it is when called.
        base_algo: which weights go: whole channels by ``l1``, ``l2``, ``fpgm``, ``lamp`` or ``random``, or single weights by
            ``level``, which makes no network smaller.
        optimize_mode: whether more is better, ``maximize``, or less, ``minimize``.
        experiment_data_dir: a folder, made if need be, for ``search_history.csv``, ``search_history.json``,
            ``search_result.json`` and ``best_masks.pth``; ``None`` writes nothing.
        dummy_input: an example ``[batch, …]``, or a tuple of them; needed unless ``base_algo`` is ``level``.
        metric: what ``sparsity`` is a share of: ``weights`` of the selected layers (NNI's), or ``macs``, ``params``,
            ``size_bytes`` or ``latency_ns`` of the whole network, the last as a table of its layers, which is measured first,
            foretells it for ``dummy_input`` on one thread of this CPU (``pruners.latency_table``).
        seed: every random choice of the search derives from it.

    Attributes:
        network: the model as the search sees it.
        history: the trials so far.

    Raises:
        InvalidInput: an argument that cannot be used, or a network that cannot be exported or read.
    """

    numbers: ClassVar[Mapping[str, Number]] = SPARSITY
    """The numbers that entries of its ``config_list`` take."""

    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        evaluator: Callable[..., float],
        base_algo: str,
        optimize_mode: str,
        experiment_data_dir: str | Path | None,
        dummy_input: Inputs | None,
        metric: str,
        seed: int,
    ) -> None:
        super().__init__(model)
        if optimize_mode not in ("maximize", "minimize"):
            raise InvalidInput("optimize_mode", optimize_mode, "must be maximize or minimize")
        self._evaluator = called("evaluator", evaluator)
        self._sign = 1.0 if optimize_mode == "maximize" else -1.0
        self._seed = seed
        self.config = parse_config(model, config_list, type(self).__name__, LAYERS, self.numbers)
        self.network = network_of(model, self.config, base_algo, metric, dummy_input)
        self.history = History(self.network, None if experiment_data_dir is None else Path(experiment_data_dir))

    def _asked_limit(self) -> int:
        """What the network may cost by the sparsity that all entries of ``config_list`` ask for."""
        asked = {layer.values["sparsity"] for layer in self.config.values()}
        if len(asked) > 1:
            problem = "differ; state one for all entries: a search shares out the overall sparsity itself"
            raise InvalidInput("config_list sparsities", sorted(asked), problem)
        (sparsity,) = asked
        if not sparsity:
            raise InvalidInput("config_list sparsity", sparsity, "prunes nothing; state a share above 0")
        return self.network.limit("config_list sparsity", sparsity, 1 - sparsity)

    @contextmanager
    def _searching(self) -> Iterator[State]:
        """Within it the network may be changed at will; gives its state. An error puts that state back."""
        modes = [(module, module.training) for module in self.model.modules()]
        remove_masks(self.model)
        before = self._state()
        try:
            yield before
        except BaseException:
            self._restore(before)
            raise
        finally:
            for module, training in modes:
                module.training = training

    def _search(self, searcher: Searcher, run: Callable[[Proposal], float]) -> Proposal:
        """Asks and tells until the search is over; returns the best plan on the budget.

        Args:
            searcher: fresh, or given trials.
            run: tries a plan; returns what the evaluator said.
        """
        proposals: dict[int, Proposal] = {}
        outcomes: dict[int, Outcome] = {}
        for trial in searcher.given:
            proposals[trial.proposal.id], outcomes[trial.proposal.id] = trial.proposal, trial.outcome
        while isinstance(proposal := searcher.ask(), Proposal):
            value = run(proposal)
            outcome = self._outcome(value)
            searcher.tell(proposal.id, outcome)
            proposals[proposal.id], outcomes[proposal.id] = proposal, outcome
            self.history.add(Trial(proposal.note, proposal.widths, value))
        found = ranked(proposals, outcomes, searcher.space.fits)
        if not found:
            raise InvalidInput(
                "evaluator", None, "returned no finite number for any plan within the budget; nothing was pruned"
            )
        return found[0]

    def _outcome(self, value: float) -> Outcome:
        if not math.isfinite(value):
            return Outcome(None, error=f"The evaluator returned {value}.")
        return Outcome(self._sign * value)

    def _evaluate(self, *arguments: Any, **options: Any) -> float:
        value = self._evaluator(*(arguments or (self.model,)), **options)
        try:
            return float(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InvalidInput("evaluator", value, "was returned, which is no number; return one float") from error

    def _try(self, state: State, proposal: Proposal, *arguments: Any, **options: Any) -> float:
        """What the evaluator says of a plan that is masked in the network in this state."""
        self._set(state, proposal.widths)
        return self._evaluate(*arguments, **options)

    def _set(self, state: State, widths: Widths) -> Kept:
        """Puts the network into a state and masks it; returns what is kept of it."""
        self._restore(state)
        stay = self.network.kept(widths)
        self.network.mask(stay)
        return stay

    def _finish(self, widths: Widths, performance: float, limit: int) -> nn.Module:
        """Takes note of what was found; the network is in that state already."""
        self.layers = {name: self.model.get_submodule(name) for name in masks_of(self.model)}
        self.history.finish(widths, performance, limit, self.masks)
        return self.model

    def _state(self) -> State:
        """A copy of the network's parameters and buffers, masked ones zero, without the masks."""
        for module in self.model.modules():
            remask(module)
        return {name: tensor.detach().clone() for name, tensor in self._tensors().items()}

    @torch.no_grad()
    def _restore(self, state: State) -> None:
        remove_masks(self.model)
        tensors = self._tensors()
        for name, value in state.items():
            tensors[name].copy_(value)

    def _tensors(self) -> dict[str, Tensor]:
        named = [*self.model.named_parameters(), *self.model.named_buffers()]
        return {name: tensor for name, tensor in named if not name.endswith(("weight_mask", "bias_mask"))}


def called(field: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function; raises ``InvalidInput`` if it is none."""
    if not callable(function):
        raise InvalidInput(field, function, "is no function; give one that takes the model")
    return function
