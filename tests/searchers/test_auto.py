from __future__ import annotations

import random

import numpy as np
import pytest

from searchers.base import Done, Given, Outcome, Proposal
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


class TestFirstPlans:
    def test_the_uniform_plans_come_first_and_all_plans_are_on_the_budget(self):
        of = residual_space(3, 0.5)
        controls = run("uniform", of, lambda w: 0.0)
        plans = run("auto", of, landscape(of, 0), 60)
        assert plans[:2] == controls
        assert all(within_one_step(of, widths) for widths in plans)

    def test_plans_of_an_earlier_search_save_as_many_draws_but_never_the_uniform_plans(self):
        of = residual_space(3, 0.5)
        controls, on = run("uniform", of, lambda w: 0.0), landscape(of, 0)
        known = [widths for widths in dict.fromkeys(run("random", of, on, 30)) if widths not in controls]
        for count in (0, 5, 20):
            searcher = make("auto", of, 60, 0)
            for number, widths in enumerate(known[:count]):
                searcher.give(Given(Proposal(number, widths), Outcome(on(widths))))
            first = []
            while isinstance(answer := searcher.ask(), Proposal):
                first.append(answer.widths)
            assert first[:2] == controls
            assert len(first) == max(len(controls), 12 - count)  # a fifth of the trials
            for number, widths in enumerate(first, count):
                searcher.tell(number, Outcome(on(widths)))
            answer = searcher.ask()
            assert isinstance(answer, Proposal)
            assert "doubt" in answer.note


class TestHalving:
    @pytest.mark.parametrize("halving", [None, 2])
    def test_plans_of_the_rounds_have_to_beat_the_last_of_the_best_half(self, halving):
        of = small_space()
        on, searcher, scores = landscape(of, 0), make("auto", of, 30, 0, halving=halving), {}
        assert searcher.names_rivals == (halving is not None)
        rivals = 0
        while isinstance(answer := searcher.ask(), Proposal):
            if answer.rival is not None:
                rivals += 1
                better = [score for score in scores.values() if score > answer.rival.bar]
                assert scores[answer.rival.number] == answer.rival.bar
                assert "doubt" in answer.note
                assert len(better) < len(scores) / 2 + 4, "as of the beginning of its round of four"
            scores[answer.id] = on(answer.widths)
            searcher.tell(answer.id, Outcome(scores[answer.id], metric=0.5))
        assert (rivals > 10) == (halving is not None)


class TestSearch:
    @pytest.mark.parametrize("seed", [0, 1, 3])
    def test_in_40_trials_it_ends_within_2_percent_of_the_best_plan(self, seed):
        on = landscape(small_space(), seed)
        assert found("auto", on, 40, seed) <= on.optimum() + 2

    def test_no_peer_does_clearly_better_in_equal_trials(self):
        landscapes = [landscape(residual_space(3, 0.5), seed) for seed in range(3)]
        damage = {
            name: sum(found(name, on, 60, seed) for seed, on in enumerate(landscapes))
            for name in ("auto", "netadapt", "random", "sensitivity", "simulated_annealing")
        }
        # Sensitivity is as good where, as here, damages nearly add up.
        assert damage["auto"] < 1.05 * min(damage.values())
        assert damage["auto"] < 0.8 * damage["random"]

    def test_noisy_scores_do_not_lead_it_astray(self):
        landscapes = [landscape(residual_space(8, 0.3), seed, noise=0.03) for seed in range(3)]
        damage = sum(found("auto", on, 60, seed) for seed, on in enumerate(landscapes))
        assert damage < 0.8 * sum(found("random", on, 60, seed) for seed, on in enumerate(landscapes))

    def test_it_learns_which_groups_hurt_together(self, branches):
        # Alone, every group hurts alike; together, the first two hurt much more.
        def score(w: tuple[int, ...]) -> float:
            return squares(branches, [1.0] * 4)(w) - 8 * (1 - w[0] / 60) * (1 - w[1] / 60)

        plans = run("auto", branches, score, 60)
        assert score(max(plans, key=score)) > 0.6 * score(plans[0])  # at most 0.6 of the uniform plan's damage

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
