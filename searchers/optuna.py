"""Optuna's samplers over group widths: TPE, NSGA-II, CMA-ES and Gaussian processes behind the ask/tell contract.

Akiba et al., Optuna: A Next-generation Hyperparameter Optimization Framework, KDD 2019, arXiv 1907.10902.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.trial import Trial, TrialState, create_trial
from pydantic import Field

from pruners.errors import InvalidInput
from searchers import SEARCHERS
from searchers.base import Done, Given, Outcome, Proposal, Searcher, Wait
from searchers.halving import HalvingParams, rival
from searchers.moves import around
from searchers.space import SearchSpace, Widths
from searchers.uniform import uniform_plans

_LEAST_PREFERENCE = 0.05  # a group at this against one at 1 keeps a twentieth as much: as uneven as plans get
_EQUAL = 0.5  # in every group: the uniform plan; any number below 1 does, only proportions count
_FIRST = 10  # plans around the uniform ones that the sampler begins with, in place of blind draws
_SPREAD = 0.3  # standard deviation of the logarithm of the factors by which they differ from them
_SAMPLES_PER_PROPOSAL = 5  # how often the sampler may land on plans that are known before a blind draw takes its place
_BLIND_DRAWS = 50  # draws that may all repeat before the space counts as used up
_LARGEST_SCORE = 2.0**500  # the Gaussian process adds squares of scores, and floats end at 2^1024

optuna.logging.set_verbosity(optuna.logging.ERROR)  # it would print a line for every study


def _tpe(seed: int, trials: int) -> BaseSampler:
    return TPESampler(seed=seed, multivariate=False, constant_liar=True)  # each group by itself: better in equal trials


def _nsga2(seed: int, trials: int) -> BaseSampler:
    # Twenty generations in each of which at least two pairs can be parents. Better here than Optuna's 50 plans a
    # generation, which leave a search of 200 trials four generations.
    return NSGAIISampler(seed=seed, population_size=max(4, trials // 20))


def _cmaes(seed: int, trials: int) -> BaseSampler:
    return CmaEsSampler(seed=seed, warn_independent_sampling=False)


def _gp(seed: int, trials: int) -> BaseSampler:
    return GPSampler(seed=seed)


_SAMPLERS: dict[str, tuple[Callable[[int, int], BaseSampler], tuple[str, ...]]] = {
    "tpe": (_tpe, ()),
    "nsga2": (_nsga2, ()),
    "cmaes": (_cmaes, ("cmaes",)),
    "gp": (_gp, ("scipy", "torch")),
}
"""By name what builds the sampler, and the packages that it needs beside Optuna's own."""


class OptunaParams(HalvingParams):
    """The Optuna searcher's parameters."""

    sampler: Literal["tpe", "nsga2", "cmaes", "gp"] = Field(
        "tpe",
        description="tpe: Parzen estimators. nsga2: genetic. cmaes: evolution strategy (needs the package cmaes). "
        "gp: Gaussian process, the best with few trials, and the slowest.",
    )
    trials: int | None = Field(None, ge=1, description="Plans to try; by default as many as limits.max_trials allows.")


