"""What a network costs as a function of its group widths: arithmetic, no network is built.

Every layer's input and output widths are linear in the group widths, so a layer's cost is

    c · (A·m + a) · (B·m + b)        with m = widths / divisors

and the network's is the sum over layers: one quadratic form ``m·Q·m + l·m + constant``, in which the number of layers no
longer matters. Attention alone has widths that are products, heads × the width of a head, so that its layers add a few
products of three or four variables. All numbers are integers and the sum is exact: it equals the count taken on the network
that ``pruners.graph.shrink`` builds, to the last MAC, parameter and byte.

    macs              multiply-accumulates of convolutions, linear layers and matrix products: half of what
                      ``torch.utils.flop_counter`` counts
    params            elements of ``model.parameters()``, tied ones once
    size_bytes        weights and buffers in their dtypes, tied ones once: an exported file without what its container adds
    activation_bytes  outputs of all convolutions and linear layers added up: what a forward pass writes

MACs and activations are those of one input (batch 1).
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

ENGINE = 3
"""Version of what tracing and costs say of a network: raised when either changes, so that what was stored is seen as stale."""

METRICS = ("macs", "params", "size_bytes")
"""The costs of a network's widths that a budget may be stated in."""

LATENCY = "latency_ns"
"""Whole nanoseconds of a forward pass, as a ``pruners.latency_table.LatencyTable`` foretells them on the device it measured."""

NANOSECONDS = 10**6
"""In a millisecond, in which people state latencies."""

SPARSITY = "sparsity"
"""The budget of those who zero single weights: the share of weights that are zero; as a cost, how many are not."""


@dataclass(frozen=True)
class Linear:
    """``constant + Σ per_group[g] · m[g]``: a layer's width by the number of channel classes kept per group."""

    constant: int
    per_group: dict[int, int]

    def __call__(self, classes: Integers) -> int:
        """Its value at ``classes`` ``[groups]``."""
        return self.constant + sum(factor * int(classes[group]) for group, factor in self.per_group.items())


ONE = Linear(1, {})

_EXACT = 2**53  # float64 holds every integer up to here


class Term:
    """One product ``coefficient · Π factors`` of a cost."""

    def __init__(self, coefficient: int, *factors: Linear) -> None:
        self.coefficient = coefficient
        self.factors = factors

    def __call__(self, classes: Integers) -> int:
        """Its value at ``classes`` ``[groups]``."""
        return self.coefficient * math.prod(factor(classes) for factor in self.factors)


class Polynomial:
    """A sum of terms over ``groups`` variables, evaluated exactly in int64 for one or many points at once.

    Products of up to two variables are a matrix. Each longer one is a row of variables, filled up with number ``groups``: a
    variable that is always 1.
    """

    def __init__(self, terms: Sequence[Term], groups: int) -> None:
        short = [term for term in terms if len(term.factors) <= 2]
        expanded = _expanded([term for term in terms if len(term.factors) > 2])
        short += [Term(coefficient, *map(_one, group)) for group, coefficient in expanded.items() if len(group) <= 2]
        coefficients = np.array([term.coefficient for term in short], dtype=np.int64)
        first, first_constant = _matrix([(*term.factors, ONE, ONE)[0] for term in short], groups)
        second, second_constant = _matrix([(*term.factors, ONE, ONE)[1] for term in short], groups)
        products = _product((coefficients[:, None] * first).T, second)
        # m[g]·m[h] and m[h]·m[g] are one product: all of them go to h ≥ g.
        self._products: Integers = np.triu(products) + np.tril(products, -1).T
        self._linear: Integers = (coefficients * second_constant) @ first + (coefficients * first_constant) @ second
        self._constant = int((coefficients * first_constant) @ second_constant)
        long = {group: coefficient for group, coefficient in expanded.items() if len(group) > 2 and coefficient}
        degree = max(map(len, long), default=0)
        rows = [[*group, *[groups] * (degree - len(group))] for group in long]
        self._long: Integers = np.array(rows, dtype=np.int64).reshape(len(long), degree)
        self._long_coefficients: Integers = np.array(list(long.values()), dtype=np.int64)

    def __floordiv__(self, divisor: int) -> Polynomial:
        """This sum with every coefficient divided by one number, rounded down."""
        other = copy.copy(self)
        other._products, other._linear = self._products // divisor, self._linear // divisor
        other._constant, other._long_coefficients = self._constant // divisor, self._long_coefficients // divisor
        return other

    def __add__(self, constant: int) -> Polynomial:
        """This sum and a constant."""
        other = copy.copy(self)
        other._constant = self._constant + constant
        return other

    def __call__(self, classes: Integers) -> Integers:
        """Values ``[...]`` at ``classes`` ``[..., groups]``."""
        value: Integers = ((classes @ self._products + self._linear) * classes).sum(-1) + self._constant
        if len(self._long):
            value = value + _with_one(classes)[..., self._long].prod(-1) @ self._long_coefficients
        return value

    def gradient(self, classes: Floats) -> Floats:
        """Partial derivatives ``[..., groups]`` at real ``classes`` ``[..., groups]``."""
        slope: Floats = classes @ (self._products + self._products.T).astype(np.float64) + self._linear
        if len(self._long):
            factors = _with_one(classes)[..., self._long]
            variables = np.eye(classes.shape[-1] + 1)[:, :-1]
            for place in range(factors.shape[-1]):
                others = np.delete(factors, place, axis=-1).prod(-1) * self._long_coefficients
                slope = slope + others @ variables[self._long[:, place]]
        return slope

    def terms(self) -> list[Term]:
        """The same sum in its shortest form: a term per product of variables, and the constant."""
        groups = len(self._linear)
        long = [[g for g in row if g < groups] for row in self._long.tolist()]
        return [
            *[Term(int(c), *map(_one, row)) for c, row in zip(self._long_coefficients, long, strict=True)],
            *[Term(int(self._products[g, h]), _one(g), _one(h)) for g, h in np.argwhere(self._products).tolist()],
            *[Term(int(self._linear[g]), _one(g)) for g in np.flatnonzero(self._linear).tolist()],
            Term(self._constant),
        ]

    def with_constants(self, values: Mapping[int, int]) -> Polynomial:
        """Over the variables that are left when those of ``values`` have these values for ever, in the same order."""
        groups = len(self._linear)
        left = {g: place for place, g in enumerate(g for g in range(groups) if g not in values)}

        def substituted(form: Linear) -> Linear:
            constant = form.constant + sum(factor * values[g] for g, factor in form.per_group.items() if g in values)
            return Linear(constant, {left[g]: factor for g, factor in form.per_group.items() if g in left})

        return Polynomial([Term(term.coefficient, *map(substituted, term.factors)) for term in self.terms()], len(left))

    def to_json(self) -> list[list[int]]:
        """A row ``[coefficient, group, group, …]`` per product of variables."""
        return [[term.coefficient, *[group for factor in term.factors for group in factor.per_group]] for term in self.terms()]

    @classmethod
    def from_json(cls, rows: list[list[int]], groups: int) -> Polynomial:
        """The inverse of ``to_json``."""
        return cls([Term(coefficient, *map(_one, variables)) for coefficient, *variables in rows], groups)


