"""Real images small enough for tests: scikit-learn's handwritten digits, and a network that has learnt them."""

from __future__ import annotations

from pathlib import Path

from service.demo.digits import make_data, train_network
from tests.exporting import export


def digits(folder: Path) -> tuple[Path, Path]:
    """Writes ``model.pt2`` and ``data.npz``; training takes seconds."""
    data = make_data(folder / "data.npz")
    return export(train_network(data, epochs=3), (1, 8, 8), folder / "model.pt2"), folder / "data.npz"
