from __future__ import annotations

import math
from importlib.util import find_spec

import pytest
from pydantic import ValidationError

import searchers.optuna
from pruners.errors import InvalidInput
from searchers.base import Asked, Done, Given, Outcome, Proposal, Told, parse_params, replay
from searchers.optuna import Optuna
from searchers.space import Group, SearchSpace
from tests.searchers.objectives import found, landscape, residual_space, run, small_space
from tests.searchers.spaces import chain, parallel, space, within_one_step

INSTALLED = [
    "tpe",
    "nsga2",
    "gp",
    pytest.param("cmaes", marks=pytest.mark.skipif(find_spec("cmaes") is None, reason="pip install cmaes")),
]


def optuna(of: SearchSpace, max_trials: int = 60, seed: int = 0, **params: object) -> Optuna:
    return Optuna(of, parse_params(Optuna, params), seed, max_trials)


def ask(searcher: Optuna, count: int) -> list[Proposal]:
    asked = [searcher.ask() for _ in range(count)]
    assert all(isinstance(answer, Proposal) for answer in asked)
    return asked


class TestSearch:
    @pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
    def test_it_comes_within_two_percent_of_the_best_plan_and_random_does_not(self, sampler):
        on = landscape(small_space(), seed=4)
        gaps = [found("optuna", on, 60, seed, sampler=sampler) - on.optimum() for seed in range(3)]
        blind = [found("random", on, 60, seed) - on.optimum() for seed in range(3)]
        assert max(gaps) < 2
        assert sum(blind) > 3 * 2

    def test_the_gaussian_process_finds_it_in_fewer_trials(self):
        on = landscape(small_space(), seed=4)
        assert found("optuna", on, 30, sampler="gp") - on.optimum() < 2

    def test_it_beats_random_where_there_are_many_groups(self):
        on = landscape(residual_space(blocks=3, ratio=0.5), seed=2)
        for seed in range(3):
            assert found("optuna", on, 200, seed, sampler="nsga2") < 0.9 * found("random", on, 200, seed)

    def test_the_uniform_plans_come_first_so_that_it_is_never_worse(self):
        of = residual_space(blocks=2, ratio=0.5)
        controls = run("uniform", of, lambda w: 0.0)
        assert len(controls) == 2
        assert [proposal.widths for proposal in ask(optuna(of), 2)] == controls

    @pytest.mark.parametrize("sampler", INSTALLED)
    def test_any_score_will_do(self, sampler):
        scores = iter([None, math.nan, math.inf, 1e308, -1e308, 1e-300, 0.0, -1e300, *range(100)])
        groups = [Group("a", 30), Group("b", 40), Group("c", 20)]
        of = space(groups, parallel(groups))
        searcher = optuna(of, max_trials=16, sampler=sampler)
        while isinstance(answer := searcher.ask(), Proposal):
            assert within_one_step(of, answer.widths)
            searcher.tell(answer.id, Outcome(next(scores)))
        assert searcher.ask() == Done()

    def test_nothing_is_printed(self, capfd):
        run("optuna", small_space(), lambda w: 0.0, max_trials=5)
        assert capfd.readouterr() == ("", "")


