"""The random control: plans drawn blindly, each exactly on the budget, which every search has to beat in equal trials."""

from __future__ import annotations

import random
from collections.abc import Sequence

from pydantic import Field

from searchers import SEARCHERS
from searchers.base import Params
from searchers.rounds import Candidate, RoundSearcher
from searchers.space import SearchSpace, Widths

_LEAST_PREFERENCE = 0.05  # a group drawn at this against one at 1 keeps a twentieth as much: as uneven as plans get
_REPETITIONS = 50  # draws in a row that may all repeat before the space counts as used up


class RandomParams(Params):
    """The random control's parameters."""

    trials: int | None = Field(None, ge=1, description="Plans to draw; by default as many as limits.max_trials allows.")


@SEARCHERS.register("random")
class Random(RoundSearcher):
    """Control: keep fractions drawn independently for each group, scaled together onto the budget.

    All plans are drawn at once and no plan is tried twice, nor one of an earlier search, so that a small space may yield fewer
    than asked for.
    """

    Params = RandomParams
    params: RandomParams
    reference = (
        "Li and Talwalkar, Random Search and Reproducibility for Neural Architecture Search, UAI 2019, arXiv 1902.07638."
    )

    def __init__(self, space: SearchSpace, params: RandomParams, seed: int, max_trials: int) -> None:
        super().__init__(space, params, seed, max_trials)
        self._wanted = min(params.trials or max_trials, max_trials)

    @property
    def planned_trials(self) -> int:
        return self._wanted

    def next_round(self) -> Sequence[Candidate]:
        generator = random.Random(self.seed)  # noqa: S311 - a search, not a secret
        drawn: dict[Widths, None] = {}
        known = self.given_widths
        repetitions = 0
        while not self.asked and len(drawn) < self._wanted and repetitions < _REPETITIONS:
            preference = [generator.uniform(_LEAST_PREFERENCE, 0.99) for _ in self.space.groups]  # 1 would spare the group
            widths = self.space.project(preference)
            repetitions = repetitions + 1 if widths in drawn or widths in known else 0
            if not repetitions:
                drawn[widths] = None
        return [Candidate(widths, f"draw {number}") for number, widths in enumerate(drawn, 1)]
