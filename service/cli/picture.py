"""A network as a picture: its layers in order of execution, as wide as they have channels, coloured by group.

Plain SVG with nothing outside it. Layers of one colour lose channels together; one whose channels belong to several groups
shows each share. Channels in two groups that cross, heads and their widths, show both, one below the other. What is grey cannot
be pruned.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

Json = Mapping[str, Any]

_ROW = 18  # pixels from one line to the next
_FONT = 11  # pixels
_LETTER = 0.61 * _FONT  # how wide monospaced letters are in common fonts
_LONGEST_NAME = 44  # letters; of longer names the end is shown, which tells layers apart
_LONGEST_REASON = 60
_BAR = 360  # pixels for the widest layer
_THINNEST = 2  # pixels that a share takes at least, to be seen
_GAP, _MARGIN, _TOP = 10, 16, 56
_GREY, _INK, _FAINT = "#c9ccd1", "#1f2328", "#6a737d"
_GOLDEN_TURN = 0.381966  # of the colour wheel: neighbours in order get colours far apart, however many there are
# Lightness and saturation: tell apart hues that do come close, which those a Fibonacci number apart do, so there are five.
_SHADES = ((0.62, 0.55), (0.48, 0.70), (0.76, 0.60), (0.40, 0.45), (0.68, 0.85))


def draw(model: Json, title: str) -> str:
    """The SVG document.

    Args:
        model: as ``workers.inspection.inspect_model`` returns it.
        title: the network's name.
    """
    layers, groups = model["layers"], model["groups"]
    colours = _colours(groups)
    names = round(_LETTER * max((len(_shortened(layer["name"])) for layer in layers), default=0))
    bars = _MARGIN + names + _GAP
    legend = bars + _BAR + round(_LETTER * 28)  # where a layer's type and width end
    lines = [*_heading(model, title), *_layers(layers, colours, bars), *_legend(groups, colours, legend)]
    longest = max((sum(map(len, _legend_line(group))) for group in groups), default=0)
    width = legend + round(_LETTER * (longest + 5)) + _MARGIN
    height = _TOP + _ROW * (max(len(layers), len(groups)) + 2)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
            f'font-family="ui-monospace, Menlo, Consolas, \'DejaVu Sans Mono\', monospace" font-size="{_FONT}">',
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            *lines,
            "</svg>\n",
        ]
    )


def _colours(groups: Sequence[Json]) -> dict[str, str]:
    """By group, grey for the frozen ones."""
    colours: dict[str, str] = {}
    for group in groups:
        if group["frozen_reason"] is not None:
            colours[group["name"]] = _GREY
            continue
        number = len(colours)
        lightness, saturation = _SHADES[number % len(_SHADES)]
        red, green, blue = colorsys.hls_to_rgb(number * _GOLDEN_TURN % 1, lightness, saturation)
        colours[group["name"]] = f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
    return colours


def _heading(model: Json, title: str) -> list[str]:
    figures = f"{model['macs']:,} MACs for one input, {model['params']:,} parameters, {model['size_bytes']:,} bytes of weights"
    return [
        f"<title>{escape(title)}</title>",
        _text(_MARGIN, 24, title, size=15, weight="bold"),
        _text(_MARGIN, 42, figures, fill=_FAINT),
    ]


def _layers(layers: Sequence[Json], colours: Mapping[str, str], bars: int) -> list[str]:
    """A line per layer: name, box, type and width."""
    widest = max((layer["width"] for layer in layers), default=1)
    lines: list[str] = []
    for row, layer in enumerate(layers):
        top = _TOP + _ROW * row
        name, width = layer["name"], layer["width"]
        lines.append(f'<g class="layer" data-layer="{escape(name)}">')
        lines.append(f"<title>{escape(_described(layer))}</title>")
        lines.append(_text(bars - _GAP, top + 12, _shortened(name), anchor="end"))
        lanes = _lanes(layer)
        height = (_ROW - 4) / len(lanes)
        for lane, shares in enumerate(lanes):
            left = float(bars)
            for group, channels in shares.items():
                length = max(_THINNEST, _BAR * channels / widest)
                colour = colours.get(group, _GREY)
                lines.append(
                    f'<rect class="share" data-group="{escape(group)}" x="{left:.1f}" y="{top + 2 + lane * height:g}" '
                    f'width="{length:.1f}" height="{height:g}" rx="2" fill="{colour}"/>'
                )
                left += length
        lines.append(_text(left + 6, top + 12, f"{layer['type']} {width}", fill=_FAINT))
        lines.append("</g>")
    return lines


def _lanes(layer: Json) -> list[dict[str, int]]:
    """A layer's shares, so many lanes deep that none is longer than the layer is wide."""
    width: int = layer["width"]
    lanes: list[dict[str, int]] = [{}]
    for group, channels in layer["groups"].items():
        if sum(lanes[-1].values()) + channels > width:
            lanes.append({})
        lanes[-1][group] = channels
    if (rest := width - sum(lanes[-1].values())) > 0:
        lanes[-1][""] = rest  # channels that belong to no group, or to no second one
    return lanes


def _legend(groups: Sequence[Json], colours: Mapping[str, str], left: int) -> list[str]:
    lines = [_text(left, _TOP - 6, "groups: channels that go together", weight="bold")]
    for row, group in enumerate(groups):
        top = _TOP + _ROW * row
        lines.append(f'<g class="group" data-group="{escape(group["name"])}">')
        if group["frozen_reason"] is not None:
            lines.append(f"<title>{escape(group['frozen_reason'])}</title>")
        lines.append(f'<rect x="{left}" y="{top + 2}" width="14" height="{_ROW - 4}" rx="2" fill="{colours[group["name"]]}"/>')
        lines.append(_text(left + 20, top + 12, *_legend_line(group)))
        lines.append("</g>")
    return lines


def _legend_line(group: Json) -> tuple[str, str]:
    """A group's name and width, and what else there is to say."""
    step = f" by {group['divisor']}" if group["divisor"] > 1 else ""
    reason = group["frozen_reason"] or ""
    if len(reason) > _LONGEST_REASON:
        reason = reason[: _LONGEST_REASON - 1] + "…"
    notes = ["residual"] * group["residual"] + [reason] * bool(reason)
    return f"{_shortened(group['name'])}: {group['width']}{step}", ", ".join(notes)


def _described(layer: Json) -> str:
    shares = ", ".join(f"{channels} of group {group}" for group, channels in layer["groups"].items())
    return f"{layer['name']}: {layer['type']} with {layer['width']} channels" + (f", {shares}" if shares else "")


def _text(
    x: float,
    y: float,
    text: str,
    note: str = "",
    *,
    fill: str = _INK,
    anchor: str = "start",
    size: int = _FONT,
    weight: str = "",
) -> str:
    """A line of text, with a fainter note behind it."""
    bold = f' font-weight="{weight}"' if weight else ""
    behind = f'<tspan dx="{_GAP}" fill="{_FAINT}">{escape(note)}</tspan>' if note else ""
    style = f'fill="{fill}" text-anchor="{anchor}" font-size="{size}"{bold}'
    return f'<text x="{x:.0f}" y="{y}" {style}>{escape(text)}{behind}</text>'


def _shortened(name: str) -> str:
    """The end of a long name."""
    return name if len(name) <= _LONGEST_NAME else "…" + name[1 - _LONGEST_NAME :]
