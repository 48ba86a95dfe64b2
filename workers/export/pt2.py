"""A network as ``.pt2``: architecture and weights in one file that opens with torch alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import fx

from pruners.errors import JobFailed
from pruners.graph.check import relative_difference
from pruners.graph.modules import build_module
from pruners.graph.program import Input, read_program

TOLERANCE = 1e-5  # relative to the largest output: float32 with operators possibly run in another order

_OF_THIS_PROCESS = ("stack_trace", "from_node")
"""What a program tells of the process that wrote it: folders, addresses. Without it the same network is the same bytes."""


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
    for node in program.graph.nodes:
        for name in _OF_THIS_PROCESS:
            node.meta.pop(name, None)
    torch.export.save(program, path)
    generator = torch.Generator().manual_seed(0)
    probe = tuple(torch.randn(example.shape, generator=generator).to(example.dtype) for example in examples)
    difference = relative_difference(build_module(read_program(path)), module, probe)
    if not difference <= TOLERANCE:
        raise JobFailed(
            f"The exported network differs from the pruned one by {difference:.1e} relative; {TOLERANCE} is allowed."
        )


def _dim(symbol: str, least: int, greatest: int | None) -> Any:
    bounds: dict[str, int] = {"min": max(least, 1)}
    if greatest is not None and math.isfinite(greatest):
        bounds["max"] = greatest
    return torch.export.Dim(symbol, **bounds)
