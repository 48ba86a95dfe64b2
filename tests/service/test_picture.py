"""The picture of a network: every layer is there, and colours mean groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from service.cli import app
from service.cli.picture import draw
from tests.exporting import export
from tests.networks import CifarResNet, MobileNetV2
from workers.inspection import inspect_model

SVG = {"svg": "http://www.w3.org/2000/svg"}
NETWORKS = {"resnet20": lambda: CifarResNet(20), "mobilenetv2": MobileNetV2}


def parse(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)  # noqa: S314  (of our own making)


@pytest.fixture(scope="module", params=NETWORKS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return inspect_model(export(NETWORKS[request.param](), (3, 32, 32), tmp_path_factory.mktemp("net") / "model.pt2"))


def test_every_layer_is_a_box_in_order_and_colours_mean_groups(model: dict[str, Any]) -> None:
    picture = parse(draw(model, "net"))
    layers = picture.findall(".//svg:g[@class='layer']", SVG)
    assert [layer.get("data-layer") for layer in layers] == [layer["name"] for layer in model["layers"]]
    key = {g.get("data-group"): g.find("svg:rect", SVG).get("fill") for g in picture.findall(".//svg:g[@class='group']", SVG)}
    frozen = {group["name"] for group in model["groups"] if group["frozen_reason"]}
    assert set(key) == {group["name"] for group in model["groups"]}
    assert len({key[name] for name in key if name not in frozen}) == len(key) - len(frozen), "each group has its own colour"
    assert {key[name] for name in frozen} == {"#c9ccd1"}
    for layer, drawn in zip(model["layers"], layers, strict=True):
        shares = drawn.findall("svg:rect", SVG)
        assert {share.get("data-group"): share.get("fill") for share in shares} == {name: key[name] for name in layer["groups"]}


def test_boxes_are_as_wide_as_layers_have_channels(model: dict[str, Any]) -> None:
    widths = {
        layer.get("data-layer"): sum(float(share.get("width", 0)) for share in layer.findall("svg:rect", SVG))
        for layer in parse(draw(model, "net")).findall(".//svg:g[@class='layer']", SVG)
    }
    wide = {layer["name"]: layer["width"] for layer in model["layers"] if layer["width"] >= 16}
    (scale, *others) = [widths[name] / width for name, width in wide.items()]
    assert others == pytest.approx([scale] * len(others), rel=0.02)  # a tenth of a pixel


def test_names_are_text_not_markup() -> None:
    name = "<script>&\"'" + "x" * 80
    group = {"name": name, "width": 4, "divisor": 2, "layers": [name], "residual": True, "frozen_reason": "<b> & " * 30}
    layer = {"name": name, "type": "Conv2d", "width": 6, "groups": {name: 4}}
    model = {"macs": 1, "params": 1, "size_bytes": 4, "layers": [layer], "groups": [group]}
    picture = parse(draw(model, name))
    assert picture.find("svg:title", SVG).text == name
    assert picture.find(".//svg:g[@class='layer']", SVG).get("data-layer") == name
    assert [share.get("data-group") for share in picture.findall(".//svg:g[@class='layer']/svg:rect", SVG)] == [name, ""]
    assert not picture.findall(".//svg:script", SVG)
    assert len(parse(draw({**model, "layers": [], "groups": []}, "nothing"))) > 0


def test_inspect_writes_the_picture(tmp_path: Path) -> None:
    path = export(CifarResNet(8), (3, 16, 16), tmp_path / "net.pt2")
    shown = CliRunner().invoke(app, ["inspect", str(path), "--svg", str(tmp_path / "net.svg")], env={"COLUMNS": "80"})
    assert shown.exit_code == 0, shown.stderr
    assert "bytes of weights" in shown.stdout
    assert len(parse((tmp_path / "net.svg").read_text()).findall(".//svg:g[@class='layer']", SVG)) == 8
    shown = CliRunner().invoke(app, ["inspect", str(path), "--svg", str(tmp_path / "missing" / "net.svg")])
    assert shown.exit_code == 1
    assert shown.stderr.endswith("net.svg: No such file or directory.\n")
