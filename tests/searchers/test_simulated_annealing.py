from __future__ import annotations

import random
from itertools import pairwise

import pytest

from searchers.base import Outcome, Proposal
from searchers.moves import exchange
from searchers.space import Group
from tests.searchers.objectives import Objective, found, landscape, make, residual_space, run, small_space
from tests.searchers.spaces import parallel, space, within_one_step


def in_batches(objective: Objective, chains: int, shuffle: int) -> list[tuple[int, ...]]:
    """Asks for all there is, then tells in a shuffled order."""
    searcher, order, asked = (
        make("simulated_annealing", residual_space(3, 0.5), 60, 0, chains=chains),
        random.Random(shuffle),
        [],
    )
    while True:
        batch = []
        while isinstance(answer := searcher.ask(), Proposal):
            batch.append(answer)
        if not batch:
            return asked
        asked += [proposal.widths for proposal in batch]
        for proposal in order.sample(batch, len(batch)):
            searcher.tell(proposal.id, Outcome(objective(proposal.widths)))


def test_every_plan_is_on_the_budget():
    of = residual_space(3, 0.5)
    assert all(within_one_step(of, widths) for widths in run("simulated_annealing", of, landscape(of, 0), 60))


@pytest.mark.parametrize("chains", [1, 4])
def test_the_order_of_telling_changes_nothing(chains):
    on = landscape(residual_space(3, 0.5), 0)
    assert in_batches(on, chains, shuffle=1) == in_batches(on, chains, shuffle=2) == in_batches(on, chains, shuffle=3)


def test_all_chains_ask_at_once():
    searcher = make("simulated_annealing", residual_space(3, 0.5), 60, 0, chains=5)
    first = 0
    while isinstance(answer := searcher.ask(), Proposal):
        first += 1
        last = answer.id
    for number in range(last + 1):
        searcher.tell(number, Outcome(float(number)))
    assert sum(isinstance(searcher.ask(), Proposal) for _ in range(6)) == 5


@pytest.mark.parametrize("exponent", [-100, 100])
def test_the_scale_of_the_score_changes_nothing(exponent):
    on = landscape(residual_space(3, 0.5), 0)
    scaled = run("simulated_annealing", on.of, lambda w: 2.0**exponent * on(w), 60)  # a power of two changes no digit
    assert scaled == run("simulated_annealing", on.of, on, 60)


def test_another_seed_walks_elsewhere():
    on = landscape(residual_space(3, 0.5), 0)
    assert run("simulated_annealing", on.of, on, 60, seed=1) != run("simulated_annealing", on.of, on, 60, seed=2)


def test_it_ends_with_small_steps_and_begins_with_large_ones():
    of = residual_space(3, 0.5)
    plans = run("simulated_annealing", of, lambda w: random.Random(str(w)).random(), 200, chains=1)[8:]

    def moved(part: list[tuple[int, ...]]) -> float:
        return sum(abs(a - b) for one, other in pairwise(part) for a, b in zip(one, other, strict=True)) / len(part)

    assert moved(plans[-50:]) < 0.85 * moved(plans[:50])  # a step at least is moved, and a step is much in narrow groups


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_in_150_trials_it_ends_within_2_percent_of_the_best_plan(seed):
    on = landscape(small_space(), seed)
    assert found("simulated_annealing", on, 150, seed) <= on.optimum() + 2


def test_it_does_clearly_better_than_random_in_equal_trials():
    landscapes = [landscape(residual_space(3, 0.5), seed) for seed in range(3)]
    damage = sum(found("simulated_annealing", on, 200, seed) for seed, on in enumerate(landscapes))
    assert damage < 0.9 * sum(found("random", on, 200, seed) for seed, on in enumerate(landscapes))


class TestExchange:
    def test_it_stays_on_the_budget_and_moves_channels_from_one_group_to_another(self):
        of = residual_space(3, 0.5)
        plan = of.project([0.5] * len(of.groups))
        moved = exchange(of, plan, grow=2, shrink=5, share=0.25)
        assert moved is not None
        assert within_one_step(of, moved)
        assert moved[2] == plan[2] + 4
        assert moved[5] < plan[5]

    def test_a_dense_group_cannot_grow(self):
        of = residual_space(3, 0.5)
        plan = of.project([1.0, *[0.5] * 11])
        assert plan[0] == of.dense[0]
        assert exchange(of, plan, grow=0, shrink=5, share=0.1) is None

    def test_where_the_payer_has_too_little_less_is_gained(self):
        groups = [Group("gains", 60), Group("pays", 60)]
        of = space(groups, parallel(groups), ratio=0.5)
        assert exchange(of, (50, 10), grow=0, shrink=1, share=0.5) == (59, 1)
        assert exchange(of, (59, 1), grow=0, shrink=1, share=0.5) is None
