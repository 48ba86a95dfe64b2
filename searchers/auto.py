"""Auto: a coarse sensitivity table, then exchanges on the budget, picked by a model of all plans tried so far.

The table and its allocation are those of ``sensitivity``. Exchanges that keep the budget exactly are EvoPress' moves
(Sieberling et al., ICML 2025, arXiv 2410.14649); there they are drawn blindly.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np

from searchers import SEARCHERS
from searchers.base import Params
from searchers.curves import Floats, damage_curves, even_damage, grid, least_damage
from searchers.moves import exchange, finite_scores
from searchers.regression import Regression
from searchers.rounds import Candidate, RoundSearcher
from searchers.space import SearchSpace, Widths

_TABLES = 2  # probes of each group: beside the uniform plan's width, the one that the first table's plan gives it
_TABLE_SHARE = 0.6  # of the trials at most: where that is less than a probe for each group, there is no table
_CURIOSITY = (0.0, 0.5, 1.0, 2.0)  # a round's proposals: standard deviations of benefit of the doubt that each gives a plan
_DRAWS = 6  # first plans from tables with every curve doubted: what tells the groups apart on the budget
_DOUBT = 0.5  # standard deviation of the logarithm of a doubted curve's factor
_POOL = 96  # exchanges looked at before each move: most pairs of a small network, enough of a large one
_SHARES = (0.0, 0.06, 0.12, 0.25)  # of the growing group's dense width that an exchange moves; 0 is a single step
_REACH, _LONGER, _SHORTER = 4.0, 1.5, 1.3  # exchanges on the way to a proposal at first; after a success; after a failure
_PATIENCE = 6  # rounds without a better plan after which the search is stuck
_LEAST_CURVE = 0.02  # of the mean damage at the narrowest: no curve is flat, or the model could not learn that it is wrong


@SEARCHERS.register("auto")
class Auto(RoundSearcher):
    """Measures every group alone, plans from that table, and goes on by exchanges that a model of the tried plans picks.

    1. Table: the dense network and every group alone at the uniform plan's width, in parallel; if trials allow, once more at
       the width that the plan of that first table gives it. Where trials are too few, all groups count as equal.
    2. First plans, all on the budget: the one with the least sum of damages (the seed), the one with even damage, the
       uniform one, and some from tables whose every curve is multiplied by a drawn factor.
    3. Rounds of proposals in parallel. A regression of the loss on the table's damages learns from all plans tried which
       curves are wrong and which groups hurt together. From the best plan, each proposal walks along exchanges (one group
       gains channels, another pays) as long as the model expects less loss, giving the benefit of the doubt in different
       measure. Walks get longer after a success and shorter after a failure.
    4. A search that is stuck restarts from new doubted tables, with long walks.

    The seed is tried, so no search ends worse than it. A failed trial teaches nothing. The search ends early only where no
    new plan is found, or none has succeeded.
    """

    reference = "Sieberling et al., EvoPress, ICML 2025, arXiv 2410.14649: exchanges on the budget; here a model picks them."

    def __init__(self, space: SearchSpace, params: Params, seed: int, max_trials: int) -> None:
        super().__init__(space, params, seed, max_trials)
        self._random = random.Random(seed)  # noqa: S311 - a search, not a secret
        self._tables = min(_TABLES, max(0, int(_TABLE_SHARE * max_trials) - 1) // len(space.searchable))
        self._probes: list[dict[int, Widths]] = [{} for _ in space.groups]  # per group, the plan probed by its width
        self._curves: list[Floats] = []
        self._unit = 1.0  # the seed's sum of damages
        self._reach = _REACH
        self._best: Widths | None = None
        self._failures = 0  # rounds since the last better plan

    @property
    def planned_trials(self) -> int:
        return self.max_trials

    def next_round(self) -> Sequence[Candidate]:
        if self._tables:
            self._tables -= 1
            return self._probe()
        return self._exchanges() if self._curves else self._first_plans()

    def _probe(self) -> list[Candidate]:
        space = self.space
        plan = least_damage(space, self._table()) if self.outcomes else self._uniform()
        candidates = [Candidate(space.dense, "the dense network")]
        for group in space.searchable:
            enough = space.largest(space.dense, group, space.budget.limit) or space.least[group]
            width = max(enough, min(plan[group], space.dense[group] - space.step[group]))
            if width in self._probes[group]:  # nothing new there; half way to the dense width tells the curve's shape
                choices = [w for w in grid(space, group) if width < w < space.dense[group]]
                width = choices[len(choices) // 2] if choices else width
            alone = self._probes[group][width] = (*space.dense[:group], width, *space.dense[group + 1 :])
            candidates.append(Candidate(alone, f"{space.groups[group].name} alone {space.dense[group]} → {width}"))
        return candidates

    def _table(self) -> list[Floats]:
        scores = finite_scores(self.outcomes)
        known = [{width: scores[plan] for width, plan in probes.items() if plan in scores} for probes in self._probes]
        best = max((score for of_group in known for score in of_group.values()), default=0.0)
        dense = scores.get(self.space.dense, best)  # should its trial have failed, the best probe stands for it
        return damage_curves(self.space, [{width: dense - score for width, score in of.items()} for of in known])

    def _first_plans(self) -> list[Candidate]:
        table = self._table()
        floor = _LEAST_CURVE * (float(np.mean([table[group][0] for group in self.space.searchable])) or 1.0)
        self._curves = [curve + floor * np.linspace(1.0, 0.0, len(curve)) ** 2 for curve in table]
        seed = least_damage(self.space, self._curves)
        self._unit = float(self._damages([seed], 1.0).sum()) or 1.0
        return [
            Candidate(seed, "the least sum of damages by the table"),
            Candidate(even_damage(self.space, self._curves), "equal damage in every group"),
            Candidate(self._uniform(), "the same keep fraction in every group"),
            *self._doubting(_DRAWS),
        ]

    def _exchanges(self) -> list[Candidate]:
        scores = {widths: score for widths, score in finite_scores(self.outcomes).items() if self.space.fits(widths)}
        if not scores or len(self.space.searchable) < 2:
            return []
        self._adapt(max(scores, key=scores.__getitem__))
        restart = self._doubting(len(_CURIOSITY)) if self._failures >= _PATIENCE else []
        if restart:
            self._failures, self._reach = 0, _REACH
            return restart
        plans, losses = list(scores), -np.array(list(scores.values()))
        model = Regression(self._damages(plans, self._unit), losses)
        proposed: dict[Widths, Candidate] = {}
        for number, curiosity in enumerate(_CURIOSITY):
            # Scores may be noisy: every other walk starts at the plan that the model, not its own trial, thinks best.
            ranking = losses if number % 2 else model.predict(self._damages(plans, self._unit))[0]
            plan = self._walk(model, plans[int(np.argmin(ranking))], curiosity, set(proposed))
            if plan is not None:
                proposed[plan] = Candidate(plan, f"{len(self.outcomes)} trials on, doubt weighs {curiosity:g}")
                model = model.believing(self._damages([plan], self._unit))
        return list(proposed.values()) or self._doubting(len(_CURIOSITY))

    def _adapt(self, best: Widths) -> None:
        if best != self._best:
            self._best, self._failures = best, 0
            self._reach = min(_LONGER * self._reach, float(len(self.space.searchable)))
        else:
            self._failures += 1
            self._reach = max(self._reach / _SHORTER, 1.0)

    def _walk(self, model: Regression, start: Widths, curiosity: float, proposed: set[Widths]) -> Widths | None:
        """The end of a walk along untried plans, each better than the last by what the model expects; ``None``: no first."""
        at, best, least = start, None, math.inf
        for _ in range(round(self._reach)):
            pool = [plan for plan in self._neighbours(at) if plan not in self.outcomes and plan not in proposed]
            if not pool:
                break
            means, deviations = model.predict(self._damages(pool, self._unit))
            values = means - curiosity * deviations
            found = int(np.argmin(values))
            if values[found] >= least:
                break
            at = best = pool[found]
            least = float(values[found])
        return best

    def _neighbours(self, plan: Widths) -> list[Widths]:
        found: dict[Widths, None] = {}
        for _ in range(_POOL):
            grow, shrink = self._random.sample(self.space.searchable, 2)
            neighbour = exchange(self.space, plan, grow, shrink, self._random.choice(_SHARES))
            if neighbour is not None:
                found.setdefault(neighbour)
        return list(found)

    def _doubting(self, count: int) -> list[Candidate]:
        """Plans that were not tried, of the table with every curve multiplied by a factor drawn about 1."""
        drawn = [
            least_damage(self.space, [curve * math.exp(self._random.gauss(0, _DOUBT)) for curve in self._curves])
            for _ in range(count)
        ]
        return [Candidate(plan, "the least sum of damages by a doubted table") for plan in drawn if plan not in self.outcomes]

    def _damages(self, plans: Sequence[Widths], unit: float) -> Floats:
        """What the table says of each searchable group ``[plans, groups]``, in multiples of ``unit``."""
        at = (np.array(plans) - np.array(self.space.least)) // np.array(self.space.step)
        return np.stack([self._curves[group][at[:, group]] for group in self.space.searchable], axis=1) / unit

    def _uniform(self) -> Widths:
        return self.space.project([0.5] * len(self.space.groups))  # any number below 1: only proportions count
