"""What an upload is, found out once: the facts that jobs are validated and planned with.

Runs in a process of its own (``service.inspection``), since everything it reads comes from outside.
"""

from __future__ import annotations

import inspect
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import fx

from pruners.cost import ENGINE
from pruners.criteria.base import CRITERIA, Criterion
from pruners.errors import InvalidInput
from pruners.graph.check import traced
from pruners.graph.groups import Coupling
from pruners.graph.modules import build_module
from pruners.graph.program import Input, read_program
from pruners.graph.shapes import BATCH, infer_shapes
from pruners.importance import unscored
from workers.schedules.base import SCHEDULES, Schedule
from workers.weights import LEVEL, Level


def inspect_model(path: Path) -> dict[str, Any]:
    """Reads and traces a ``.pt2`` file.

    Returns:
        ``engine``: the version of the rules that found the rest;
        ``macs, params, size_bytes, activation_bytes``: what the dense network costs (see ``pruners.cost``);
        ``inputs, outputs``: what it takes and returns (``null`` for a dynamic dim);
        ``groups, cost``: its groups of coupled channels, checked, with what is frozen and why and which pruners see nothing
        of them, and the cost model over those that are not frozen;
        ``layers``: the layers that produce channels, in the order of execution.

    Raises:
        InvalidInput: a file that cannot be read, or a network that jobs cannot score.
    """
    module = build_module(read_program(path))
    inputs: tuple[Input, ...] = module.meta["inputs"]
    coupling = traced(module)
    output = next(node for node in module.graph.nodes if node.op == "output")
    values = infer_shapes(module).values[output]
    _check_interface(inputs, values)
    dense = [group.width for group in coupling.prunable]
    return {
        "engine": ENGINE,
        **{metric: coupling.cost(metric, dense) for metric in ("macs", "params", "size_bytes", "activation_bytes")},
        "inputs": [{"shape": _shape(value), "dtype": str(value.dtype).removeprefix("torch.")} for value in inputs],
        "outputs": [{"shape": [None, *values[1:]]}],
        "groups": describe_groups(module, coupling),
        "layers": describe_layers(module, coupling),
        "cost": coupling.cost.to_json(),
    }


def catalogue() -> dict[str, Any]:
    """The pruners there are: ``name, description, reference, params`` (a JSON Schema), and whether it is a ``schedule``."""
    criteria = [_describe(name, CRITERIA[name], schedule=False) for name in CRITERIA]
    schedules = [_describe(name, SCHEDULES[name], schedule=True) for name in SCHEDULES]
    return {"pruners": [*criteria, _describe(LEVEL, Level, schedule=False), *schedules]}


def _describe(name: str, pruner: type[Criterion] | type[Schedule] | type[Level], *, schedule: bool) -> dict[str, Any]:
    return {
        "name": name,
        "description": (inspect.getdoc(pruner) or "").splitlines()[0],
        "reference": pruner.reference,
        "params": TypeAdapter(pruner).json_schema(),
        "schedule": schedule,
    }


def describe_groups(module: fx.GraphModule, coupling: Coupling) -> list[dict[str, Any]]:
    """Every group as JSON, frozen ones with their reason, the others with the pruners that cannot score them."""
    blind: dict[str, list[str]] = {}
    for name in CRITERIA:
        for group in unscored(module, coupling, CRITERIA[name]()):
            blind.setdefault(group.name, []).append(name)
    return [
        {
            "name": group.name,
            "width": group.width,
            "divisor": group.divisor,
            "minimum": group.minimum,
            "layers": list(group.layers),
            "types": list(group.types),
            "residual": group.residual,
            "frozen_reason": group.frozen_reason,
            "unscored_by": blind.get(group.name, []),
        }
        for group in coupling.groups
    ]


def describe_layers(module: fx.GraphModule, coupling: Coupling) -> list[dict[str, Any]]:
    """Every layer with its weights and its output channels, of which ``groups`` says how many belong to which group.

    Channels in two groups that cross (heads and their widths) count in both.
    """
    group_of = {int(label): group.name for group in coupling.groups for label in group.classes}
    classes = {(member.tensor, member.dim): member.classes for member in coupling.members}
    layers: list[dict[str, Any]] = []
    for layer, dim in coupling.layers.items():
        produced = classes[f"{layer}.weight", dim]
        rows, columns = coupling.factors[produced[produced >= 0]].T
        labels = [*rows.tolist(), *columns[rows != columns].tolist()]
        layers.append(
            {
                "name": layer,
                "type": type(module.get_submodule(layer)).__name__,
                "width": len(produced),
                "weights": module.get_submodule(layer).get_parameter("weight").numel(),
                "groups": dict(Counter(group_of[label] for label in labels if label in group_of)),
            }
        )
    return layers


def _check_interface(inputs: tuple[Input, ...], output: Any) -> None:
    if len(inputs) != 1:
        raise InvalidInput("model", None, f"takes {len(inputs)} inputs; export one that takes a single tensor of images")
    (value,) = inputs
    if not value.shape or not isinstance(value.shape[0], str):
        raise InvalidInput(
            "model", None, "has a fixed batch size; export it with dynamic_shapes=({0: torch.export.Dim('batch')},)"
        )
    if any(isinstance(size, str) for size in value.shape[1:]):
        raise InvalidInput("model", None, "has dynamic dims besides the batch; export it for one image size")
    if not value.dtype.is_floating_point:
        raise InvalidInput("model", None, f"takes {value.dtype} inputs; export one that takes floats")
    if not isinstance(output, torch.Size) or not output or output[0] != BATCH:
        raise InvalidInput("model", None, "does not return one tensor [batch, …]; export a network that does")


def _shape(value: Input) -> list[int | None]:
    return [None if isinstance(size, str) else size for size in value.shape]