class CostModel:
    """The costs of any widths.

    Args:
        divisors: per group, how many channels go together (1 for most; see ``pruners.graph.groups.Group.divisor``).
        metrics: by name a polynomial over the numbers of kept classes (``width / divisor``).
    """

    def __init__(self, divisors: Sequence[int], metrics: dict[str, Polynomial]) -> None:
        self._divisors = np.array(divisors, dtype=np.int64)
        self._metrics = metrics

    def foretells(self, metric: str) -> bool:
        """Whether this is one of its metrics."""
        return metric in self._metrics

    def __call__(self, metric: str, widths: Sequence[int] | Integers) -> int:
        """The cost of one width vector ``[groups]``, in channels."""
        return int(self.batch(metric, np.asarray(widths, dtype=np.int64)))

    def batch(self, metric: str, widths: Integers) -> Integers:
        """The costs ``[...]`` of many width vectors ``[..., groups]``."""
        return self._metrics[metric](widths // self._divisors)

    def gradient(self, metric: str, widths: Sequence[float] | Floats) -> Floats:
        """What one more channel costs, d cost / d width, per group ``[..., groups]`` at real widths ``[..., groups]``."""
        return self._metrics[metric].gradient(np.asarray(widths, dtype=np.float64) / self._divisors) / self._divisors

    def with_constants(self, widths: Mapping[int, int]) -> CostModel:
        """Over the groups that are left when those numbered in ``widths`` keep these widths for ever."""
        classes = {group: width // int(self._divisors[group]) for group, width in widths.items()}
        left = [int(divisor) for group, divisor in enumerate(self._divisors) if group not in widths]
        return CostModel(left, {name: polynomial.with_constants(classes) for name, polynomial in self._metrics.items()})

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


def _product(first: Integers, second: Integers) -> Integers:
    """A matrix product: in float64, which is many times faster than in integers, where that is exact."""
    largest = np.abs(first).sum(1).max(initial=0) * np.abs(second).max(initial=0)
    if largest < _EXACT:
        exact: Integers = (first.astype(np.float64) @ second.astype(np.float64)).astype(np.int64)
        return exact
    return first @ second


def _one(group: int) -> Linear:
    return Linear(0, {group: 1})


def _expanded(terms: Sequence[Term]) -> Counter[tuple[int, ...]]:
    """The coefficients of products of variables, each in ascending order, that a sum of terms comes to."""
    total: Counter[tuple[int, ...]] = Counter()
    for term in terms:
        choices = [[((), factor.constant), *(((g,), f) for g, f in factor.per_group.items())] for factor in term.factors]
        for choice in product(*choices):
            variables = tuple(sorted(g for groups, _ in choice for g in groups))
            total[variables] += term.coefficient * math.prod(number for _, number in choice)
    return total


def _with_one(classes: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([classes, np.ones_like(classes[..., :1])], axis=-1)
