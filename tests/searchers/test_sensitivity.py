from __future__ import annotations

from itertools import pairwise

import pytest
from pydantic import ValidationError

from searchers.base import Done, Outcome, Proposal, parse_params
from searchers.curves import damage_curves, even_damage, least_damage
from searchers.sensitivity import Sensitivity
from searchers.space import Group, SearchSpace
from tests.searchers.objectives import found, landscape, residual_space, run, small_space
from tests.searchers.spaces import parallel, space, within_one_step


@pytest.fixture
def branches() -> SearchSpace:
    groups = [Group(f"branch{i}", 60) for i in range(4)]
    return space(groups, parallel(groups), ratio=0.5)


def asked(searcher: Sensitivity) -> list[Proposal]:
    proposals = []
    while isinstance(answer := searcher.ask(), Proposal):
        proposals.append(answer)
    return proposals


def tell(searcher: Sensitivity, proposals: list[Proposal], score: float | None) -> None:
    for proposal in proposals:
        searcher.tell(proposal.id, Outcome(score))


class TestAnalysis:
    def test_it_probes_every_group_alone_and_all_in_parallel(self, branches):
        searcher = Sensitivity(branches, parse_params(Sensitivity, {"ratios": [0.5]}), 0, 100)
        assert [p.widths for p in asked(searcher)] == [
            (60, 60, 60, 60),
            (30, 60, 60, 60),
            (60, 30, 60, 60),
            (60, 60, 30, 60),
            (60, 60, 60, 30),
        ]

    def test_a_group_that_hurts_is_not_probed_deeper(self, branches):
        searcher = Sensitivity(branches, parse_params(Sensitivity, {"ratios": [0.1, 0.5]}), 0, 100)
        for proposal in asked(searcher):
            searcher.tell(proposal.id, Outcome(-1.0 if proposal.widths[2] < 60 else 0.0))
        assert [p.widths for p in asked(searcher)] == [(30, 60, 60, 60), (60, 30, 60, 60), (60, 60, 60, 30)]

    def test_no_group_is_probed_deeper_than_the_budget_could_ask(self):
        groups = [Group("dear", 60), Group("cheap", 6)]
        of = space(groups, parallel(groups), ratio=0.5)
        assert min(widths[0] for widths in run("sensitivity", of, lambda w: 0.0, 100)) == 27  # 27 + 6 of 66 channels

    def test_fewer_trials_are_fewer_ratios(self, branches):
        def probes(max_trials: int) -> int:
            plans = run("sensitivity", branches, lambda w: float(sum(w)), max_trials)
            return sum(not branches.fits(widths) for widths in plans)

        assert probes(100) == 1 + 4 * 9
        assert probes(30) == 1 + 4 * 3
        assert probes(9) == 1 + 4
        assert probes(8) == 0

    def test_the_curves_can_be_read_while_the_search_runs(self, branches):
        searcher = Sensitivity(branches, parse_params(Sensitivity, {"ratios": [0.5]}), 0, 100)
        assert searcher.curves == {}
        for proposal in asked(searcher):
            searcher.tell(proposal.id, Outcome(-4.0 if proposal.widths[1] < 60 else -2.0))
        assert searcher.curves == {"branch0": {30: 0.0}, "branch1": {30: 0.5}, "branch2": {30: 0.0}, "branch3": {30: 0.0}}

    @pytest.mark.parametrize("ratios", [[], [0.0], [1.0], [0.5, 0.1], [0.5, 0.5]])
    def test_ratios_that_make_no_curve_are_refused(self, ratios):
        with pytest.raises(ValidationError, match="ratios"):
            parse_params(Sensitivity, {"ratios": ratios})


class TestAllocation:
    def test_curves_are_monotone_and_pass_through_what_was_measured(self, branches):
        curve, *_ = damage_curves(branches, [{30: 4.0, 20: 3.0, 45: 1.0}, {}, {}, {}])
        assert [curve[width - 1] for width in (60, 45, 30, 20)] == [0.0, 1.0, 4.0, 4.0]
        assert all(narrow >= wide for narrow, wide in pairwise(curve))

    def test_a_group_that_was_not_tried_counts_as_a_middling_one(self, branches):
        curves = damage_curves(branches, [{30: 1.0}, {30: 2.0}, {30: 3.0}, {}])
        assert curves[3].tolist() == pytest.approx(curves[1].tolist())

    def test_even_damage_cuts_equal_groups_alike_and_a_harmless_one_most(self, branches):
        assert even_damage(branches, damage_curves(branches, [{30: 1.0}] * 4)) == (30, 30, 30, 30)
        harmless = even_damage(branches, damage_curves(branches, [{30: 1.0}, {30: 0.0}, {30: 1.0}, {30: 1.0}]))
        assert harmless == (39, 3, 39, 39)  # the one step that was left over went to the narrowest, twice

    def test_least_damage_balances_what_the_next_channel_costs(self, branches):
        # Squared shares: the sum is least where sensitivity times the share removed is equal, here 2/9, 4/9, 2/3, 2/3.
        plan = least_damage(branches, damage_curves(branches, [{30: 3.0}, {30: 1.5}, {30: 1.0}, {30: 1.0}]))
        assert within_one_step(branches, plan)
        assert plan == pytest.approx((47, 33, 20, 20), abs=1)


class TestSearch:
    @pytest.mark.parametrize("seed", [0, 1, 3])
    def test_in_60_trials_it_ends_within_2_percent_of_the_best_plan(self, seed):
        on = landscape(small_space(), seed)
        assert found("sensitivity", on, 60) <= on.optimum() + 2

    def test_it_does_clearly_better_than_random_in_equal_trials(self):
        landscapes = [landscape(residual_space(3, 0.5), seed) for seed in range(3)]
        damage = sum(found("sensitivity", on, 120) for on in landscapes)
        assert damage < 0.9 * sum(found("random", on, 120, seed) for seed, on in enumerate(landscapes))

    def test_a_search_whose_plans_all_fail_ends(self, branches):
        searcher = Sensitivity(branches, parse_params(Sensitivity, {}), 0, 20)
        tell(searcher, asked(searcher), 0.0)
        tell(searcher, asked(searcher), 0.0)
        tell(searcher, plans := asked(searcher), None)
        assert all(branches.fits(plan.widths) for plan in plans)
        assert searcher.ask() == Done()
