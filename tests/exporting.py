"""Exported programs for tests."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from pruners.graph.modules import build_module
from pruners.graph.program import read_program
from pruners.graph.shapes import flop_counter


def export(model: nn.Module, shape: tuple[int, ...], path: Path) -> Path:
    """Writes ``model`` for inputs ``[batch, *shape]``."""
    program = torch.export.export(
        model.eval(), (torch.zeros(2, *shape),), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
    )
    torch.export.save(program, path)
    return path


def load(model: nn.Module, shape: tuple[int, ...], path: Path) -> fx.GraphModule:
    """``model`` after a round trip through a file."""
    return build_module(read_program(export(model, shape, path)))


def count_macs(module: nn.Module, shape: tuple[int, ...]) -> int:
    """What torch's own counter says for one input."""
    counter = flop_counter()
    with counter, torch.no_grad():
        module(torch.zeros(1, *shape))
    return counter.get_total_flops() // 2


def rewrite(path: Path, change: Callable[[dict[str, bytes]], None], compression: int = zipfile.ZIP_STORED) -> Path:
    """The archive with its members (by name below the root folder) changed by ``change``."""
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].partition("/")[0]
        members = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(members)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(f"{root}/{name}", data)
    changed = path.with_name("changed.pt2")
    changed.write_bytes(buffer.getvalue())
    return changed


def edit_json(member: str, change: Callable[[Any], None]) -> Callable[[dict[str, bytes]], None]:
    """A change for ``rewrite`` that edits one member as JSON."""

    def apply(members: dict[str, bytes]) -> None:
        data = json.loads(members[member])
        change(data)
        members[member] = json.dumps(data).encode()

    return apply
