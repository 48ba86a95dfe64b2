"""Single weights as what a job prunes: ``pruner: level`` on a budget of sparsity.

A layer takes a group's place and its weights the place of channels, so that the same search space, budget and searcher serve.
The network keeps its structure: zeros in place make nothing smaller or faster by themselves. Imports neither torch nor ray.

Han et al., Learning both Weights and Connections for Efficient Neural Networks, arXiv 1506.02626.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pruners.cost import SPARSITY, CostModel, Linear, Polynomial, Term
from pruners.errors import InvalidInput
from workers.spec import JobSpec, Strict

LEVEL = "level"


class Level(Strict):
    """Level: the weights nearest to zero become zero; the network keeps its structure, its MACs and its size."""

    reference: ClassVar[str] = "Han et al., Learning both Weights and Connections, arXiv 1506.02626"


def prunes_weights(spec: JobSpec) -> bool:
    """Whether a job zeroes single weights.

    Raises:
        InvalidInput: a pruner and a budget that do not belong together, or what a job of single weights cannot do.
    """
    if spec.pruner.name != LEVEL:
        if spec.metric == SPARSITY:
            problem = f"cannot be met by {spec.pruner.name}, which removes channels; use pruner level, or another metric"
            raise InvalidInput("budget.metric", SPARSITY, problem)
        return False
    if spec.metric != SPARSITY:
        problem = "is not lowered by level, which leaves zeros in place; use sparsity, or another pruner"
        raise InvalidInput("budget.metric", spec.metric, problem)
    if spec.pruner.params:
        raise InvalidInput("pruner.params", spec.pruner.params, "is not for level, which takes no parameters; leave it out")
    if spec.searcher.name != "fixed" or spec.searcher.params.get("ranking") == "global":
        problem = "does not go with level, which cuts every layer alike; use fixed, with ranking uniform"
        raise InvalidInput("searcher.name", spec.searcher.name, problem)
    for name in ("short_steps", "finalists", "final_epochs"):
        if steps := getattr(spec.recovery, name):
            problem = "would train zeros away that level made; use 0, and fine-tune by LevelPruner of the library"
            raise InvalidInput(f"recovery.{name}", steps, problem)
    if spec.recovery.least_squares:
        raise InvalidInput("recovery.least_squares", True, "finds no lost inputs to make up for behind level; leave it out")
    return True


def weight_groups(layers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each layer in the form of a group of ``workers.inspection``, its weights as channels.

    Args:
        layers: ``layers`` of ``workers.inspection.inspect_model``.
    """
    return [
        {
            "name": layer["name"],
            "width": layer["weights"],
            "divisor": 1,
            "minimum": 1,
            "layers": [layer["name"]],
            "types": [layer["type"]],
            "residual": False,
            "frozen_reason": None,
            "unscored_by": [],
        }
        for layer in layers
    ]


def weight_cost(layers: Sequence[Mapping[str, Any]]) -> CostModel:
    """How many weights of these layers are not zero."""
    terms = [Term(1, Linear(0, {place: 1})) for place in range(len(layers))]
    return CostModel([1] * len(layers), {SPARSITY: Polynomial(terms, len(layers))})
