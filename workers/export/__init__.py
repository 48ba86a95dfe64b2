"""The winner as files, each checked against the network before it is offered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import fx

from pruners.errors import JobFailed
from pruners.graph.groups import Coupling, Indices
from workers.export.onnx import export_onnx
from workers.export.pt2 import export_pt2
from workers.export.recipe import export_recipe
from workers.log import Artefact
from workers.spec import Exports

__all__ = ["export_all", "export_pt2"]


def export_all(
    module: fx.GraphModule,
    dense: fx.GraphModule,
    coupling: Coupling,
    keep: Sequence[Indices],
    widths: Sequence[int],
    wanted: Exports,
    folder: Path,
    progress: Callable[[str], None],
) -> list[Artefact]:
    """Writes every format of the winner into ``folder``.

    Args:
        module: the winner.
        dense: the network that it was cut from.
        coupling: of ``dense``.
        keep: per prunable group the indices into its classes that stayed.
        widths: the searcher's own.
        wanted: formats beside those that are always there.
        folder: an existing one.
        progress: told of a format that could not be had; a job does not fail for it.

    Raises:
        JobFailed: one of the formats that are always there does not compute what the network does.
    """
    pt2, weights, recipe, onnx = (folder / f"network.{form}" for form in ("pt2", "safetensors", "json", "onnx"))
    export_pt2(module, pt2)
    export_recipe(module, dense, coupling, keep, widths, weights, recipe)
    artefacts = [Artefact("pt2", pt2), Artefact("safetensors", weights), Artefact("recipe", recipe)]
    if wanted.onnx:
        try:
            export_onnx(module, pt2, onnx)
            artefacts.append(Artefact("onnx", onnx))
        except JobFailed as error:
            progress(str(error))
    return artefacts
