"""Linear: the same number of weights or channels at every move, the simplest schedule and the control for AGP."""

from __future__ import annotations

from fractions import Fraction

from pruners.schedules.gradual import GradualPruner


class LinearPruner(GradualPruner):
    """Sparsity moves as ``s_t = s_i + (s_f − s_i) · i/n``, ``i`` moves out of ``n``; see ``GradualPruner``."""

    def curve(self, way: Fraction) -> Fraction:
        return way
