"""Published experiments: what they remove is what was published, and what was measured is not measured again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.reproduce import lottery, vgg_l1, vgg_slim
from benchmarks.reproduce.experiment import Result, command_line, measured
from benchmarks.reproduce.images import Images
from benchmarks.reproduce.training import Recipe
from benchmarks.reproduce.vgg import VGG16, VGG19, Vgg, full_widths, macs, params, widths_of
from pruners import L1FilterPruner


def images(side: int) -> Images:
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(96, 3, side, side, generator=draw), torch.randint(10, (96,), generator=draw)
    return Images("noise", x[:80], y[:80], x[80:], y[80:], mirrored=True)


def test_vgg_16_loses_what_was_published() -> None:
    dense = Vgg(VGG16, full_widths(VGG16), 512)
    assert (params(dense), macs(dense)) == (14_987_722, 313_463_808)
    pruner = L1FilterPruner(dense, vgg_l1.CUT)
    pruner.compress()
    small = pruner.compact(torch.zeros(2, 3, 32, 32))
    assert (params(small), macs(small)) == (5_397_034, 206_279_680)
    pairs = enumerate(zip(full_widths(VGG16), widths_of(small), strict=True), 1)
    assert [number for number, (width, left) in pairs if width == 2 * left] == [1, *range(8, 14)]


def test_vgg_19_is_the_published_one_and_slim_takes_seven_channels_of_ten() -> None:
    whole = Vgg(VGG19, full_widths(VGG19), 0)
    assert (params(whole), macs(whole)) == (20_035_018, 398_136_320)
    network = vgg_slim.fresh(images(32), 0.125, 0)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight)
    slim = vgg_slim.cut_by_scales(network, images(32))
    assert sum(widths_of(slim)) == pytest.approx(0.3 * sum(widths_of(network)), abs=1)
    limit = macs(slim)
    shared = vgg_slim.same_share(widths_of(network), 3, limit)
    assert macs(Vgg(VGG19, shared, 0)) <= limit


def test_every_arm_of_an_experiment_is_trained() -> None:
    short = Recipe(1, 0.01)
    arms = {result["arm"]: result for result in vgg_l1.run(0, images(32), 0.0625, short, short)}
    assert list(arms) == ["dense", "L1", "random filters", "from random weights"]
    assert len({arms[arm]["macs"] for arm in list(arms)[1:]}) == 1, "controls cost as much"


def test_tickets_keep_what_each_round_leaves() -> None:
    results = lottery.run(0, images(4), held=16, steps=4, rounds=3)
    tickets = [result for result in results if result["arm"] == lottery.TICKET]
    sizes = [(48 * 300 + 300 * 100, lottery.TAKEN), (100 * 10, lottery.TAKEN_LAST)]
    for number, ticket in enumerate(tickets):
        left = sum(size * (1 - taken) ** number for size, taken in sizes) / sum(size for size, _ in sizes)
        assert ticket["left"] == pytest.approx(left, abs=1e-4)
    assert [(r["round"], r["left"]) for r in results if r["arm"] == lottery.CONTROL] == [(3, tickets[3]["left"])]


def test_a_seed_that_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    asked: list[int] = []

    def run(seed: int) -> list[Result]:
        asked.append(seed)
        return [{"arm": "dense", "accuracy": 0.5}]

    parser = command_line(None, "trial")
    for seeds, expected in ((["0", "1"], [0, 1]), (["0", "1", "2"], [0, 1, 2])):
        arguments = parser.parse_args(["--output", str(tmp_path / "results.jsonl"), "--seeds", *seeds])
        assert [result["seed"] for result in measured(arguments, {"width": 1}, run)] == expected
    assert asked == [0, 1, 2]
    measured(parser.parse_args(["--output", str(tmp_path / "results.jsonl"), "--seeds", "0"]), {"width": 2}, run)
    assert asked == [0, 1, 2, 0], "another setting is another experiment"