@SEARCHERS.register("optuna")
class Optuna(Searcher):
    """Optuna's TPE, NSGA-II, CMA-ES or Gaussian process over keep fractions, each plan scaled onto the budget.

    A sampled point is one preference per searchable group, and ``SearchSpace.project`` makes of it the plan in these
    proportions that uses the budget up. The study maximises the score alone, with every sampler: all plans cost the
    same, so that a second objective would be constant, and NSGA-II is here an elitist genetic algorithm.

    The uniform plans come first, and others around them, from which the sampler sets out. Points
    that lead to a known plan are told its score; to one that is running, they share its outcome when it comes. After
    five of them in a row a blind draw takes the sampler's place. Where blind draws find nothing new the search ends.

    With ``halving`` (``searchers.halving``) the sampler learns of a plan that ended early the score that is expected of it.

    Proposals never wait for outcomes: TPE and the Gaussian process count running trials as bad, so that parallel ones
    spread out, and the other two draw more from the same population. Failed trials teach nothing, and of an earlier search's
    plans those alone teach that use this budget up, since a point stands for no others.
    """

    Params = OptunaParams
    params: OptunaParams
    reference = "Akiba et al., Optuna: A Next-generation Hyperparameter Optimization Framework, KDD 2019, arXiv 1907.10902."

    def __init__(self, space: SearchSpace, params: OptunaParams, seed: int, max_trials: int) -> None:
        super().__init__(space, params, seed, max_trials)
        self.names_rivals = params.halving is not None
        build, packages = _SAMPLERS[params.sampler]
        if missing := [package for package in packages if find_spec(package) is None]:
            names = " ".join(missing)
            problem = f"needs packages that this server lacks; pip install {names} there, or use tpe"
            raise InvalidInput("searcher.params.sampler", params.sampler, problem)
        # Optuna's seeds have 32 bits.
        self._study = optuna.create_study(sampler=build(seed % 2**32, self.planned_trials), direction="maximize")
        preference = FloatDistribution(_LEAST_PREFERENCE, 1.0, log=True)  # only proportions count
        self._domain: dict[str, BaseDistribution] = {str(group): preference for group in space.searchable}
        starts = self._starts()
        for start in starts:
            self._study.enqueue_trial(start)
        self._queued = len(starts)  # points that the study hands out before it asks its sampler
        self._widths: list[Widths] = []  # by number, given ones first
        self._outcomes: dict[Widths, Outcome] = {}
        self._trials: dict[Widths, list[Trial]] = {}  # what is running, with every point that led to it

    @property
    def planned_trials(self) -> int:
        return min(self.params.trials or self.max_trials, self.max_trials)

    def give(self, trial: Given) -> None:
        if len(self._widths) > len(self.given):
            raise ValueError("a trial was given after the first ask")
        super().give(trial)
        widths, outcome = trial.proposal.widths, trial.outcome
        self._widths.append(widths)
        self._outcomes[widths] = outcome
        score = _usable(outcome)
        if score is not None and self.space.fits(widths) and self.space.fill(widths) == widths:
            self._study.add_trial(create_trial(params=self._point(widths), distributions=self._domain, value=score))

    def ask(self) -> Proposal | Wait | Done:
        asked = len(self._widths) - len(self.given)
        blind = self._blind() if asked < self.planned_trials else None
        if blind is None:
            return Wait() if self._trials else Done()
        widths, trial = self._sampled() or self._asked_for(blind)
        self._trials[widths] = [trial]
        self._widths.append(widths)
        note, told = f"{self.params.sampler} {asked + 1}", enumerate(self._widths)
        to_beat = rival(((n, self._outcomes[known]) for n, known in told if known in self._outcomes), self.params.halving)
        return Proposal(len(self._widths) - 1, widths, note, rival=to_beat)

    def tell(self, proposal_id: int, outcome: Outcome) -> None:
        widths = self._widths[proposal_id] if 0 <= proposal_id < len(self._widths) else None
        if widths not in self._trials:
            raise ValueError(f"proposal {proposal_id} was told already or never asked for")
        self._outcomes[widths] = outcome
        for trial in self._trials.pop(widths):
            self._learn(trial, outcome)

    def _starts(self) -> list[dict[str, float]]:
        """The uniform plans as points, and others around them."""
        generator, uniform = random.Random(self.seed), uniform_plans(self.space)  # noqa: S311 - a search, not a secret
        count = min(_FIRST, self.planned_trials) - len(uniform)
        plans = [*uniform, *(around(self.space, uniform[i % len(uniform)], _SPREAD, generator) for i in range(count))]
        shares = ([width / dense for width, dense in zip(plan, self.space.dense, strict=True)] for plan in plans)
        points = [{name: max(of_plan[int(name)], _LEAST_PREFERENCE) for name in self._domain} for of_plan in shares]
        return list({self._projected(point): point for point in points}.values())

    def _sampled(self) -> tuple[Widths, Trial] | None:
        """A new plan from the sampler."""
        samples = 0
        while samples < _SAMPLES_PER_PROPOSAL:
            trial = self._study.ask(self._domain)
            samples, self._queued = (samples, self._queued - 1) if self._queued else (samples + 1, 0)
            widths = self._projected(trial.params)
            if widths in self._outcomes:
                self._learn(trial, self._outcomes[widths])
            elif widths in self._trials:
                self._trials[widths].append(trial)
            else:
                return widths, trial
        return None

    def _blind(self) -> dict[str, float] | None:
        """A point drawn blindly that leads to a new plan; none where the space seems used up.

        It depends on the proposals made so far and on nothing else. No record holds an ask that proposed nothing, so
        that one must leave no trace: a search that ended ends in every replay, whatever the sampler would say.
        """
        generator = random.Random(f"{self.seed} {len(self._widths)}")  # noqa: S311 - a search, not a secret
        for _ in range(_BLIND_DRAWS):
            point = {name: generator.uniform(_LEAST_PREFERENCE, 0.99) for name in self._domain}  # 1 would spare the group
            if self._projected(point) not in self._outcomes.keys() | self._trials.keys():
                return point
        return None

    def _asked_for(self, point: dict[str, float]) -> tuple[Widths, Trial]:
        self._study.enqueue_trial(point)
        trial = self._study.ask(self._domain)
        return self._projected(trial.params), trial

    def _projected(self, point: dict[str, float]) -> Widths:
        """The plan on the budget in the proportions of a point."""
        return self.space.project([point.get(str(group), _EQUAL) for group in range(len(self.space.groups))])

    def _point(self, widths: Widths) -> dict[str, float]:
        """The point of a plan on the budget, which has its keep fractions."""
        fractions = {group: widths[group] / self.space.dense[group] for group in self.space.searchable}
        return {str(group): max(_LEAST_PREFERENCE, fraction) for group, fraction in fractions.items()}

    def _learn(self, trial: Trial, outcome: Outcome) -> None:
        score = _usable(outcome)
        if score is None:
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, score)


def _usable(outcome: Outcome) -> float | None:
    """The score as the samplers can take it; ``None`` if there is none."""
    if outcome.score is None or not math.isfinite(outcome.score):
        return None
    return max(-_LARGEST_SCORE, min(outcome.score, _LARGEST_SCORE))
