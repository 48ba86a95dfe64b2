"""What the experiments share: a command line, results that are kept as they come, a table, and a plot.

A result is one trained network: ``setting`` (all that decides it but the seed), ``seed``, ``arm`` (what was done), ``accuracy``
on the test images and what it costs. A seed that is in the file with the same setting is not done again.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.report import keep, kept
from benchmarks.reproduce.images import Images, load_images

Result = dict[str, Any]

_SMALL_WIDTH, _SMALL_IMAGES = 0.25, 30_000


def command_line(description: str | None, name: str) -> argparse.ArgumentParser:
    """The arguments that all experiments have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="an .npz or a folder of images; see benchmarks/reproduce/images.py")
    parser.add_argument("--small", action="store_true", help="a setting of some 20 minutes on two cores, not the paper's")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    results = Path(f"benchmarks/results/reproduce-{name}.jsonl")
    parser.add_argument("--output", type=Path, default=results, help="where results are kept, a line each")
    parser.add_argument("--plot", type=Path, default=Path(f"docs/reproduce-{name}.svg"), help="what to draw, .svg or .png")
    return parser


def vgg_command_line(description: str | None, name: str) -> argparse.ArgumentParser:
    """The arguments that the experiments on VGG have; see ``vgg_setting``."""
    parser = command_line(description, name)
    parser.add_argument("--width", type=float, help=f"share of the channels; 1, or {_SMALL_WIDTH} with --small")
    parser.add_argument("--images", type=int, help=f"of the training images; all, or {_SMALL_IMAGES:,} with --small")
    return parser


def vgg_setting(arguments: argparse.Namespace) -> tuple[float, Images]:
    """The share of VGG's channels and the images, 32×32, that ``vgg_command_line`` was asked for."""
    share = arguments.width or (_SMALL_WIDTH if arguments.small else 1.0)
    return share, load_images(arguments.data).at_32().some(arguments.images or (_SMALL_IMAGES if arguments.small else None))


def measured(arguments: argparse.Namespace, setting: dict[str, Any], run: Callable[[int], Sequence[Result]]) -> list[Result]:
    """The results of this setting, by seed, after doing the seeds that are missing.

    Args:
        arguments: of ``command_line``.
        setting: what decides the results.
        run: does all arms of one seed.
    """
    torch.set_num_threads(arguments.threads)
    setting = json.loads(json.dumps(setting))  # as the file has it
    for seed in arguments.seeds:
        if any(result["setting"] == setting and result["seed"] == seed for result in kept(arguments.output)):
            continue
        for result in run(seed):
            keep({"setting": setting, "seed": seed, **result}, arguments.output)
    return [result for result in kept(arguments.output) if result["setting"] == setting]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean, least and most, in percent."""
    mean, least, most = (f"{100 * value:.{digits}f}" for value in (statistics.mean(values), min(values), max(values)))
    return mean if least == most else f"{mean} ({least} … {most})"


def by_arm(results: Sequence[Result]) -> dict[str, list[Result]]:
    """The results of each arm, arms in the order in which they were done."""
    arms: dict[str, list[Result]] = {}
    for result in results:
        arms.setdefault(result["arm"], []).append(result)
    return arms


def show(title: str, results: Sequence[Result], published: dict[str, str]) -> None:
    """Prints what came of each arm beside what was published of it.

    Args:
        title: of the table.
        results: of networks that were cut and trained; the first arm is the dense one.
        published: by arm the error and what was removed, in the paper's words.
    """
    arms = by_arm(results)
    dense = next(iter(arms.values()))[0]
    table = Table("network", "test error, %", "as cut, %", "parameters gone, %", "MACs gone, %", "published", title=title)
    for arm, own in arms.items():
        cut = [1 - result["as_cut"] for result in own if result["as_cut"] is not None]
        gone = [spread([1 - result[cost] / dense[cost] for result in own], 1) for cost in ("params", "macs")]
        error = spread([1 - result["accuracy"] for result in own])
        table.add_row(arm, error, spread(cut) if cut else "", *gone, published.get(arm, ""))
    Console(width=160).print(table)


def draw_errors(title: str, results: Sequence[Result], path: Path) -> None:
    """A point for every network by seed, and a bar for the mean of each arm."""
    from matplotlib import pyplot

    arms = by_arm(results)
    figure, place = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
    for index, own in enumerate(arms.values()):
        errors = [100 * (1 - result["accuracy"]) for result in own]
        place.bar(index, statistics.mean(errors), color="0.85")
        place.plot([index] * len(errors), errors, "o", color="C0", alpha=0.7)
    place.set_xticks(range(len(arms)), [arm.replace(", ", ",\n") for arm in arms], fontsize=8)
    place.set(title=title, ylabel="test error, %")
    figure.savefig(path)
