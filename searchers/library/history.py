"""What a search in this process leaves behind: every trial as CSV and JSON, sensitivity curves, the best plan and its masks."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pruners.errors import InvalidInput
from pruners.masking import Masks
from searchers.library.chart import draw_curves
from searchers.library.network import Network
from searchers.space import Widths


@dataclass(frozen=True)
class Trial:
    """A plan and what the evaluator said of it; ``note`` is why the search tried it."""

    note: str
    widths: Widths
    performance: float


class History:
    """The trials of a search, on disk after every one of them.

    Args:
        network: what the plans are of.
        folder: where to write, made if need be; ``None`` writes nothing.

    Attributes:
        trials: in the order in which they were tried.
    """

    def __init__(self, network: Network, folder: Path | None) -> None:
        self._network = network
        self._folder = folder
        self.trials: list[Trial] = []
        self._rows: list[dict[str, Any]] = []
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def add(self, trial: Trial) -> None:
        """Takes note of a trial."""
        self.trials.append(trial)
        if self._folder is None:
            return
        row = self._row(trial)
        self._rows.append(row)
        _replace(self._folder / "search_history.json", json.dumps(self._rows, indent=1))
        first = len(self._rows) == 1
        with (self._folder / "search_history.csv").open("w" if first else "a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if first:
                writer.writeheader()
            writer.writerow({**row, "sparsity": json.dumps(row["sparsity"])})

    def performance(self, widths: Widths) -> float:
        """What the evaluator said of a plan when it was tried last."""
        return next(trial.performance for trial in reversed(self.trials) if trial.widths == widths)

    def finish(self, widths: Widths, performance: float, limit: int, masks: Masks) -> None:
        """Takes note of what the search found: the plan, how it does, the cost that was allowed, and the masks."""
        if self._folder is None:
            return
        sparsity = self._network.sparsity(widths)
        result = {
            "performance": performance,
            "config_list": [{"sparsity": share, "op_names": [layer]} for layer, share in sparsity.items() if share],
            "metric": self._network.metric,
            "dense": self._network.cost(self._network.dense),
            "limit": limit,
            "cost": self._network.cost(widths),
        }
        _replace(self._folder / "search_result.json", json.dumps(result, indent=1))
        on_cpu = {name: {part: mask if mask is None else mask.cpu() for part, mask in m.items()} for name, m in masks.items()}
        torch.save(on_cpu, self._folder / "best_masks.pth")

    def _row(self, trial: Trial) -> dict[str, Any]:
        return {
            "trial": len(self._rows),
            "performance": trial.performance,
            "cost": self._network.cost(trial.widths),
            "note": trial.note,
            "sparsity": self._network.sparsity(trial.widths),
        }


def _replace(path: Path, text: str) -> None:
    """Writes a file that is whole at any moment."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text)
    part.replace(path)


class SensitivityRecord:
    """What cutting each group alone does to the evaluation, in every iteration: as JSON, CSV and a picture.

    Args:
        network: what the groups are of.
        folder: where to write; ``None`` writes nothing.
    """

    def __init__(self, network: Network, folder: Path | None) -> None:
        self._network = network
        self._folder = folder
        self._iterations: list[dict[str, Any]] = []

    @property
    def first(self) -> dict[str, dict[float, float]]:
        """By group, of the first iteration, the evaluation by the share of the group that was removed."""
        return {} if not self._iterations else shares(self._iterations[0])

    def add(self, widths: Widths, tried: Mapping[Widths, float]) -> None:
        """Takes the analysis of an iteration out of all of its trials: those that cut one group alone.

        Args:
            widths: those that the iteration began with.
            tried: by plan what the evaluator said of it.
        """
        names = self._network.names
        curves: dict[str, dict[int, float]] = {}
        for plan, performance in tried.items():
            cut = [group for group, (new, old) in enumerate(zip(plan, widths, strict=True)) if new != old]
            if len(cut) == 1:
                curves.setdefault(names[cut[0]], {})[plan[cut[0]]] = performance
        started = {"widths": dict(zip(names, widths, strict=True)), "performance": tried.get(widths)}
        self._iterations.append({**started, "curves": curves})
        if self._folder is not None:
            self._write(self._folder)

    def _write(self, folder: Path) -> None:
        _replace(folder / "sensitivity.json", json.dumps(self._iterations, indent=1))
        with (folder / "sensitivity.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["iteration", "group", "width", "sparsity", "performance"])
            for number, iteration in enumerate(self._iterations, 1):
                for group, curve in iteration["curves"].items():
                    dense = iteration["widths"][group]
                    writer.writerows([number, group, width, 1 - width / dense, value] for width, value in curve.items())
        charts = {f"iteration {number}": shares(iteration) for number, iteration in enumerate(self._iterations, 1)}
        _replace(folder / "sensitivity.svg", draw_curves(charts, [iteration["performance"] for iteration in self._iterations]))


def shares(iteration: Mapping[str, Any]) -> dict[str, dict[float, float]]:
    """The curves of an iteration by the share of a group that was removed, ascending."""
    widths: Mapping[str, int] = iteration["widths"]
    return {
        group: {1 - width / widths[group]: curve[width] for width in sorted(curve, reverse=True)}
        for group, curve in iteration["curves"].items()
    }


def read_probes(path: Path, network: Network) -> list[tuple[Widths, float]]:
    """The plans of the first analysis in a ``sensitivity.json``, with their evaluations.

    Raises:
        InvalidInput: no such file, or one of another network.
    """
    field = "resume_sensitivity"
    try:
        iteration = json.loads(path.read_text())[0]
        widths, curves = iteration["widths"], iteration["curves"]
        probes = [(group, int(width), float(value)) for group, curve in curves.items() for width, value in curve.items()]
        performance = iteration["performance"]
    except FileNotFoundError as error:
        raise InvalidInput(field, str(path), "does not exist; give a sensitivity.json that an earlier search wrote") from error
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise InvalidInput(field, str(path), "is no sensitivity.json that an earlier search wrote") from error
    if widths != dict(zip(network.names, network.dense, strict=True)):
        raise InvalidInput(field, str(path), "is of another network or of other layers; analyse this one anew")
    places = {name: place for place, name in enumerate(network.names)}
    dense = network.dense
    found = [((*dense[: places[g]], width, *dense[places[g] + 1 :]), value) for g, width, value in probes]
    return found if performance is None else [(dense, float(performance)), *found]
