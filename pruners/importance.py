"""From layer scores to the order in which a group's coupled channels go.

A class of coupled channels sits in several layers whose scores have different scales. Each layer's scores are divided by
their mean over the layer, and a class takes the mean of its channels' scores (the reduction of DepGraph, arXiv 2301.12900).
Channels in two groups that cross count in both: a head's score is the mean over its channels, that of a place of every head the
mean over the heads. Within a group of one layer this keeps the criterion's own order. For a criterion that scores norms
(``slim``) the norms that a class passes through take the place of its layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from pruners.criteria.base import NORMS, ActivationCriterion, Criterion
from pruners.graph.groups import Coupling, Group, Indices, Member

Scores = NDArray[np.float64]


def group_scores(
    module: fx.GraphModule,
    coupling: Coupling,
    criterion: Criterion,
    statistics: Mapping[str, Tensor] | None = None,
    across_groups: bool = False,
) -> list[Scores]:
    """Importance of every class of each prunable group, ``[classes of the group]`` each.

    Args:
        module: the network that ``coupling`` was traced on.
        coupling: its groups.
        criterion: scores single layers.
        statistics: what calibrating ``watched`` found, where the criterion needs it.
        across_groups: whether classes of different groups are to be compared, for which a ``comparable`` criterion's scores
            stay as they are.
    """
    total = np.zeros(coupling.classes)
    count = np.zeros(coupling.classes)
    for part, member in _scored(module, coupling, criterion):
        found = None if statistics is None else statistics[part]
        scores = criterion.scores(module.get_submodule(part), found).numpy()
        if not (across_groups and criterion.comparable):
            scores = scores / (scores.mean() or 1.0)  # a layer of zeros scores zero throughout
        labelled = np.flatnonzero(member.classes >= 0)
        rows, columns = coupling.factors[member.classes[labelled]].T
        crossing = rows != columns
        for classes, places in ((rows, labelled), (columns[crossing], labelled[crossing])):
            np.add.at(total, classes, scores[places])
            np.add.at(count, classes, 1.0)
    mean = total / np.maximum(count, 1.0)
    return [mean[group.classes] for group in coupling.prunable]


def watched(module: fx.GraphModule, coupling: Coupling, criterion: Criterion) -> dict[str, nn.Module]:
    """What to calibrate for group scores: by name of each layer, itself or the BatchNorm that reads it directly.

    Activations are seen after that BatchNorm if the criterion says so; ReLU is the criterion's own. Where none reads the
    layer directly (a sum or a concatenation comes first), they are seen at the layer.
    """
    layers = {part: module.get_submodule(part) for part, _ in _scored(module, coupling, criterion)}
    if isinstance(criterion, ActivationCriterion) and criterion.after == "norm":
        for node in module.graph.nodes:
            if node.op == "call_module" and isinstance(module.get_submodule(str(node.target)), NORMS):
                source = node.args[0]
                if source.op == "call_module" and source.target in layers:
                    layers[source.target] = module.get_submodule(str(node.target))
    return layers


def unscored(module: fx.GraphModule, coupling: Coupling, criterion: Criterion) -> list[Group]:
    """The prunable groups with channels of which the criterion sees nothing."""
    seen = np.zeros(coupling.classes, dtype=np.bool_)
    for _, member in _scored(module, coupling, criterion):
        seen[coupling.factors[member.classes[member.classes >= 0]]] = True
    return [group for group in coupling.prunable if not seen[group.classes].all()]


def choose(coupling: Coupling, scores: Sequence[Scores], widths: Sequence[int]) -> list[Indices]:
    """The classes that stay, for each prunable group, if it keeps ``width`` channels: the best; ties go by index."""
    keep: list[Indices] = []
    for group, score, width in zip(coupling.prunable, scores, widths, strict=True):
        order = np.argsort(-score, kind="stable")
        keep.append(np.sort(order[: width // group.divisor]))
    return keep


def _scored(module: fx.GraphModule, coupling: Coupling, criterion: Criterion) -> list[tuple[str, Member]]:
    """Each layer (or norm) that the criterion scores and that puts out prunable channels, and the member that says which."""
    prunable = np.zeros(coupling.classes, dtype=np.bool_)
    for group in coupling.prunable:
        prunable[group.classes] = True
    weights = [(member.tensor.removesuffix(".weight"), member) for member in coupling.members if member.output]
    return [
        (part, member)
        for part, member in weights
        if member.tensor == f"{part}.weight"
        and isinstance(module.get_submodule(part), criterion.scored)
        and prunable[coupling.factors[member.classes[member.classes >= 0]]].any()
    ]
