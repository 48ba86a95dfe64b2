"""Level: single weights by size. It makes no network smaller or faster by itself: hardware must know what to do with zeros.

Han et al., Learning both Weights and Connections for Efficient Neural Networks, arXiv 1506.02626; N:M patterns as in
Mishra et al., Accelerating Sparse Deep Neural Networks, arXiv 2104.08378.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pruners.config import ConfigList
from pruners.criteria.base import LAYERS, Transposed
from pruners.errors import InvalidInput
from pruners.library.base import Pruner
from pruners.library.ranking import kept, kept_globally, share


class LevelPruner(Pruner):
    """The smallest ``|w|`` go, ``floor(sparsity · weights)`` of each layer; biases stay.

    Args:
        model: the network; it is masked itself, not a copy.
        config_list: see ``pruners.config``.
        optimizer: what trains the network; masked weights then stay zero behind each of its steps.
        scope: ``"layer"``, or ``"global"`` to rank the weights of all layers of one entry together.
        pattern: ``"N:M"``, such as ``"2:4"``: of every M consecutive inputs N stay, in each layer, which is a sparsity of
            1 − N/M.

    Raises:
        InvalidInput: a ``config_list`` that cannot be used or does not fit the pattern, an unknown scope or pattern, or a layer
            whose inputs are no multiple of M.
    """

    supported = LAYERS

    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        optimizer: Optimizer | None = None,
        scope: Literal["layer", "global"] = "layer",
        pattern: str | None = None,
    ) -> None:
        if scope not in ("layer", "global"):
            raise InvalidInput("scope", scope, 'must be "layer" or "global"')
        if pattern is not None and scope == "global":
            raise InvalidInput("pattern", pattern, 'holds within each layer; use it with scope="layer"')
        super().__init__(model, config_list, optimizer)
        self._scope = scope
        self._pattern = None if pattern is None else self._checked(pattern)

    def mask_to(self, sparsity: Mapping[str, float]) -> None:
        scores = {name: layer.get_parameter("weight").detach().abs() for name, layer in self.layers.items()}
        before = {name: self._before(name) for name in self.layers}
        stay: dict[str, Tensor] = {}
        if self._scope == "global":
            for names in self._by_entry():
                stay.update(kept_globally({name: scores[name] for name in names}, sparsity, before))
        elif self._pattern is not None:
            for name, each in scores.items():
                self._require_fit(name, sparsity[name], *self._pattern)
                stay[name] = _kept_in_blocks(self.layers[name], each, before[name], *self._pattern)
        else:
            for name, each in scores.items():
                stay[name] = kept(each, math.floor(share(sparsity[name], each.numel())), before[name])
        for name, keep in stay.items():
            self._set(name, {"weight": keep, "bias": None})

    def _checked(self, pattern: str) -> tuple[int, int]:
        numbers = re.fullmatch(r"(\d+):(\d+)", pattern)
        stay, block = map(int, numbers.groups()) if numbers else (0, 0)
        if not 0 < stay < block:
            raise InvalidInput("pattern", pattern, 'must be "N:M" with N of every M weights staying, such as "2:4"')
        for name, layer in self.layers.items():
            self._require_fit(name, self.config[name].values["sparsity"], stay, block)
            inputs = _inputs_last(layer, layer.get_parameter("weight")).shape[-1]
            if inputs % block:
                problem = f"has {inputs} inputs per weight group, no multiple of the pattern's {block}; exclude it"
                raise InvalidInput("config_list", name, problem)
        return stay, block

    def _require_fit(self, name: str, sparsity: float, stay: int, block: int) -> None:
        if share(sparsity, block) != block - stay:
            problem = f"does not fit the pattern {stay}:{block}, which is {1 - stay / block:g}; ask for that"
            raise InvalidInput(f"config_list[{self.config[name].entry}].sparsity", sparsity, problem)


def _inputs_last(layer: nn.Module, weight: Tensor) -> Tensor:
    """A view of a tensor of the weight's shape with the inputs that one output sums over as its last dim."""
    if isinstance(layer, Transposed):
        weight = weight.unflatten(0, (layer.groups, -1))
    return weight.movedim(1, -1)


def _kept_in_blocks(layer: nn.Module, scores: Tensor, before: Tensor | None, stay: int, block: int) -> Tensor:
    """The ``stay`` best of every ``block`` consecutive inputs, of equals those with the lower index."""
    ranked = scores if before is None else scores.masked_fill(~before, -math.inf)
    blocks = _inputs_last(layer, ranked).unflatten(-1, (-1, block))
    best = blocks.argsort(dim=-1, descending=True, stable=True)[..., :stay]
    keep = torch.zeros(blocks.shape, dtype=torch.bool, device=scores.device).scatter_(-1, best, True)
    last_to_first = keep.flatten(-2).movedim(-1, 1)
    return last_to_first.reshape(scores.shape)
