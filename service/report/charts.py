"""Data to the geometry of a plot: what stands where in a box, which the template then draws as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 560, 300
"""Of the box of a plot, in the units of its SVG."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 12, 44  # margins, for the axes' numbers and names
_TICKS = 5  # about so many on an axis
_STEPS = (1, 2, 2.5, 5, 10)  # that people count in
_AIR = 0.04  # of the range, left free at both of its ends
_LOW_SHARE, _DEPTH = 0.1, 1.5  # the lowest tenth may take the y axis half as far down again as the others do
_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))

Point = tuple[float, float]


@dataclass(frozen=True)
class Tick:
    """A number on an axis, and where."""

    at: float
    label: str


@dataclass(frozen=True)
class Mark:
    """A point of a series: where it stands and what it says when pointed at."""

    x: float
    y: float
    title: str


@dataclass(frozen=True)
class Series:
    """Things of one kind in a plot, drawn as dots, a line, or both.

    Attributes:
        name: for the legend.
        style: a class of the style sheet.
        marks: dots.
        path: the line through them, as an SVG path; empty if there is none.
    """

    name: str
    style: str
    marks: list[Mark] = field(default_factory=list)
    path: str = ""


@dataclass(frozen=True)
class Chart:
    """A plot.

    Attributes:
        title: what it shows, in a sentence.
        x_label, y_label: of the axes.
        x_ticks, y_ticks: numbers on them.
        series: what is in it.
        rules: vertical lines with a label.
    """

    title: str
    x_label: str
    y_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    series: list[Series]
    rules: list[Tick]

    width, height = WIDTH, HEIGHT
    left, right, top, bottom = _LEFT, WIDTH - _RIGHT, _TOP, HEIGHT - _BOTTOM


@dataclass(frozen=True)
class Data:
    """A series as it is measured: ``points`` with their ``titles``; ``line`` joins them, in ``steps`` or straight."""

    name: str
    style: str
    points: Sequence[Point]
    titles: Sequence[str] = ()
    line: bool = False
    steps: bool = False
    dots: bool = True


def chart(
    title: str,
    x_label: str,
    y_label: str,
    data: Sequence[Data],
    rules: Sequence[tuple[float, str]] = (),
    depths: bool = False,
) -> Chart | None:
    """The plot of some series; ``None`` if there is no point in any.

    Args:
        title, x_label, y_label: see ``Chart``.
        data: the series, those behind first.
        rules: vertical lines, each a place on the x axis and a label.
        depths: whether the y axis goes down to the lowest points, be they few and far below; else they stand at its end.
    """
    points = [point for series in data for point in series.points]
    if not points:
        return None
    x = _Scale([*(x for x, _ in points), *(at for at, _ in rules)], Chart.left, Chart.right)
    heights = [y for _, y in points]
    y = _Scale(heights if depths else _without_depths(heights), Chart.bottom, Chart.top)
    drawn = [
        Series(
            series.name,
            series.style,
            [Mark(x(px), y(py), text) for (px, py), text in zip(series.points, series.titles, strict=True)]
            if series.dots
            else [],
            _path([(x(px), y(py)) for px, py in series.points], series.steps) if series.line else "",
        )
        for series in data
        if series.points
    ]
    return Chart(title, x_label, y_label, x.ticks(), y.ticks(), drawn, [Tick(x(at), label) for at, label in rules])


class _Scale:
    """From values to places between ``start`` and ``end``; what is lower than all values stands at ``start``."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        low, high = min(values), max(values)
        self._whole = all(float(value).is_integer() for value in values)
        air = _AIR * (high - low) or abs(high) / 2 or 1.0
        self._low, self._high, self._start, self._end = low - air, high + air, start, end

    def __call__(self, value: float) -> float:
        share = (value - self._low) / (self._high - self._low)
        return round(self._start + max(0.0, share) * (self._end - self._start), 1)

    def ticks(self) -> list[Tick]:
        rough = (self._high - self._low) / _TICKS
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(step * unit for step in _STEPS if step * unit >= rough)
        if self._whole:
            step = max(1.0, step)
        first, last = math.ceil(self._low / step), math.floor(self._high / step)
        return [Tick(self(number * step), short(number * step, step)) for number in range(first, last + 1)]


def _without_depths(values: Sequence[float]) -> list[float]:
    """The values but for a few that lie so low that the others could not be told apart beside them."""
    ordered = sorted(values)
    high, low = ordered[-1], ordered[int(_LOW_SHARE * len(ordered))]
    return [value for value in values if value >= high - _DEPTH * (high - low)] if high > low else list(values)


def short(value: float, step: float = 0.0) -> str:
    """A number in few letters, told apart from others that are ``step`` away: 1.5M, 40k, 0.25, −3."""
    for unit, prefix in _PREFIXES:
        if abs(value) >= unit:
            return f"{_decimal(value / unit, step / unit)}{prefix}"
    return _decimal(value, step)


def _decimal(value: float, step: float) -> str:
    digits = 2 if step == 0 else max(0, math.ceil(-math.log10(step) - 1e-9) + (0 if _round(step) else 1))
    text = f"{value:.{digits}f}"
    return (text.rstrip("0").rstrip(".") if step == 0 and "." in text else text).replace("-", "−")


def _round(step: float) -> bool:
    """Whether a step has a single digit that is not 0."""
    return math.isclose(lead := step / 10 ** math.floor(math.log10(step)), round(lead))


def _path(points: Sequence[Point], steps: bool) -> str:
    (x, y), *rest = points
    moves = [f"M{x} {y}"]
    for px, py in rest:
        moves.append(f"H{px}V{py}" if steps else f"L{px} {py}")
    return "".join(moves)
