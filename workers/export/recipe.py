"""The winner's weights as ``.safetensors``, and the recipe by which the user's own class takes them up."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, fx

from pruners.graph.groups import Coupling, Indices, positions

VERSION = 1


def export_recipe(
    module: fx.GraphModule,
    dense: fx.GraphModule,
    coupling: Coupling,
    keep: Sequence[Indices],
    widths: Sequence[int],
    weights: Path,
    recipe: Path,
) -> None:
    """Writes the weights of ``module`` and how they came out of ``dense``; ``service.client.apply_recipe`` reads both.

    The recipe has, by the names of the user's own parameters and modules:

    - ``keep``: of every tensor that lost something, by dim, the positions that stayed;
    - ``attributes``: of every module that has other sizes now, those numbers (``out_channels``, ``groups``, …);
    - ``constants``: the numbers in their code that count channels, such as a pad or a number of heads: ``module`` in whose
      ``forward`` they stand, ``call``, and the ``dense`` and ``pruned`` arguments of it;
    - ``tied``: of every tensor that shares another one's data, that one's name;
    - ``widths``: of the groups of channels.
    """
    names: dict[str, str] = module.meta["names"]
    state, tied = _state(module, names)
    save_file(state, weights, metadata={"format": "pt"})
    written = {
        "version": VERSION,
        "widths": {group.name: int(width) for group, width in zip(coupling.prunable, widths, strict=True)},
        "keep": _kept(coupling, keep, names),
        "attributes": _attributes(dense, module),
        "constants": _constants(dense, module),
        "tied": tied,
    }
    recipe.write_text(json.dumps(written, indent=1))


def _state(module: fx.GraphModule, names: Mapping[str, str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, and for each tied one the name that holds its data."""
    first: dict[int, str] = {}
    state: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    for ours, tensor in module.state_dict(keep_vars=True).items():
        name = names.get(ours, ours)
        if id(tensor) in first:
            tied[name] = first[id(tensor)]
        else:
            first[id(tensor)] = name
            state[name] = tensor.detach().contiguous()
    return state, tied


def _kept(coupling: Coupling, keep: Sequence[Indices], names: Mapping[str, str]) -> dict[str, dict[str, list[int]]]:
    kept = coupling.kept(keep)
    tensors: dict[str, dict[str, list[int]]] = {}
    for member in coupling.members:
        stay = positions(member, kept)
        if len(stay) < len(member.classes):
            tensors.setdefault(names.get(member.tensor, member.tensor), {})[str(member.dim)] = stay.tolist()
    return tensors


def _attributes(dense: fx.GraphModule, module: fx.GraphModule) -> dict[str, dict[str, Any]]:
    """The sizes that modules declare, where they changed."""
    changed: dict[str, dict[str, Any]] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        before = dense.get_submodule(path)
        for name, value in vars(part).items():
            if isinstance(value, int | tuple) and not isinstance(value, bool) and value != getattr(before, name, value):
                changed.setdefault(path, {})[name] = value
    return changed


def _constants(dense: fx.GraphModule, module: fx.GraphModule) -> list[dict[str, Any]]:
    """Calls whose arguments changed, in the order of execution."""
    changed: list[dict[str, Any]] = []
    for before, after in zip(dense.graph.nodes, module.graph.nodes, strict=True):
        first, second = (_numbers(node) for node in (before, after))
        if first != second:
            call = str(after.target).removeprefix("aten.")
            changed.append({"module": after.meta.get("module", ""), "call": call, "dense": first, "pruned": second})
    return changed


def _numbers(node: fx.Node) -> list[Any]:
    """Its arguments as JSON, without those that are computed."""
    return [_plain(argument) for argument in node.args if not isinstance(argument, fx.Node)]


def _plain(argument: Any) -> Any:
    if isinstance(argument, list | tuple):
        return [_plain(part) for part in argument]
    return argument if isinstance(argument, int | float | str | None) else str(argument)
