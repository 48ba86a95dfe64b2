"""The network as a drawing: its layers in order of execution, as high as they have channels, coloured by what is removed.

Lines below join the layers that lose channels together: residual streams, and whatever else is coupled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from service.database.tables import Model
from service.jobs.layers import LayerWidth

_NARROWEST, _BROADEST, _ROOM = 22, 40, 700  # units from one layer to the next, at least and at most, and for all if they fit
_BAR = 0.62  # of that: a layer's column
_MARGIN, _TOP, _HIGHEST, _LOWEST = 12, 8, 150, 4
_NAME, _LETTER = 20, 6.3  # letters of a name that are shown, its end, which tells layers apart; units of one
STEPS = 10  # of colour


@dataclass(frozen=True)
class Column:
    """A layer.

    Attributes:
        name, kind: its own.
        dense, kept: its channels; in jobs of single weights, its weights.
        shade: how much is removed, 0…``STEPS``; ``None``: the search leaves it as it is.
        x, y, height: of all of its channels.
        left: height of those that stay, from below.
        middle: of the column, from the left.
    """

    name: str
    kind: str
    dense: int
    kept: int
    shade: int | None
    x: float
    y: float
    height: float
    left: float
    middle: float

    @property
    def label(self) -> str:
        """Its name, shortened."""
        return self.name if len(self.name) <= _NAME else f"…{self.name[1 - _NAME :]}"


@dataclass(frozen=True)
class Drawing:
    """The columns, the lines that join them (SVG paths), and where things stand."""

    columns: list[Column]
    joins: list[str]
    width: int
    height: int
    names_at: float
    bar: float


def drawing(model: Model, layers: Sequence[LayerWidth]) -> Drawing:
    """What a plan leaves of a network.

    Args:
        model: with its inspection, which lists the layers in order.
        layers: those that the plan is about.
    """
    planned = {layer.name: layer for layer in layers}
    found = model.inspection["layers"]
    widest = max((layer["width"] for layer in found), default=1)
    columns, pitch = [], min(_BROADEST, max(_NARROWEST, _ROOM // max(1, len(found))))
    for place, layer in enumerate(found):
        width, plan = layer["width"], planned.get(layer["name"])
        height = max(_LOWEST, _HIGHEST * width / widest)
        dense, kept = (width, width) if plan is None else (plan.dense, plan.kept)
        shade = None if plan is None else round(STEPS * (1 - plan.share))
        x, y = float(_MARGIN + pitch * place), _TOP + _HIGHEST - height
        left, middle = height * kept / dense, x + _BAR * pitch / 2
        columns.append(Column(layer["name"], layer["type"], dense, kept, shade, x, y, height, left, middle))
    members: dict[str, list[float]] = defaultdict(list)
    for layer, column in zip(found, columns, strict=True):
        for group in layer["groups"]:
            members[group].append(column.middle)
    spans = [span for middles in members.values() for span in pairwise(middles)]
    base, deepest = _TOP + _HIGHEST + 3, max((_depth(*span) for span in spans), default=0.0)
    names_at = base + deepest / 2 + 8  # a quadratic curve goes down half as far as its middle point
    longest = max((len(column.label) for column in columns), default=0)
    joins = [f"M{a} {base}Q{(a + b) / 2} {base + _depth(a, b)} {b} {base}" for a, b in spans]
    width, height_ = 2 * _MARGIN + pitch * len(columns), round(names_at + _LETTER * longest + 4)
    return Drawing(columns, joins, width, height_, names_at, _BAR * pitch)


def _depth(start: float, end: float) -> float:
    """Of the line between two places."""
    return min(72.0, 12 + 0.35 * (end - start))
