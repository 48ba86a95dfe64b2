"""AMC: a reinforcement learning agent walks through the network and decides group by group how much to keep.

He et al., AMC: AutoML for Model Compression and Acceleration on Mobile Devices, ECCV 2018, arXiv 1802.03494.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Sequence
from math import isfinite, log
from statistics import NormalDist
from typing import Literal

from pydantic import Field

from pruners.errors import InvalidInput
from searchers import SEARCHERS
from searchers.base import Given, Outcome, Params
from searchers.ddpg import BATCH, Agent, Transition
from searchers.rounds import Candidate, RoundSearcher
from searchers.space import SearchSpace, Widths
from searchers.uniform import uniform_plans

_MEMORY_EPISODES = 100  # episodes that the agent learns from; the authors' code keeps 100 transitions per layer
_WARM_UP = 0.25  # share of the trials that explore before the agent learns: the paper's 100 of 400
_NOISE_LEFT = 0.05  # in the last episode; with less, a search of 200 trials repeats itself in its second half
_WALKS = 5  # how often an episode is walked again if it leads to a plan that was tried
_HIGHEST_ANCHOR = 0.95  # a group that the uniform plan leaves dense must be within reach of actions too


class AMCParams(Params):
    """AMC's parameters."""

    warmup: int | None = Field(
        None, ge=1, description="Episodes around the uniform plan before the agent learns; by default a quarter of max_trials."
    )
    sigma: float = Field(
        0.1,
        gt=0,
        description="Standard deviation of the action noise in the warm-up and at first after it (the paper's 0.5 is of "
        "actions that are keep fractions themselves).",
    )
    decay: float | None = Field(
        None,
        gt=0,
        le=1,
        description="What each episode after the warm-up multiplies the noise by (the paper's 0.95, over 300 episodes); "
        "by default such that a twentieth is left in the last one.",
    )
    floor: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="Keep fraction left to every group at least, unless the budget asks for less (the authors' 0.2).",
    )
    parallel: int = Field(4, ge=1, description="Episodes that run side by side, before the agent learns from them.")
    reward: Literal["accuracy", "guaranteed"] = Field(
        "accuracy", description="accuracy: the score. guaranteed: −error·log(cost), where the error is 1 − accuracy."
    )


