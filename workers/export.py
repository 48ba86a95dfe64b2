"""The winner as files: ``.pt2`` (architecture and weights, opens with torch alone), ``.safetensors`` and the recipe."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, fx

from pruners.errors import JobFailed
from pruners.graph.check import relative_difference
from pruners.graph.groups import Coupling, Indices, positions
from pruners.graph.modules import build_module
from pruners.graph.program import Input, read_program
from workers.log import Artefact

TOLERANCE = 1e-5  # relative to the largest output: float32 with operators possibly run in another order


def export_pt2(module: fx.GraphModule, path: Path) -> None:
    """Writes the network with the dynamic dims of the program it came from, and checks what was written.

    Raises:
        JobFailed: the file, read back, does not compute what the network does.
    """
    inputs: tuple[Input, ...] = module.meta["inputs"]
    dims = {symbol: _dim(symbol, *bounds) for symbol, bounds in module.meta["bounds"].items()}
    shapes = [{place: dims[size] for place, size in enumerate(value.shape) if isinstance(size, str)} for value in inputs]
    examples = tuple(value.example() for value in inputs)
    program = torch.export.export(module.eval(), examples, dynamic_shapes=(tuple(shapes) if shapes else None))
    torch.export.save(program, path)
    generator = torch.Generator().manual_seed(0)
    probe = tuple(torch.randn(example.shape, generator=generator).to(example.dtype) for example in examples)
    difference = relative_difference(build_module(read_program(path)), module, probe)
    if not difference <= TOLERANCE:
        raise JobFailed(
            f"The exported network differs from the pruned one by {difference:.1e} relative; {TOLERANCE} is allowed."
        )


def export_all(
    module: fx.GraphModule, coupling: Coupling, keep: Sequence[Indices], widths: Sequence[int], folder: Path
) -> list[Artefact]:
    """Writes every format of the winner into ``folder``."""
    pt2, weights, recipe = folder / "network.pt2", folder / "network.safetensors", folder / "recipe.json"
    export_pt2(module, pt2)
    state, tied = _state(module)
    names: dict[str, str] = module.meta["names"]
    save_file(state, weights, metadata={"format": "pt"})
    recipe.write_text(json.dumps({**_recipe(coupling, keep, widths, names), "tied": tied}, indent=1))
    return [Artefact("pt2", pt2), Artefact("safetensors", weights), Artefact("recipe", recipe)]


def _dim(symbol: str, least: int, greatest: int | None) -> Any:
    bounds: dict[str, int] = {"min": max(least, 1)}
    if greatest is not None and math.isfinite(greatest):
        bounds["max"] = greatest
    return torch.export.Dim(symbol, **bounds)


def _state(module: fx.GraphModule) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, and for each tied one the name that holds its data."""
    first: dict[int, str] = {}
    state: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    names: dict[str, str] = module.meta["names"]
    for ours, tensor in module.state_dict(keep_vars=True).items():
        name = names.get(ours, ours)
        if id(tensor) in first:
            tied[name] = first[id(tensor)]
        else:
            first[id(tensor)] = name
            state[name] = tensor.detach().contiguous()
    return state, tied


def _recipe(coupling: Coupling, keep: Sequence[Indices], widths: Sequence[int], names: Mapping[str, str]) -> dict[str, Any]:
    """What was removed, by the names of the user's own parameters: kept positions per tensor and dim."""
    kept = coupling.kept(keep)
    tensors: dict[str, dict[str, list[int]]] = {}
    for member in coupling.members:
        stay = positions(member, kept)
        if len(stay) < len(member.classes):
            tensors.setdefault(names.get(member.tensor, member.tensor), {})[str(member.dim)] = stay.tolist()
    return {
        "version": 1,
        "widths": {group.name: int(width) for group, width in zip(coupling.prunable, widths, strict=True)},
        "keep": tensors,
    }
