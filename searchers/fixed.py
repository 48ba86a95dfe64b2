"""No search: one plan, for a pruner whose own schedule does the work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from pruners.errors import InvalidInput
from searchers import SEARCHERS
from searchers.base import Params
from searchers.rounds import Candidate, RoundSearcher
from searchers.space import SearchSpace
from searchers.uniform import uniform_plan


class FixedParams(Params):
    """What the plan of ``fixed`` spares."""

    ranking: Literal["uniform", "global"] = Field(
        "uniform",
        description="The same keep fraction in every group, or one threshold over the pruner's scores of all channels.",
    )
    residual: bool = Field(True, description="Prune residual streams too; otherwise they stay whole where the budget allows.")


@SEARCHERS.register("fixed")
class Fixed(RoundSearcher):
    """One trial: the same keep fraction in every group, reached by the pruner's own schedule (agp, admm, …) if it has one.

    The fraction, or with ``ranking: global`` the threshold, is the one that uses the budget up. Nothing here is random.
    """

    Params = FixedParams
    params: FixedParams
    reference = "Zhu and Gupta, To prune, or not to prune, arXiv 1710.01878: one rate for all, gradually."

    def __init__(self, space: SearchSpace, params: FixedParams, seed: int, max_trials: int) -> None:
        super().__init__(space, params, seed, max_trials)
        if params.ranking == "global" and not params.residual:
            problem = "cannot spare residual streams under ranking global; exclude their layers in pruner.config_list instead"
            raise InvalidInput("searcher.params.residual", params.residual, problem)

    @property
    def planned_trials(self) -> int:
        return 1

    def next_round(self) -> Sequence[Candidate]:
        plan = self._plan()
        return [] if plan.widths in self.outcomes else [plan]

    def _plan(self) -> Candidate:
        if self.params.ranking == "global":
            return Candidate(self.space.ranked(), "one threshold over all channels' scores")
        plan = uniform_plan(self.space, spare_residual=not self.params.residual)
        return Candidate(plan, "the same keep fraction in every group")