@SEARCHERS.register("amc")
class AMC(RoundSearcher):
    """A DDPG agent walks over the groups and keeps of each a fraction, bounded so that the budget holds.

    An episode is one walk. At each group the agent sees eleven numbers (``_state``) and answers with an action a, 0…1, that
    stands for the keep fraction u^((1 − a)/a), where u is the group's in the better uniform plan: 0.5 is that plan, 0
    nothing and 1 all of the group. (With actions that are keep fractions, as published, a hundred episodes are spent on
    finding a plan as good as the uniform one.) The fraction is raised to the ``floor`` and lowered until the network fits
    with all undecided groups at their floors, so that the budget, which the floors meet, is met at the end. What the walk
    left unused goes back in proportion (``SearchSpace.project``), and from the widths of that final plan the agent learns,
    not from what it asked for.

    The first two plans are the uniform ones. Actions come from a normal distribution, cut off to 0…1: in the ``warmup``
    around 0.5, and after it around the actor's answer, with a width that shrinks by ``decay`` an episode.

    The reward is one for the whole episode. Scores may be on any scale, so that the agent is given the share of
    all other plans so far that a plan beats, 0…1, by score (``accuracy``) or by −error·log(cost) (``guaranteed``, the
    paper's reward for a guaranteed accuracy; all plans cost nearly the same here, so that it ranks by accuracy where the
    other ranks by score). A failed trial teaches nothing.

    It learns slowly: the paper walks 400 episodes and the authors' code 800. In the trials of a usual search its episodes
    grow better than blind ones, but other searches get further.

    Plans of an earlier search that fit the budget count as episodes of the warm-up.

    ``parallel`` episodes run at once; when all of them are told, the agent learns from them in the order of asking, as
    many updates as transitions.
    """

    Params = AMCParams
    params: AMCParams
    reference = "He et al., AMC: AutoML for Model Compression and Acceleration on Mobile Devices, ECCV 2018, arXiv 1802.03494."

    def __init__(self, space: SearchSpace, params: AMCParams, seed: int, max_trials: int) -> None:
        super().__init__(space, params, seed, max_trials)
        self._warmup = params.warmup or max(1, round(_WARM_UP * max_trials))
        if self._warmup >= max_trials and params.warmup is not None:
            problem = f"leaves no episode to learn in; state less than limits.max_trials, which is {max_trials}"
            raise InvalidInput("searcher.params.warmup", params.warmup, problem)
        self._decay = params.decay or _NOISE_LEFT ** (1 / max(1, max_trials - self._warmup))
        self._random = random.Random(seed)  # noqa: S311 - a search, not a secret
        self._starts = uniform_plans(space)
        uniform = self._starts[0]
        # At most what the uniform plan keeps, which fits; so the floors together fit too.
        self._floor = [min(u, self._rounded(i, params.floor)) for i, u in enumerate(uniform)]
        self._static = _static_features(space)
        self._agent: Agent | None = None  # until the warm-up ends, so that a short search needs no torch
        self._episodes: list[Widths] = []  # the plans of all episodes
        self._earlier = 0  # of these, the plans of an earlier search
        self._learnt = 0  # episodes that the agent has seen

    @property
    def planned_trials(self) -> int:
        return self.max_trials

    def give(self, trial: Given) -> None:
        super().give(trial)
        if self.space.fits(trial.proposal.widths):
            self._episodes.append(trial.proposal.widths)
            self._earlier += 1

    def next_round(self) -> Sequence[Candidate]:
        count = min(self.params.parallel, self.max_trials - (len(self._episodes) - self._earlier))
        if count:
            self._learn()
        first = len(self._episodes)
        for _ in range(count):
            self._episodes.append(self._new_plan())
        return [Candidate(widths, f"episode {number}") for number, widths in enumerate(self._episodes[first:], first + 1)]

    def _learn(self) -> None:
        """Lets the agent learn from all episodes since the last time; it is made when there is enough to learn from."""
        rewards = {widths: reward for widths in self._episodes if (reward := self._reward(widths)) is not None}
        steps = len(self.space.searchable)
        warm = len(self._episodes) < self._warmup or len(rewards) * steps < BATCH
        if self._agent is None and warm:
            return
        if self._agent is None:
            self._agent = Agent(len(self._state(0, self.space.dense)), _MEMORY_EPISODES * steps, self.seed)
        ranked = sorted(rewards.values())
        fresh = [widths for widths in self._episodes[self._learnt :] if widths in rewards]
        self._learnt = len(self._episodes)
        for widths in fresh:
            beaten = bisect_left(ranked, rewards[widths]) / max(1, len(ranked) - 1)
            self._agent.remember(self._transitions(widths, beaten))
        self._agent.learn(len(fresh) * steps)

    def _reward(self, widths: Widths) -> float | None:
        outcome = self.outcomes.get(widths, Outcome(None))
        if outcome.score is None or not isfinite(outcome.score):
            return None
        if self.params.reward == "accuracy":
            return outcome.score
        return None if outcome.metric is None else -(1 - outcome.metric) * log(self.space.cost(widths))

    def _transitions(self, widths: Widths, reward: float) -> list[Transition]:
        """The walk that ends in this plan."""
        states = [self._state(step, widths) for step in range(len(self.space.searchable))]
        kept = [widths[group] / self.space.dense[group] for group in self.space.searchable]
        actions = [1 / (1 + log(share) / log(anchor)) for share, anchor in zip(kept, self._anchors, strict=True)]
        following = [*states[1:], None]
        return [Transition(s, a, reward, f) for s, a, f in zip(states, actions, following, strict=True)]

    def _new_plan(self) -> Widths:
        """The plan of the next episode; after some walks to known plans, one that is known."""
        walked = len(self._episodes) - self._earlier
        if walked < len(self._starts):
            return self._starts[walked]
        for _ in range(_WALKS):
            widths = self._walk()
            if widths not in self.outcomes and widths not in self._episodes:
                break
        return widths

    def _walk(self) -> Widths:
        widths = [*self._floor]
        for step, group in enumerate(self.space.searchable):
            asked = self._rounded(group, self._anchors[step] ** _exponent(self._action(self._state(step, tuple(widths)))))
            widths[group] = max(asked, self._floor[group])
            # All floors fit together, so that there is always a largest width.
            widths[group] = self.space.largest(widths, group, self.space.budget.limit) or self._floor[group]
        return self.space.project([width / dense for width, dense in zip(widths, self.space.dense, strict=True)])

    @property
    def _anchors(self) -> list[float]:
        """Per searchable group, the keep fraction that an action of 0.5 stands for: that of the better uniform plan."""
        rewards = {plan: reward for plan in self._starts if (reward := self._reward(plan)) is not None}
        plan = max(rewards, key=rewards.__getitem__, default=self._starts[0])
        return [min(plan[group] / self.space.dense[group], _HIGHEST_ANCHOR) for group in self.space.searchable]

    def _action(self, state: Sequence[float]) -> float:
        mean = 0.5 if self._agent is None else self._agent.act(state)
        sigma = self.params.sigma * self._decay ** max(0, len(self._episodes) - max(self._warmup, self._earlier))
        noisy = NormalDist(mean, max(sigma, 1e-6))  # 1e-6: less than any width's share
        drawn = self._random.uniform(max(noisy.cdf(0), 1e-12), min(noisy.cdf(1), 1 - 1e-12))
        return min(max(noisy.inv_cdf(drawn), 0.0), 1.0)

    def _rounded(self, group: int, fraction: float) -> int:
        step, least, dense = self.space.step[group], self.space.least[group], self.space.dense[group]
        return min(max(round(fraction * dense / step) * step, least), dense)

    def _state(self, step: int, widths: Widths) -> list[float]:
        """What the agent sees before it decides on a group, each number 0…1.

        In the paper's order: the index t; n, c as the width, the width's step and the share of it that must stay; for the
        type of layer whether it is a residual stream; for h, w, stride and k, which make a channel dear, the cost of one
        channel and of the smallest cut; FLOPs[t] as the share of the cost that the group can save; ``reduced``, what the
        groups before it have saved; ``rest``, what the groups after it can save; and the last action, at first 1.
        """
        space, groups = self.space, self.space.searchable
        decided = set(groups[:step])
        open_end = [widths[i] if i in decided else dense for i, dense in enumerate(space.dense)]
        later = set(groups[step + 1 :])
        tight_end = [self._floor[i] if i in later else width for i, width in enumerate(open_end)]
        dense_cost, cost = space.cost(space.dense), space.cost(open_end)
        last = groups[step - 1] if step else None
        return [
            *self._static[step],
            (dense_cost - cost) / dense_cost,
            (cost - space.cost(tight_end)) / dense_cost,
            1.0 if last is None else widths[last] / space.dense[last],
        ]


def _exponent(action: float) -> float:
    return (1 - action) / max(action, 1e-6)


def _static_features(space: SearchSpace) -> list[list[float]]:
    """Per searchable group the features that no action changes, each scaled to 0…1 over the groups; constant ones are 0."""
    dense = space.cost(space.dense)

    def saved(group: int, width: int) -> int:
        return dense - space.cost([*space.dense[:group], width, *space.dense[group + 1 :]])

    rows = []
    for number, i in enumerate(space.searchable):
        width, step, least = space.dense[i], space.step[i], space.least[i]
        smallest = saved(i, width - step)
        rows.append(
            [number, width, step, least / width, float(space.groups[i].residual), smallest / step, smallest, saved(i, least)]
        )
    lows, highs = map(min, zip(*rows, strict=True)), map(max, zip(*rows, strict=True))
    bounds = [(low, high - low or 1) for low, high in zip(lows, highs, strict=True)]
    return [[(value - low) / span for value, (low, span) in zip(row, bounds, strict=True)] for row in rows]
