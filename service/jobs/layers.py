"""What a trial leaves of each layer, as the report and the page show it."""

from __future__ import annotations

from dataclasses import dataclass

from service.database.tables import Trial


@dataclass(frozen=True)
class LayerWidth:
    """A layer before and after."""

    name: str
    dense: int
    kept: int

    @property
    def share(self) -> float:
        """Kept, 0…1."""
        return self.kept / self.dense


def layer_widths(trial: Trial) -> list[LayerWidth]:
    """Each layer that its plan is about."""
    kept, removed = trial.plan["widths"], trial.plan["sparsity"]
    return [LayerWidth(name, round(kept[name] / (1 - removed[name])), kept[name]) for name in kept]
