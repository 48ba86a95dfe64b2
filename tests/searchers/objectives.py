"""Made-up networks whose loss under pruning is a formula, so that the best plan is known and a search can be measured.

The measure is a plan's damage in percent of that of the uniform plan: the dense network has 0, the better uniform plan 100.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, product

from searchers import SEARCHERS
from searchers.base import Outcome, Proposal, Searcher, parse_params
from searchers.space import Group, SearchSpace, Widths
from tests.searchers.spaces import chain, model, space

Objective = Callable[[Widths], float]
"""The score of widths: higher is better."""


@dataclass(frozen=True)
class Landscape:
    """Score = −(Σ s_i·x_i^p_i + c·Σ √(s_i·s_i+1)·x_i·x_i+1), where x_i is the share of group i's channels removed.

    Attributes:
        of: the space.
        sensitivity: s_i > 0.
        power: p_i ≥ 1, so that the score is concave along every group.
        interaction: c ≥ 0: neighbours in the network are worse cut together.
        noise: standard deviation that measuring adds, in damages of the uniform plan; the same widths score the same.
    """

    of: SearchSpace
    sensitivity: tuple[float, ...]
    power: tuple[float, ...]
    interaction: float = 0.0
    noise: float = 0.0

    def damage(self, widths: Widths) -> float:
        """What is truly lost against the dense network, which loses 0."""
        removed = [1 - w / dense for w, dense in zip(widths, self.of.dense, strict=True)]
        alone = sum(s * x**p for s, x, p in zip(self.sensitivity, removed, self.power, strict=True))
        felt = [math.sqrt(s) * x for s, x in zip(self.sensitivity, removed, strict=True)]
        return alone + self.interaction * sum(a * b for a, b in pairwise(felt))

    def __call__(self, widths: Widths) -> float:
        """The score as it is measured."""
        error = random.Random(str(widths)).gauss(0, self.noise) * self.uniform if self.noise else 0.0
        return -self.damage(widths) + error

    @property
    def uniform(self) -> float:
        """The damage of the better uniform plan."""
        return _uniform_damage(self)

    def percent(self, widths: Widths) -> float:
        """The damage in percent of the uniform plan's."""
        return 100 * self.damage(widths) / self.uniform

    def optimum(self) -> float:
        """The least damage of any plan within the budget, in percent, by trying them all: for small spaces."""
        return _optimum(self)


@cache
def _uniform_damage(landscape: Landscape) -> float:
    return min(landscape.damage(widths) for widths in run("uniform", landscape.of, lambda w: 0.0))


@cache
def _optimum(landscape: Landscape) -> float:
    of = landscape.of
    ranges = [range(least, dense + 1, step) for least, dense, step in zip(of.least, of.dense, of.step, strict=True)]
    return min(landscape.percent(widths) for widths in product(*ranges) if of.fits(widths))


def landscape(of: SearchSpace, seed: int, interaction: float = 0.3, noise: float = 0.0) -> Landscape:
    """Sensitivities over two decades and powers from 1.5 to 3, drawn."""
    draw = random.Random(seed)
    sensitivity = tuple(10 ** draw.uniform(-1, 1) for _ in of.groups)
    return Landscape(of, sensitivity, tuple(draw.uniform(1.5, 3) for _ in of.groups), interaction, noise)


def small_space() -> SearchSpace:
    """Four layers in a chain with sixteen widths each: 65,536 plans, few enough to try them all."""
    groups = [Group(f"layer{i}", width, divisor=width // 16) for i, width in enumerate([32, 32, 64, 64])]
    return space(groups, chain(groups), ratio=0.3)


def residual_space(blocks: int, ratio: float) -> SearchSpace:
    """Three stages of a CIFAR ResNet, each a residual stream and ``blocks`` inner groups: 3·(blocks + 1) groups."""
    groups, layers, source = [], [], None
    for stage, (width, positions) in enumerate([(16, 256), (32, 64), (64, 16)]):
        stream = len(groups)
        groups.append(Group(f"stage{stage}", width, residual=True))
        layers.append((positions, source, stream))
        for block in range(blocks):
            groups.append(Group(f"stage{stage}.{block}", width))
            layers += [(positions, stream, stream + 1 + block), (positions, stream + 1 + block, stream)]
        source = stream
    return space(groups, model([*layers, (1, source, None)], groups), ratio=ratio)


def make(name: str, of: SearchSpace, max_trials: int, seed: int, **params: object) -> Searcher:
    """A registered searcher."""
    searcher = SEARCHERS[name]
    return searcher(of, parse_params(searcher, params), seed, max_trials)


def run(
    name: str, of: SearchSpace, objective: Objective, max_trials: int = 100, seed: int = 0, **params: object
) -> list[Widths]:
    """What a registered searcher proposes when its trials run one by one, in order."""
    searcher, asked = make(name, of, max_trials, seed, **params), []
    while isinstance(answer := searcher.ask(), Proposal):
        asked.append(answer.widths)
        searcher.tell(answer.id, Outcome(objective(answer.widths)))
    return asked


def found(name: str, on: Landscape, max_trials: int, seed: int = 0, **params: object) -> float:
    """The true damage, in percent, of the plan that scores best among those within the budget."""
    plans = [widths for widths in run(name, on.of, on, max_trials, seed, **params) if on.of.fits(widths)]
    return on.percent(max(plans, key=on))
