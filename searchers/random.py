"""The random control: plans drawn blindly, each exactly on the budget, which every search has to beat in equal trials."""

from __future__ import annotations

import random
from collections.abc import Sequence

from pydantic import Field

from searchers import SEARCHERS
from searchers.base import Params
from searchers.rounds import Candidate, RoundSearcher
from searchers.space import SearchSpace

_LEAST_PREFERENCE = 0.05  # a group drawn at this against one at 1 keeps a twentieth as much: as uneven as plans get
_DRAWS_PER_TRIAL = 10  # in a small space most draws repeat; after this many the search ends with the plans it has


class RandomParams(Params):
    """The random control's parameters."""

    trials: int | None = Field(None, ge=1, description="Plans to draw; by default as many as limits.max_trials allows.")


@SEARCHERS.register("random")
class Random(RoundSearcher):
    """Control: keep fractions drawn independently for each group, scaled together onto the budget.

    All plans are drawn at once and no plan is tried twice, so a small space may yield fewer than asked for.
    """

    Params = RandomParams
    params: RandomParams
    reference = (
        "Li and Talwalkar, Random Search and Reproducibility for Neural Architecture Search, UAI 2019, arXiv 1902.07638."
    )

    def __init__(self, space: SearchSpace, params: RandomParams, seed: int, max_trials: int) -> None:
        super().__init__(space, params, seed, max_trials)
        wanted = min(params.trials or max_trials, max_trials)
        generator = random.Random(seed)  # noqa: S311 - a search, not a secret
        drawn: dict[tuple[int, ...], None] = {}
        for _ in range(_DRAWS_PER_TRIAL * wanted):
            preference = [generator.uniform(_LEAST_PREFERENCE, 0.99) for _ in space.groups]  # 1 would spare the group
            drawn.setdefault(space.project(preference))
            if len(drawn) == wanted:
                break
        self._plans = [Candidate(widths, f"draw {number}") for number, widths in enumerate(drawn, 1)]

    @property
    def planned_trials(self) -> int:
        return len(self._plans)

    def next_round(self) -> Sequence[Candidate]:
        return [] if self.outcomes else self._plans
