"""AGP, automated gradual pruning: fast while there is much to prune, slower and slower towards the end.

Zhu and Gupta, To Prune, or Not to Prune: Exploring the Efficacy of Pruning for Model Compression, arXiv 1710.01878.
"""

from __future__ import annotations

from fractions import Fraction

from pruners.schedules.gradual import GradualPruner


class AGPPruner(GradualPruner):
    """Sparsity moves as ``s_t = s_f + (s_i − s_f) · (1 − (t − t₀) / (n·Δt))³``; see ``GradualPruner``."""

    def curve(self, way: Fraction) -> Fraction:
        return 1 - (1 - way) ** 3
