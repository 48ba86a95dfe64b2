from __future__ import annotations

import random

import numpy as np
import pytest

from searchers.base import Done, Outcome, Proposal
from searchers.curves import damage_curves, least_damage
from searchers.regression import Regression
from searchers.space import Group, SearchSpace
from tests.searchers.objectives import Objective, found, landscape, make, residual_space, run, small_space
from tests.searchers.spaces import parallel, space, within_one_step


@pytest.fixture
def branches() -> SearchSpace:
    groups = [Group(f"branch{i}", 60) for i in range(4)]
    return space(groups, parallel(groups), ratio=0.5)


def squares(of: SearchSpace, sensitivity: list[float]) -> Objective:
    return lambda w: -sum(s * (1 - a / d) ** 2 for s, a, d in zip(sensitivity, w, of.dense, strict=True))


class TestTable:
    def test_first_it_measures_every_group_alone_in_parallel(self, branches):
        searcher = make("auto", branches, 60, 0)
        first = [searcher.ask() for _ in range(5)]
        assert [p.widths for p in first if isinstance(p, Proposal)] == [
            (60, 60, 60, 60),
            (30, 60, 60, 60),
            (60, 30, 60, 60),
            (60, 60, 30, 60),
            (60, 60, 60, 30),
        ]
        assert not isinstance(searcher.ask(), Proposal)

    def test_the_seed_is_the_best_plan_where_damages_add_up_as_the_table_supposes(self, branches):
        sensitivity = [3.0, 1.5, 1.0, 1.0]
        plans = run("auto", branches, squares(branches, sensitivity), 60)
        seed = next(widths for widths in plans if branches.fits(widths))
        expected = damage_curves(branches, [{30: 0.25 * s} for s in sensitivity])
        assert seed == pytest.approx(least_damage(branches, expected), abs=1)
        assert seed == pytest.approx((47, 33, 20, 20), abs=1)

    def test_too_few_trials_for_a_table_go_to_plans_on_the_budget(self):
        of = residual_space(3, 0.5)
        assert all(within_one_step(of, widths) for widths in run("auto", of, landscape(of, 0), 13))


class TestSearch:
    @pytest.mark.parametrize("seed", [0, 1, 3])
    def test_in_40_trials_it_ends_within_2_percent_of_the_best_plan(self, seed):
        on = landscape(small_space(), seed)
        assert found("auto", on, 40, seed) <= on.optimum() + 2

    def test_it_does_better_than_every_peer_in_equal_trials(self):
        landscapes = [landscape(residual_space(3, 0.5), seed) for seed in range(3)]
        damage = {
            name: sum(found(name, on, 60, seed) for seed, on in enumerate(landscapes))
            for name in ("auto", "netadapt", "random", "sensitivity", "simulated_annealing")
        }
        assert min(damage, key=damage.__getitem__) == "auto"
        assert damage["auto"] < 0.8 * damage["random"]

    def test_noisy_scores_do_not_lead_it_astray(self):
        landscapes = [landscape(residual_space(8, 0.3), seed, noise=0.03) for seed in range(3)]
        damage = sum(found("auto", on, 60, seed) for seed, on in enumerate(landscapes))
        assert damage < 0.8 * sum(found("random", on, 60, seed) for seed, on in enumerate(landscapes))

    def test_it_learns_what_the_table_cannot_tell(self, branches):
        # Alone, every group hurts alike; together, the first two hurt much more.
        def score(w: tuple[int, ...]) -> float:
            return squares(branches, [1.0] * 4)(w) - 8 * (1 - w[0] / 60) * (1 - w[1] / 60)

        plans = [widths for widths in run("auto", branches, score, 60) if branches.fits(widths)]
        seed = plans[0]
        assert score(max(plans, key=score)) > 0.6 * score(seed)  # at most 0.6 of the seed's damage

    def test_a_search_without_a_success_ends(self):
        searcher = make("auto", residual_space(3, 0.5), 60, 0)
        while isinstance(answer := searcher.ask(), Proposal):
            searcher.tell(answer.id, Outcome(None, error="out of memory"))
        assert answer == Done()


class TestRegression:
    def test_it_predicts_plans_from_which_it_learnt_that_a_curve_is_wrong(self):
        draw = np.random.default_rng(0)
        damages = draw.uniform(0, 0.5, (60, 4))
        losses = damages @ np.array([1.0, 1.0, 1.0, 3.0])
        model = Regression(damages[:40], losses[:40])
        means, deviations = model.predict(damages[40:])
        # The spread of the losses is about 0.5; a hundredth of that is the noise that 40 exact plans leave.
        assert np.abs(means - losses[40:]).max() < 0.02
        assert deviations.max() < 0.1

    def test_what_is_believed_is_less_doubted_and_expected_as_before(self):
        draw = np.random.default_rng(0)
        damages, losses = draw.uniform(0, 0.5, (12, 6)), draw.normal(size=12)
        model = Regression(damages, losses)
        plan = draw.uniform(0, 0.5, (1, 6))
        (mean,), (deviation,) = model.predict(plan)
        (believed,), (left,) = model.believing(plan).predict(plan)
        assert believed == pytest.approx(mean, abs=0.2 * deviation)
        assert left < deviation

    def test_losses_of_any_scale_are_predicted_alike(self):
        damages = np.random.default_rng(0).uniform(0, 0.5, (20, 4))
        losses = np.array([random.Random(i).random() for i in range(20)])
        means, deviations = Regression(damages, losses).predict(damages)
        large, wide = Regression(damages, 2.0**60 * losses).predict(damages)
        assert (large == 2.0**60 * means).all()
        assert (wide == 2.0**60 * deviations).all()
