"""Dependency-aware masks: layers whose channels can only be removed together mask the same ones.

Layers are coupled where additions, depthwise convolutions or channel shuffles make their channels one class of
``pruners.graph``; a grouped convolution's channels at one place of every group are one class too, so each group loses equally.
Each layer of a coupled set loses ``floor(sparsity · n)`` channels, at the least sparsity asked of any of them; the classes with
the lowest scores, added up over the set, go.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from pruners.graph.export import plain_copy
from pruners.graph.groups import Indices
from pruners.graph.trace import trace
from pruners.library.ranking import share
from pruners.masking import remove_masks
from pruners.speedup import as_graph

CoupledSet = dict[str, Indices]
"""By layer the class of each of its output channels; equal classes, within a layer or between two, go together."""


def coupled_sets(model: nn.Module, dummy_input: Tensor | tuple[Tensor, ...], channels: Mapping[str, int]) -> list[CoupledSet]:
    """The layers named by ``channels`` in sets that share no channel with each other.

    Args:
        model: the network; it is copied, not changed.
        dummy_input: an example ``[batch, …]``, or a tuple of them.
        channels: by layer how many channels it puts out.

    Raises:
        InvalidInput: a network that cannot be exported or read.
    """
    plain = plain_copy(model)
    remove_masks(plain)
    coupling = trace(as_graph(plain, (dummy_input,) if isinstance(dummy_input, Tensor) else tuple(dummy_input)))
    members = {(member.tensor, member.dim): member.classes for member in coupling.members}
    free = coupling.classes  # the next unused class: what tracing does not follow is coupled to nothing
    sets: list[CoupledSet] = []
    for name, count in channels.items():
        classes = members[f"{name}.weight", coupling.layers[name]] if name in coupling.layers else np.full(count, -1)
        classes = np.where(classes >= 0, np.append(coupling.factors[:, 1], -1)[classes], -1)  # in attention, by columns
        joined: CoupledSet = {name: np.where(classes >= 0, classes, np.arange(free, free + count))}
        free += count
        for other in [each for each in sets if any(np.isin(joined[name], own).any() for own in each.values())]:
            sets.remove(other)
            joined = {**other, **joined}
        sets.append(joined)
    return sets


def kept_together(
    coupled: CoupledSet, scores: Mapping[str, Tensor], sparsity: Mapping[str, float], before: Mapping[str, Tensor | None]
) -> dict[str, Tensor]:
    """Which channels of the layers of one set stay, bool ``[channels]`` each.

    The narrowest layer decides first and wider ones decide on what it leaves open, so that each of them loses what was asked.
    No layer loses more, so none is emptied.

    Args:
        coupled: the set.
        scores: by layer ``[channels]``.
        sparsity: by layer.
        before: by layer which channels stayed until now; what was gone goes first, in the whole set.
    """
    least = min(sparsity[name] for name in coupled)
    left = {name: math.floor(share(least, len(classes))) for name, classes in coupled.items()}
    places = {name: Counter(classes.tolist()) for name, classes in coupled.items()}
    total: Counter[int] = Counter()
    gone: set[int] = set()
    for name, classes in coupled.items():
        for label, score in zip(classes.tolist(), scores[name].tolist(), strict=True):
            total[label] += score
        previous = before[name]
        if previous is not None:
            gone.update(classes[~previous.cpu().numpy()].tolist())
    for name, count in places.items():
        left[name] -= sum(count[label] for label in gone)
    decided = set(gone)
    for name in sorted(coupled, key=lambda name: len(coupled[name])):
        for label in _weakest_first(coupled[name], total):
            touched = [other for other in coupled if label in places[other]]
            if label not in decided and all(places[other][label] <= left[other] for other in touched):
                gone.add(label)
                for other in touched:
                    left[other] -= places[other][label]
            decided.add(label)
    return {name: torch.from_numpy(~np.isin(classes, list(gone))) for name, classes in coupled.items()}


def _weakest_first(classes: Indices, total: Mapping[int, float]) -> Iterable[int]:
    """A layer's classes by ascending score; of equals the one with the higher index first."""
    return sorted(dict.fromkeys(classes[::-1].tolist()), key=lambda label: total[label])
