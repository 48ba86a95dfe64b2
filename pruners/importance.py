"""From layer scores to the order in which a group's coupled channels go.

A class of coupled channels sits in several layers whose scores have different scales. Each layer's scores are divided by
their mean over the layer, and a class takes the mean of its channels' scores (the reduction of DepGraph, arXiv 2301.12900).
Channels in two groups that cross count in both: a head's score is the mean over its channels, that of a place of every head the
mean over the heads.
Within a group of one layer this keeps the criterion's own order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import fx

from pruners.criteria.base import Criterion
from pruners.graph.groups import Coupling, Indices

Scores = NDArray[np.float64]


def group_scores(module: fx.GraphModule, coupling: Coupling, criterion: Criterion) -> list[Scores]:
    """Importance of every class of each prunable group, ``[classes of the group]`` each."""
    total = np.zeros(coupling.classes)
    count = np.zeros(coupling.classes)
    for layer, member in coupling.outputs():
        scores = criterion.scores(module.get_submodule(layer)).double().cpu().numpy()
        scores = scores / (scores.mean() or 1.0)  # a layer of zeros scores zero throughout
        labelled = np.flatnonzero(member.classes >= 0)
        rows, columns = coupling.factors[member.classes[labelled]].T
        crossing = rows != columns
        for classes, places in ((rows, labelled), (columns[crossing], labelled[crossing])):
            np.add.at(total, classes, scores[places])
            np.add.at(count, classes, 1.0)
    mean = total / np.maximum(count, 1.0)
    return [mean[group.classes] for group in coupling.prunable]


def choose(coupling: Coupling, scores: Sequence[Scores], widths: Sequence[int]) -> list[Indices]:
    """The classes that stay, for each prunable group, if it keeps ``width`` channels: the best; ties go by index."""
    keep: list[Indices] = []
    for group, score, width in zip(coupling.prunable, scores, widths, strict=True):
        order = np.argsort(-score, kind="stable")
        keep.append(np.sort(order[: width // group.divisor]))
    return keep
