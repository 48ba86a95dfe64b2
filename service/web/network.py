"""The network as a drawing: its layers in order of execution, as high as they have channels, coloured by what is removed.

Lines below join the layers that lose channels together: residual streams, and whatever else is coupled. The drawing is cut into
parts that are no wider than a telephone: side by side where there is room, and below each other where there is none.
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
_PART = 312  # units that a part is wide, at most
_TOP, _HIGHEST, _LOWEST = 8, 150, 4
_NAME, _LETTER = 20, 6.8  # letters of a name that are shown, its end, which tells layers apart; units of one
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
class Part:
    """Layers that follow each other, with the lines that join them to others (SVG paths), and the box in which they stand."""

    columns: list[Column]
    joins: list[str]
    x: int
    y: float
    width: int
    height: float


@dataclass(frozen=True)
class Drawing:
    """The parts from left to right, where names begin, and how wide a column is."""

    parts: list[Part]
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
        x, y = pitch * place + (1 - _BAR) * pitch / 2, _TOP + _HIGHEST - height
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
    bottom, most = round(names_at + _LETTER * longest + 4), _PART // pitch
    parts = []
    for first in range(0, len(columns), most):
        shown = columns[first : first + most]
        left, right, top = pitch * first, pitch * (first + len(shown)), min(column.y for column in shown) - _TOP
        joins = [
            f"M{a:.1f} {base}Q{(a + b) / 2:.1f} {base + _depth(a, b):.1f} {b:.1f} {base}"
            for a, b in spans
            if a < right and b > left
        ]
        parts.append(Part(shown, joins, left, top, right - left, bottom - top))
    return Drawing(parts, names_at, _BAR * pitch)


def _depth(start: float, end: float) -> float:
    """Of the line between two places."""
    return min(72.0, 12 + 0.35 * (end - start))
