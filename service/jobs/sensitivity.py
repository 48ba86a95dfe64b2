"""What cutting one group of channels alone costs, from the trials that did just that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from service.database.tables import Model
from workers.weights import weight_groups


class Cut(Protocol):
    """A trial that succeeded, or its row of these columns."""

    number: Any
    widths: Any
    score: Any
    parent: Any
    training: Any


@dataclass(frozen=True)
class Curve:
    """A group's.

    Attributes:
        name: the group's.
        points: percent of its channels that are removed, the score, and the trial's number; by rising percent.
    """

    name: str
    points: list[tuple[float, float, int]]


def searched_groups(model: Model, sparsity: bool) -> Sequence[dict[str, Any]]:
    """What ``Trial.widths`` has a number for each of: the groups that are not frozen, in jobs of ``sparsity`` the layers."""
    if sparsity:
        return weight_groups(model.inspection["layers"])
    return [group for group in model.inspection["groups"] if group["frozen_reason"] is None]


def curves(trials: Iterable[Cut], groups: Sequence[dict[str, Any]]) -> list[Curve]:
    """Those of at least two points, the groups that lose the most first."""
    dense = [group["width"] for group in groups]
    found: dict[int, list[tuple[float, float, int]]] = {}
    for trial in trials:
        if trial.parent is not None or trial.training is not None or len(trial.widths) != len(dense):
            continue
        cut = [place for place, (kept, all_) in enumerate(zip(trial.widths, dense, strict=True)) if kept < all_]
        if len(cut) == 1:
            (place,) = cut
            removed = 100 * (1 - trial.widths[place] / dense[place])
            found.setdefault(place, []).append((removed, trial.score or 0.0, trial.number))
    several = [Curve(groups[place]["name"], sorted(points)) for place, points in found.items() if len(points) > 1]
    return sorted(several, key=lambda curve: curve.points[-1][1])
