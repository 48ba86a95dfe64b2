"""The uniform control: the plan that takes no search, which every search has to beat at equal cost."""

from __future__ import annotations

from collections.abc import Sequence

from searchers import SEARCHERS
from searchers.base import Params
from searchers.rounds import Candidate, RoundSearcher
from searchers.space import SearchSpace, Widths

_EQUAL = 0.5  # a preference; any number below 1 does, only proportions count


def uniform_plan(space: SearchSpace, *, spare_residual: bool = False) -> Widths:
    """The plan on the budget with the same keep fraction in every group; residual streams stay dense if told and possible."""
    return space.project([1.0 if group.residual and spare_residual else _EQUAL for group in space.groups])


def uniform_plans(space: SearchSpace) -> list[Widths]:
    """The plans that take no search: the same keep fraction in every group, and in every group but the residual streams.

    The second only where there are residual streams and the budget can be met with them left dense. Searches begin with
    these plans, so that none ends below its control.
    """
    plans = [uniform_plan(space)]
    residual = [group.residual for group in space.groups]
    if space.fits([space.dense[i] if is_residual else space.least[i] for i, is_residual in enumerate(residual)]):
        plans.append(uniform_plan(space, spare_residual=True))
    return list(dict.fromkeys(plans))


_NOTES = ("the same keep fraction in every group", "the same keep fraction in every group but the residual streams")


@SEARCHERS.register("uniform")
class Uniform(RoundSearcher):
    """Control: the same keep fraction in every group, and in every group but the residual streams.

    The fraction is the one that uses the budget up. The second plan is tried only where the network has residual
    streams, the budget can be met with them left dense, and ``max_trials`` allows two trials. Nothing here is random.
    """

    reference = "Liu et al., Rethinking the Value of Network Pruning, ICLR 2019, arXiv 1810.05270: the uniform baseline."

    def __init__(self, space: SearchSpace, params: Params, seed: int, max_trials: int) -> None:
        super().__init__(space, params, seed, max_trials)
        self._plans = [Candidate(*each) for each in zip(uniform_plans(space), _NOTES, strict=False)][:max_trials]

    @property
    def planned_trials(self) -> int:
        return len(self._plans)

    def next_round(self) -> Sequence[Candidate]:
        return [plan for plan in self._plans if plan.widths not in self.outcomes]
