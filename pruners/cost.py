"""What a network costs as a function of its group widths: arithmetic, no network is built.

Every layer's input and output widths are linear in the group widths, so a layer's cost is

    c · (A·m + a) · (B·m + b)        with m = widths / divisors

and the network's is the sum over layers. All numbers are integers and the sum is exact: it equals the count taken on
the network that ``pruners.graph.shrink`` builds, to the last MAC and parameter.

MACs are multiply-accumulates of convolutions and linear layers for one input (batch 1): half of what
``torch.utils.flop_counter.FlopCounterMode`` counts. Parameters are the elements of ``model.parameters()``; tied ones
count once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

METRICS = ("macs", "params")
"""What a budget may be stated in."""


@dataclass(frozen=True)
class Linear:
    """``constant + Σ per_group[g] · m[g]``: a layer's width by the number of channel classes kept per group."""

    constant: int
    per_group: dict[int, int]


ONE = Linear(1, {})


@dataclass(frozen=True)
class Term:
    """One product ``coefficient · first · second`` of a cost."""

    coefficient: int
    first: Linear
    second: Linear = ONE


class Polynomial:
    """A sum of terms over ``groups`` variables, evaluated exactly in int64 for one or many points at once."""

    def __init__(self, terms: Sequence[Term], groups: int) -> None:
        self._coefficients = np.array([term.coefficient for term in terms], dtype=np.int64)
        self._first, self._first_constant = _matrix([term.first for term in terms], groups)
        self._second, self._second_constant = _matrix([term.second for term in terms], groups)

    def __call__(self, classes: Integers) -> Integers:
        """Values ``[...]`` at ``classes`` ``[..., groups]``."""
        first = classes @ self._first.T + self._first_constant
        second = classes @ self._second.T + self._second_constant
        value: Integers = (first * second) @ self._coefficients
        return value

    def to_json(self) -> list[list[Any]]:
        """Rows ``[coefficient, constant, {group: factor}, constant, {group: factor}]``."""
        return [
            [int(c), int(a0), _sparse(a), int(b0), _sparse(b)]
            for c, a0, a, b0, b in zip(
                self._coefficients, self._first_constant, self._first, self._second_constant, self._second, strict=True
            )
        ]

    @classmethod
    def from_json(cls, rows: list[list[Any]], groups: int) -> Polynomial:
        """The inverse of ``to_json``."""
        terms = [
            Term(c, Linear(a0, {int(g): f for g, f in a.items()}), Linear(b0, {int(g): f for g, f in b.items()}))
            for c, a0, a, b0, b in rows
        ]
        return cls(terms, groups)


class CostModel:
    """MACs and parameters of any widths.

    Args:
        divisors: per group, how many channels go together (1 for most; see ``pruners.graph.groups.Group.divisor``).
        metrics: a polynomial over the numbers of kept classes (``width / divisor``) for each of ``METRICS``.
    """

    def __init__(self, divisors: Sequence[int], metrics: dict[str, Polynomial]) -> None:
        self._divisors = np.array(divisors, dtype=np.int64)
        self._metrics = metrics

    def __call__(self, metric: str, widths: Sequence[int] | Integers) -> int:
        """The cost of one width vector ``[groups]``, in channels."""
        return int(self.batch(metric, np.asarray(widths, dtype=np.int64)))

    def batch(self, metric: str, widths: Integers) -> Integers:
        """The costs ``[...]`` of many width vectors ``[..., groups]``."""
        return self._metrics[metric](widths // self._divisors)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form that ``from_json`` reads back."""
        return {
            "divisors": self._divisors.tolist(),
            "metrics": {name: polynomial.to_json() for name, polynomial in self._metrics.items()},
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> CostModel:
        """The inverse of ``to_json``."""
        groups = len(data["divisors"])
        metrics = {name: Polynomial.from_json(rows, groups) for name, rows in data["metrics"].items()}
        return cls(data["divisors"], metrics)


def _matrix(forms: Sequence[Linear], groups: int) -> tuple[Integers, Integers]:
    factors = np.zeros((len(forms), groups), dtype=np.int64)
    for row, form in enumerate(forms):
        for group, factor in form.per_group.items():
            factors[row, group] = factor
    return factors, np.array([form.constant for form in forms], dtype=np.int64)


def _sparse(row: Integers) -> dict[str, int]:
    return {str(group): int(row[group]) for group in np.flatnonzero(row)}
