from __future__ import annotations

import random
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from pruners.errors import InvalidInput
from searchers.amc import AMC
from searchers.base import Done, Outcome, Proposal, Wait, parse_params
from searchers.ddpg import BATCH, Agent, Transition
from searchers.space import Group, SearchSpace, Widths
from tests.searchers.objectives import landscape, residual_space, run, small_space
from tests.searchers.spaces import chain, parallel, space, within_one_step

ROOT = Path(__file__).parents[2]


def amc(of: SearchSpace, max_trials: int = 40, seed: int = 0, **params: object) -> AMC:
    return AMC(of, parse_params(AMC, params), seed, max_trials)


def ask_batch(searcher: AMC) -> list[Proposal]:
    asked = []
    while isinstance(answer := searcher.ask(), Proposal):
        asked.append(answer)
    return asked


def layers(count: int) -> SearchSpace:
    groups = [Group(f"layer{i}", 16 * (1 + 3 * i // count)) for i in range(count)]
    return space(groups, chain(groups))


class TestAgent:
    def test_it_learns_the_best_action_of_each_state(self):
        agent, draw = Agent(states=2, capacity=500, seed=0), random.Random(0)
        best = {(0.0, 1.0): 0.3, (1.0, 0.0): 0.8}
        for state, action in best.items():
            tried = [draw.random() for _ in range(250)]
            agent.remember(Transition(state, a, -((a - action) ** 2), None) for a in tried)
        agent.learn(updates=400)
        for state, action in best.items():
            assert abs(agent.act(state) - action) < 0.1  # as near as 400 updates get

    def test_equal_seeds_learn_alike_and_the_global_generator_is_left_alone(self):
        import torch

        before = torch.get_rng_state()
        answers = []
        for seed in (1, 1, 2):
            agent = Agent(states=1, capacity=BATCH, seed=seed)
            agent.remember(Transition([i / BATCH], i / BATCH, 1.0, None) for i in range(BATCH))
            agent.learn(updates=3)
            answers.append(agent.act([0.5]))
        assert answers[0] == answers[1] != answers[2]
        assert torch.equal(torch.get_rng_state(), before)


class TestSearch:
    def test_its_episodes_grow_better_than_blind_ones(self):
        on = landscape(layers(6), seed=2)
        blind, learnt = [], []
        for seed in range(3):  # not every seed gets there in so few episodes
            damage = [on.percent(widths) for widths in run("amc", on.of, on, 80, seed)]
            blind += damage[2:20]
            learnt += damage[-20:]
        assert statistics.median(learnt) < 0.5 * statistics.median(blind)

    def test_the_uniform_plans_come_first_so_that_it_is_never_worse(self):
        of = residual_space(blocks=2, ratio=0.5)
        assert [p.widths for p in ask_batch(amc(of))][:2] == run("uniform", of, lambda w: 0.0)

    @pytest.mark.parametrize("reward", ["accuracy", "guaranteed"])
    def test_every_plan_is_exactly_on_the_budget(self, reward):
        of, noise = layers(6), random.Random(0)
        searcher = amc(of, 30, reward=reward, warmup=12)
        while batch := ask_batch(searcher):
            for proposal in batch:
                assert within_one_step(of, proposal.widths)
                searcher.tell(proposal.id, Outcome(noise.gauss(0, 1), metric=noise.random()))

    def test_the_floor_is_left_to_every_group_unless_the_budget_asks_for_less(self):
        groups = [Group(f"branch{i}", 100) for i in range(6)]
        of = space(groups, parallel(groups), ratio=0.5)
        assert min(min(widths) for widths in run("amc", of, lambda w: 0.0, max_trials=30, floor=0.3)) >= 30
        tight = space(groups, parallel(groups), ratio=0.1)
        assert run("amc", tight, lambda w: 0.0, max_trials=5, floor=0.3) == [(10,) * 6]

    def test_rewards_have_no_scale(self):
        of = layers(6)
        on = landscape(of, seed=1)
        assert run("amc", of, on, 30) == run("amc", of, lambda w: 1e9 * on(w), 30)

    def test_the_guaranteed_reward_goes_by_accuracy(self):
        of = layers(6)

        def plans(reward: str, score: int) -> list[Widths]:
            searcher, asked = amc(of, 24, reward=reward), []
            while isinstance(answer := searcher.ask(), Proposal):
                asked.append(answer.widths)
                searcher.tell(answer.id, Outcome(float(score * answer.widths[0]), metric=answer.widths[0] / 100))
            return asked

        assert plans("guaranteed", 1) == plans("guaranteed", -1)
        assert plans("accuracy", 1) != plans("accuracy", -1)


class TestBatches:
    def test_episodes_run_side_by_side_and_the_order_of_telling_changes_nothing(self):
        of = layers(6)
        on = landscape(of, seed=1)
        in_order, reverse = amc(of, 30, parallel=5), amc(of, 30, parallel=5)
        while batch := ask_batch(in_order):
            assert len(batch) <= 5
            assert in_order.ask() == Wait()
            assert ask_batch(reverse) == batch
            for searcher, order in ((in_order, batch), (reverse, batch[::-1])):
                for proposal in order:
                    searcher.tell(proposal.id, Outcome(on(proposal.widths)))
        assert ask_batch(reverse) == []

    def test_failed_trials_teach_nothing(self):
        of = layers(6)
        searcher = amc(of, 40)
        while batch := ask_batch(searcher):
            for proposal in batch:
                searcher.tell(proposal.id, Outcome(float("nan") if proposal.id % 2 else None))
        assert searcher.ask() == Done()

    def test_a_search_that_is_all_warm_up_needs_no_torch(self):
        script = (
            "import sys; from tests.searchers.objectives import run, small_space; "
            "run('amc', small_space(), lambda w: 0.0, 12); sys.exit('torch' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


class TestParameters:
    @pytest.mark.parametrize(
        "params", [{"sigma": 0.0}, {"decay": 1.1}, {"floor": 1.0}, {"parallel": 0}, {"reward": "flops"}, {"episodes": 9}]
    )
    def test_parameters_out_of_range(self, params):
        with pytest.raises(ValidationError, match=next(iter(params))):
            parse_params(AMC, params)

    def test_a_warm_up_that_leaves_nothing_to_learn_in(self):
        with pytest.raises(InvalidInput, match=r"^searcher\.params\.warmup 40 leaves no episode .* which is 40\.$"):
            amc(small_space(), 40, warmup=40)
