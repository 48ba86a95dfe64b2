"""Auto: exchanges on the budget, picked by a Gaussian process that learns from all plans tried what a plan loses.

Exchanges that keep the budget exactly are EvoPress' moves (Sieberling et al., ICML 2025, arXiv 2410.14649); there they are
drawn blindly. Picking trials by a model's lower confidence bound is that of Srinivas et al., ICML 2010, arXiv 0912.3995.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np

from searchers import SEARCHERS
from searchers.halving import HalvingParams, rival
from searchers.moves import Integers, around, exchanges, finite_scores
from searchers.regression import Floats, Regression
from searchers.rounds import Candidate, RoundSearcher
from searchers.space import SearchSpace, Widths
from searchers.uniform import uniform_plans

_FIRST_SHARE = 0.2  # of the trials: plans drawn before there is a model
_SPREAD = 0.3  # standard deviation of the logarithm of the factors that drawn plans differ by from uniform ones
_CURIOSITY = (0.5, 1.0, 1.5, 2.0)  # a round's proposals: standard deviations of benefit of the doubt that each gives a plan
_POOL = 256  # exchanges looked at before each move: most pairs of a small network, enough of a large one
_SHARES = (0.0, 0.06, 0.12, 0.25)  # of the growing group's dense width that an exchange moves; 0 is a single step
_STEPS = 8  # exchanges on the way to a proposal at most: far from all that was tried the model knows little


@SEARCHERS.register("auto")
class Auto(RoundSearcher):
    """Learns a model of what plans lose from all plans tried, and walks by exchanges to where it expects the least.

    All plans are on the budget.

    1. First plans: the uniform one, the one that leaves residual streams dense, and others around them, every keep fraction
       times a drawn factor.
    2. Rounds of proposals in parallel. A Gaussian process (``regression.py``) is fitted to the losses of all plans so far.
       From one of the best plans each proposal walks along exchanges (one group gains channels, another pays) as long as
       the model expects less loss, giving the benefit of the doubt in different measure.

    With ``halving`` (``searchers.halving``) plans of the rounds may end early; the model learns the scores expected of them.

    A failed trial teaches nothing. The search ends early only where no new plan is found, or none has succeeded.
    """

    Params = HalvingParams
    params: HalvingParams
    reference = "Sieberling et al., EvoPress, ICML 2025, arXiv 2410.14649: exchanges on the budget; here a model picks them."

    def __init__(self, space: SearchSpace, params: HalvingParams, seed: int, max_trials: int) -> None:
        super().__init__(space, params, seed, max_trials)
        self.names_rivals = params.halving is not None
        self._random = random.Random(seed)  # noqa: S311 - a search, not a secret
        self._begun = False

    @property
    def planned_trials(self) -> int:
        return self.max_trials

    def next_round(self) -> Sequence[Candidate]:
        begun, self._begun = self._begun, True
        return (not begun and self._first_plans()) or self._walks()

    def _first_plans(self) -> list[Candidate]:
        """Those that are still to be tried; plans of an earlier search save as many draws."""
        uniform = uniform_plans(self.space)
        known = sum(map(self.space.fits, self.given_widths.difference(uniform)))
        count = max(0, round(_FIRST_SHARE * self.max_trials) - len(uniform) - known)
        drawn = [around(self.space, uniform[i % len(uniform)], _SPREAD, self._random) for i in range(count)]
        plans = [
            *[Candidate(plan, "a uniform plan") for plan in uniform],
            *[Candidate(plan, "around a uniform plan") for plan in drawn],
        ]
        return [plan for plan in plans if plan.widths not in self.outcomes]

    def _walks(self) -> list[Candidate]:
        scores = {widths: score for widths, score in finite_scores(self.outcomes).items() if self.space.fits(widths)}
        if not scores or len(self.space.searchable) < 2:
            return []
        plans, losses = list(scores), -np.array(list(scores.values()))
        model = Regression(self._shares(np.array(plans)), losses)
        proposed: dict[Widths, Candidate] = {}
        to_beat = rival(self._told.items(), self.params.halving)
        for number, curiosity in enumerate(_CURIOSITY):
            # Scores may be noisy: every other walk starts at the plan that the model, not its own trial, thinks best.
            ranking = losses if number % 2 else model.predict(self._shares(np.array(plans)))[0]
            plan = self._walk(model, plans[int(np.argmin(ranking))], curiosity, set(proposed))
            if plan is not None:
                proposed[plan] = Candidate(plan, f"{len(self.outcomes)} trials on, doubt weighs {curiosity:g}", rival=to_beat)
                model = model.believing(self._shares(np.array([plan])))
        return list(proposed.values())

    def _walk(self, model: Regression, start: Widths, curiosity: float, proposed: set[Widths]) -> Widths | None:
        """The end of a walk, each step better than the last by what the model expects; ``None``: it leads nowhere new."""
        at, least = start, math.inf
        for _ in range(_STEPS):
            pool = self._neighbours(at)
            means, deviations = model.predict(self._shares(pool))
            values = means - curiosity * deviations
            for found in np.argsort(values, kind="stable"):
                plan = self.space.fill(pool[found].tolist())
                if plan not in self.outcomes and plan not in proposed and plan != at:
                    break
            else:
                break
            if values[found] >= least:
                break
            at, least = plan, float(values[found])
        return at if at != start else None

    def _neighbours(self, plan: Widths) -> Integers:
        pairs = np.array([self._random.sample(self.space.searchable, 2) for _ in range(_POOL)])
        sizes = np.array([self._random.choice(_SHARES) for _ in range(_POOL)])
        return exchanges(self.space, plan, pairs[:, 0], pairs[:, 1], sizes)

    def _shares(self, plans: Integers) -> Floats:
        """Removed channels of each searchable group ``[plans, groups]``, as a share of the dense width."""
        groups = list(self.space.searchable)
        removed: Floats = 1 - plans[:, groups] / np.array(self.space.dense)[groups]
        return removed
