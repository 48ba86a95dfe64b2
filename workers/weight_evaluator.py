"""Evaluating jobs of single weights (``workers.weights``), and which evaluator a job takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import fx

from pruners.cost import CostModel
from pruners.graph.groups import Coupling
from pruners.graph.shrink import shrink
from pruners.importance import Scores
from pruners.library.ranking import kept
from pruners.recovery.least_squares import Moments
from searchers.base import Training
from searchers.space import SearchSpace
from workers.data import Splits
from workers.evaluator import Evaluator, Findings
from workers.inspection import describe_layers
from workers.log import Plan
from workers.plan import make_space
from workers.pruned import Pruned
from workers.spec import JobSpec
from workers.weights import prunes_weights, weight_cost, weight_groups


def make_evaluator(model: Path | BinaryIO, data: Splits, spec: JobSpec, found: Findings | None = None) -> Evaluator:
    """What evaluates a job's plans; for arguments and errors see ``Evaluator``."""
    return (WeightEvaluator if prunes_weights(spec) else Evaluator)(model, data, spec, found)


class WeightEvaluator(Evaluator):
    """An evaluator whose widths are weights that stay, layer by layer; the others become zero, and nothing is removed."""

    def __init__(self, model: Path | BinaryIO, data: Splits, spec: JobSpec, found: Findings | None = None) -> None:
        super().__init__(model, data, spec, found)
        self._layers = describe_layers(self.dense, self.coupling)

    def prune(
        self,
        widths: Sequence[int],
        start: Pruned | None = None,
        training: Training | None = None,
        report: Callable[[str], None] = lambda _: None,
    ) -> Pruned:
        """The network without the weights nearest to zero, its BatchNorm recalibrated; a job of weights trains nothing."""
        everything = [np.arange(len(group.classes)) for group in self.coupling.prunable]
        module = shrink(self.dense, self.coupling, everything)
        for layer, width in zip(self._layers, widths, strict=True):
            weight = module.get_submodule(layer["name"]).get_parameter("weight")
            with torch.no_grad():
                weight.mul_(kept(weight.abs(), weight.numel() - width))
        self.recalibrate(module)
        return Pruned(module, everything)

    def space(self, cost: CostModel | None = None) -> SearchSpace:
        return make_space(weight_groups(self._layers), weight_cost(self._layers), self._spec)

    def plan(self, widths: Sequence[int]) -> Plan:
        layers = {layer["name"]: (width, layer["weights"]) for layer, width in zip(self._layers, widths, strict=True)}
        return self._plan(layers, self.channels(widths))

    def channels(self, widths: Sequence[int]) -> Sequence[int]:
        return [group.width for group in self.coupling.prunable]

    def _score(self, network: fx.GraphModule, coupling: Coupling) -> list[Scores]:
        return []  # weights are compared within their layer, by themselves

    def _moments(self, network: fx.GraphModule, coupling: Coupling) -> Moments | None:
        return None  # no layer loses an input
