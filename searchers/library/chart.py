"""Sensitivity curves as a picture: plain SVG with nothing outside it, a panel for each iteration, a line for each group."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from html import escape

_WIDTH, _HEIGHT = 420, 260  # pixels of a panel's axes
_LEFT, _TOP, _GAP = 64, 34, 60
_LINE = 15  # pixels from one line of the legend to the next
_LONGEST_NAME = 30  # letters; of longer names the end is shown, which tells layers apart
_INK, _FAINT = "#1f2328", "#8b949e"
_GOLDEN_TURN = 0.381966  # of the colour wheel: neighbours in order get colours far apart, however many there are

Curves = Mapping[str, Mapping[float, float]]
"""By group the evaluation by the share of it that was removed."""


def draw_curves(charts: Mapping[str, Curves], dense: Sequence[float | None]) -> str:
    """The SVG document.

    Args:
        charts: by title the curves of one panel.
        dense: per panel the evaluation with nothing removed, where every line begins.
    """
    names = list(dict.fromkeys(name for curves in charts.values() for name in curves))
    colours = {name: _colour(place) for place, name in enumerate(names)}
    panels: list[str] = []
    for place, ((title, curves), start) in enumerate(zip(charts.items(), dense, strict=True)):
        panels += _panel(title, curves, start, colours, _TOP + place * (_HEIGHT + _GAP))
    legend = _LEFT + _WIDTH + 24
    for place, name in enumerate(names):
        y = _TOP + 8 + place * _LINE
        shown = name if len(name) <= _LONGEST_NAME else "…" + name[1 - _LONGEST_NAME :]
        panels.append(f'<rect x="{legend}" y="{y - 8}" width="10" height="10" fill="{colours[name]}"/>')
        panels.append(f'<text x="{legend + 16}" y="{y}">{escape(shown)}</text>')
    width = legend + 16 + 8 * _LONGEST_NAME
    height = max(_TOP + len(charts) * (_HEIGHT + _GAP), _TOP + (len(names) + 1) * _LINE)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
    style = f'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="11" fill="{_INK}">'
    return "\n".join([head + style, f'<rect width="{width}" height="{height}" fill="#ffffff"/>', *panels, "</svg>\n"])


def _panel(title: str, curves: Curves, dense: float | None, colours: Mapping[str, str], top: int) -> list[str]:
    lines = {name: [*([] if dense is None else [(0.0, dense)]), *curve.items()] for name, curve in curves.items()}
    values = [value for line in lines.values() for _, value in line]
    low, high = min(values, default=0.0), max(values, default=1.0)
    span = high - low or 1.0

    def at(share: float, value: float) -> str:
        return f"{_LEFT + _WIDTH * share:.1f},{top + _HEIGHT * (high - value) / span:.1f}"

    drawn = [
        f'<polyline class="curve" data-group="{escape(name)}" points="{" ".join(at(*point) for point in line)}" '
        f'fill="none" stroke="{colours[name]}" stroke-width="1.5"/>'
        for name, line in lines.items()
    ]
    bottom = top + _HEIGHT
    frame = f'<rect x="{_LEFT}" y="{top}" width="{_WIDTH}" height="{_HEIGHT}" fill="none" stroke="{_FAINT}"/>'
    ticks = [
        f'<text x="{_LEFT + _WIDTH * share:.0f}" y="{bottom + 16}" text-anchor="middle" fill="{_FAINT}">{share:g}</text>'
        for share in (0, 0.25, 0.5, 0.75, 1)
    ]
    scale = [
        f'<text x="{_LEFT - 6}" y="{y}" text-anchor="end" fill="{_FAINT}">{value:.4g}</text>'
        for y, value in ((top + 8, high), (bottom, low))
    ]
    heading = f'<text x="{_LEFT}" y="{top - 10}" font-weight="bold">{escape(title)}: evaluation by share removed</text>'
    return [heading, frame, *ticks, *scale, *drawn]


def _colour(place: int) -> str:
    red, green, blue = colorsys.hls_to_rgb(place * _GOLDEN_TURN % 1, 0.45, 0.65)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
