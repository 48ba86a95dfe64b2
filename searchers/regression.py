"""Bayesian regression of what plans lose on what a table says of their groups: how far damages add up, and whose are wrong.

Rasmussen and Williams, Gaussian Processes for Machine Learning, MIT Press 2006, chapter 2.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from searchers.curves import Floats

_VAGUE = 100.0  # variance, in squares of the losses' spread, of what nothing is known of: the level and the common factor
_AMPLITUDES = (0.01, 0.03, 0.1, 0.3, 1.0)  # the likeliest of these variances of what the table does not tell, …
_NOISES = (1e-4, 1e-3, 1e-2, 0.1, 0.5)  # … and of these of what no plan's widths tell, is taken
_OUTLIER = 10.0  # spreads; a network that was destroyed says no more than that
_JITTER = 1e-8  # of the mean variance: keeps the factorisation stable where plans are nearly alike
_DIGITS = 5  # of a spread: coarser than what differs between machines' linear algebra, so that a replay takes the same turns


class Regression:
    """The loss of a plan as level + factor·Σ d_g + corrections, where d_g is the table's damage of group g.

    The corrections are a Gaussian process: d_g off by a factor of its own in every group, and pairs of groups that hurt more
    or less together, √(d_g·d_h). (Were the outputs' changes independent, damages would add up; pairs are where they do not.)

    Args:
        damages: ``[plans, groups]``, at least 0, in units that make the sum over groups about 1.
        losses: ``[plans]``, lower is better, on any scale.
        settings: amplitude and noise; by default the likeliest.
    """

    def __init__(self, damages: Floats, losses: Floats, settings: tuple[float, float] | None = None) -> None:
        self._damages, self._losses = damages, losses
        self._level = float(np.median(losses))
        self._spread = 1.5 * float(np.median(np.abs(losses - self._level))) or float(np.std(losses)) or 1.0
        self._standard = np.clip((losses - self._level) / self._spread, -_OUTLIER, _OUTLIER)
        self._settings = settings or max(product(_AMPLITUDES, _NOISES), key=lambda choice: self._fit(*choice))
        self._fit(*self._settings)

    def predict(self, damages: Floats) -> tuple[Floats, Floats]:
        """Means and standard deviations ``[plans]`` of the losses of plans with these damages ``[plans, groups]``."""
        cross = self._kernel(damages, self._damages)
        explained = (np.linalg.solve(self._factor, cross.T) ** 2).sum(0)
        total = damages.sum(1)
        prior = self._covariance(total * total, total, (damages**2).sum(1))
        deviations = np.sqrt(np.maximum(prior - explained, 0.0))
        means = np.round(cross @ self._weights, _DIGITS)
        return self._level + self._spread * means, self._spread * np.round(deviations, _DIGITS)

    def believing(self, damages: Floats) -> Regression:
        """As if plans ``[plans, groups]`` had been tried and had lost what is expected of them: less is unknown near them."""
        expected, _ = self.predict(damages)
        known = np.concatenate([self._damages, damages]), np.concatenate([self._losses, expected])
        return Regression(*known, self._settings)

    def _fit(self, amplitude: float, noise: float) -> float:
        """Conditions on the plans; returns the logarithm of their likelihood but for a constant."""
        self._amplitude = amplitude
        kernel = self._kernel(self._damages, self._damages)
        kernel += (noise + _JITTER * float(np.mean(np.diag(kernel)))) * np.eye(len(kernel))
        self._factor = np.linalg.cholesky(kernel)
        self._weights = np.linalg.solve(self._factor.T, np.linalg.solve(self._factor, self._standard))
        likelihood = -0.5 * self._standard @ self._weights - np.log(np.diag(self._factor)).sum()
        return round(float(likelihood), _DIGITS)

    def _kernel(self, one: Floats, other: Floats) -> Floats:
        return self._covariance(np.outer(one.sum(1), other.sum(1)), np.sqrt(one) @ np.sqrt(other).T, one @ other.T)

    def _covariance(self, sums: Floats, roots: Floats, squares: Floats) -> Floats:
        """From Σd·Σd', Σ√(d·d') and Σd·d' of each two plans."""
        groups = self._damages.shape[1]
        covariance: Floats = _VAGUE * (1 + sums) + self._amplitude * (roots + roots**2 + groups * squares)
        return covariance