class TestAskAndTell:
    @pytest.mark.parametrize("sampler", INSTALLED)
    def test_a_replay_goes_on_alike(self, sampler):
        of = small_space()
        on, first, record = landscape(of, seed=1), optuna(of, seed=3, sampler=sampler), []
        for count in [5, 5, 1, 2]:
            asked = ask(first, count)
            record += map(Asked, asked)
            for proposal in reversed(asked):
                record.append(Told(proposal.id, Outcome(on(proposal.widths))))
                first.tell(proposal.id, record[-1].outcome)
        second = optuna(of, seed=3, sampler=sampler)
        replay(second, record)
        assert ask(second, 1) == ask(first, 1)

    @pytest.mark.parametrize("sampler", INSTALLED)
    def test_an_earlier_search_is_learnt_from(self, sampler):
        of = small_space()
        on = landscape(of, seed=1)
        plans = run("random", of, on, max_trials=12)
        warm, cold = optuna(of, sampler=sampler), optuna(of, sampler=sampler)
        for number, widths in enumerate(plans):
            warm.give(Given(Proposal(number, widths), Outcome(on(widths))))
        found, blind = ask(warm, 4), ask(cold, 4)  # the first is the uniform plan
        assert [proposal.id for proposal in found] == [12, 13, 14, 15]
        assert [p.widths for p in found[1:]] != [p.widths for p in blind[1:]], (
            "beyond the uniform plan it follows what it knows"
        )

    def test_all_proposals_can_run_at_once(self):
        asked = ask(optuna(small_space(), max_trials=30), 30)
        assert len({proposal.widths for proposal in asked}) == 30

    def test_starts_that_are_one_plan_in_a_small_space_are_asked_for_once(self):
        groups = [Group("a", 3), Group("b", 3)]
        searcher = optuna(space(groups, parallel(groups)), max_trials=30)  # ten starts, two plans
        asked = []
        while isinstance(answer := searcher.ask(), Proposal):
            asked.append(answer.widths)
        assert sorted(asked) == [(1, 2), (2, 1)]

    def test_another_seed_searches_elsewhere(self):
        assert ask(optuna(small_space(), seed=1), 20) != ask(optuna(small_space(), seed=2), 20)

    def test_a_space_that_is_used_up_ends_the_search(self):
        groups = [Group("a", 3), Group("b", 3)]
        of = space(groups, parallel(groups))  # three of six channels: 1 + 2 or 2 + 1
        assert sorted(run("optuna", of, lambda w: 0.0)) == [(1, 2), (2, 1)]


class TestHalving:
    def test_a_plan_has_to_beat_the_last_of_the_best_third_of_those_that_saw_all_images(self):
        searcher = optuna(small_space(), halving=3)
        scores = [-3.0, -1.0, None, -2.0, -6.0, math.nan, -5.0, -4.0]
        asked = ask(searcher, 8)
        assert all(proposal.rival is None for proposal in asked), "nothing was told"
        for proposal, score in zip(asked, scores, strict=True):
            searcher.tell(proposal.id, Outcome(score, metric=None if score is None else 0.5))
        rival = ask(searcher, 1)[0].rival
        assert rival is not None
        assert (rival.number, rival.bar) == (3, -2.0), "of six"
        assert searcher.names_rivals

    def test_a_plan_that_ended_early_is_nobodys_rival(self):
        searcher = optuna(small_space(), halving=2)
        for proposal, metric in zip(ask(searcher, 3), [0.5, None, 0.5], strict=True):
            searcher.tell(proposal.id, Outcome(-float(proposal.id), metric))
        rival = ask(searcher, 1)[0].rival
        assert rival is not None
        assert rival.number == 0
        searcher = optuna(small_space(), halving=2)
        for proposal in ask(searcher, 3):
            searcher.tell(proposal.id, Outcome(-1.0))
        assert ask(searcher, 1)[0].rival is None

    def test_without_it_every_plan_sees_all_images(self):
        searcher = optuna(small_space())
        assert not searcher.names_rivals
        for proposal in ask(searcher, 5):
            searcher.tell(proposal.id, Outcome(-1.0, 0.5))
        assert ask(searcher, 1)[0].rival is None


class TestParameters:
    def test_a_sampler_whose_package_is_missing_is_refused(self, monkeypatch):
        monkeypatch.setattr(searchers.optuna, "find_spec", lambda name: None)
        with pytest.raises(InvalidInput, match=r"^searcher\.params\.sampler 'cmaes' needs .* pip install cmaes there"):
            optuna(small_space(), sampler="cmaes")

    @pytest.mark.parametrize("params", [{"sampler": "grid"}, {"trials": 0}, {"samples": 3}, {"halving": 1}])
    def test_parameters_out_of_range(self, params):
        with pytest.raises(ValidationError, match=next(iter(params))):
            parse_params(Optuna, params)

    def test_it_stops_after_the_trials_asked_for(self):
        groups = [Group("a", 30), Group("b", 40)]
        of = space(groups, chain(groups))
        assert optuna(of, trials=7).planned_trials == 7
        assert len(run("optuna", of, lambda w: 0.0, trials=7)) == 7
        assert optuna(of, max_trials=5, trials=7).planned_trials == 5
