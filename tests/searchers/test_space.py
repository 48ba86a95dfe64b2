from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pruners.cost import ONE, CostModel, Polynomial, Term
from pruners.errors import InvalidInput
from searchers.space import Budget, Group, SearchSpace
from tests.searchers.spaces import chain, parallel, random_spaces, space, within_one_step

steady = settings(derandomize=True, deadline=None, max_examples=150)


def chain_of(*widths: int) -> list[Group]:
    return [Group(f"layer{i}", width) for i, width in enumerate(widths)]


class TestBudget:
    def test_a_ratio_is_the_decimal_the_user_typed(self):
        assert Budget.of("macs", 100, ratio=0.29).limit == 29  # 0.29 * 100 is 28.999… in binary
        assert Budget.of("macs", 99, ratio=0.5).limit == 49

    def test_a_maximum_is_the_limit(self):
        assert Budget.of("params", 100, maximum=42) == Budget("params", 42)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"ratio": 1.0}, "budget.ratio 1.0 is not between 0 and 1, both excluded."),
            ({"ratio": 0.0}, "budget.ratio 0.0 is not between 0 and 1, both excluded."),
            ({"ratio": float("nan")}, "budget.ratio nan is not between 0 and 1, both excluded."),
            ({"maximum": 100}, "budget.max 100 prunes nothing; state less than the dense 100 macs."),
            ({}, "budget needs either ratio or max."),
            ({"ratio": 0.5, "maximum": 5}, "budget needs either ratio or max."),
        ],
    )
    def test_a_limit_that_prunes_nothing_is_refused(self, arguments, message):
        with pytest.raises(InvalidInput, match=f"^{re.escape(message)}$"):
            Budget.of("macs", 100, **arguments)

    def test_an_unknown_metric_is_refused_with_those_there_are(self):
        with pytest.raises(InvalidInput, match=r"^budget\.metric 'flops' is unknown; use one of macs, params, size_bytes\.$"):
            Budget.of("flops", 100, ratio=0.5)


class TestWidths:
    def test_widths_are_multiples_of_round_to_where_the_dense_width_is(self):
        groups = [Group("a", 32), Group("b", 20), Group("c", 24, divisor=6), Group("d", 32, minimum=9)]
        of = space(groups, chain(groups), round_to=8)
        assert of.step == (8, 1, 24, 8)
        assert of.least == (8, 1, 24, 16)
        assert of.searchable == (0, 1, 3)

    def test_a_group_at_its_minimum_stays_dense(self):
        groups = [Group("kept", 16, minimum=16), Group("cut", 16)]
        of = space(groups, chain(groups))
        assert of.searchable == (1,)
        assert of.project([0.1, 0.9])[0] == 16

    def test_cost_is_that_of_the_budget_metric(self):
        groups = chain_of(8)
        assert space(groups, chain(groups), metric="macs").cost([8]) == 4 * 9 * (3 * 8 + 8 * 10)
        assert space(groups, chain(groups), metric="params").cost([8]) == 9 * (3 * 8 + 8 * 10) + 8 + 10

    @pytest.mark.parametrize("group", [(6, 4, 1), (4, 1, 0), (4, 1, 5), (4, 0, 1)])
    def test_impossible_groups_are_refused(self, group):
        with pytest.raises(ValueError, match="multiple of its divisor"):
            Group("layer", *group)


class TestRefusals:
    def test_nothing_to_prune(self):
        groups = [Group("layer", 8, minimum=8)]
        with pytest.raises(InvalidInput, match=r"^model has nothing to prune; let pruner\.config_list take in"):
            space(groups, chain(groups))

    def test_rounding_that_leaves_nothing_to_prune(self):
        groups = chain_of(8)
        with pytest.raises(InvalidInput, match=r"^pruner\.round_to 8 leaves no smaller width to any layer"):
            space(groups, chain(groups), round_to=8)

    def test_a_budget_that_pruning_does_not_touch(self):
        groups = chain_of(8)
        cost = CostModel([1], {"macs": Polynomial([Term(5, ONE)], groups=1)})
        with pytest.raises(InvalidInput, match=r"^budget\.metric 'macs' is not lowered by any prunable layer"):
            space(groups, cost)

    def test_the_smallest_maximum_stated_is_accepted(self):
        groups = chain_of(8, 8)
        with pytest.raises(InvalidInput, match=r"^budget\.max 1 is out of reach: the smallest reachable is ") as refusal:
            SearchSpace(groups, chain(groups), Budget.of("macs", 10**9, maximum=1))
        smallest = int(re.findall(r"reachable is (\d+) ", str(refusal.value))[0])
        SearchSpace(groups, chain(groups), Budget.of("macs", 10**9, maximum=smallest))

    @given(random_spaces())
    @steady
    def test_the_smallest_ratio_stated_is_accepted(self, of):
        dense, smallest = of.cost(of.dense), of.cost(of.least)
        refusal = str(Budget.of(of.budget.metric, dense, ratio=1e-9).out_of_reach(smallest, dense))
        stated = re.fullmatch(
            rf"budget\.ratio 1e-09 is out of reach: the smallest reachable is (0\.\d+) "
            rf"\({smallest:,} of {dense:,} {of.budget.metric}\)\.",
            refusal,
        )
        assert stated, refusal
        assert smallest <= Budget.of(of.budget.metric, dense, ratio=float(stated[1])).limit < dense


class TestProject:
    @given(random_spaces(), st.data())
    @steady
    def test_it_meets_the_budget_within_one_step(self, of, data):
        size = len(of.groups)
        preference = data.draw(st.lists(st.floats(1e-3, 1.0), min_size=size, max_size=size))
        assert within_one_step(of, of.project(preference))

    @given(random_spaces(), st.data())
    @steady
    def test_a_preference_of_one_keeps_a_group_dense_where_it_can(self, of, data):
        size = len(of.groups)
        preference = data.draw(st.lists(st.sampled_from([0.3, 0.7, 1.0]), min_size=size, max_size=size))
        spared = {i for i in of.searchable if preference[i] == 1}
        reachable = of.fits([of.dense[i] if i in spared else of.least[i] for i in range(size)])
        widths = of.project(preference)
        assert within_one_step(of, widths)
        if reachable:
            assert all(widths[i] == of.dense[i] for i in spared)

    def test_where_the_spared_groups_must_shrink_all_do(self):
        groups = chain_of(64, 64)
        of = space(groups, chain(groups), ratio=0.02)
        assert of.project([1.0, 0.5])[0] < 64

    def test_only_proportions_count(self):
        groups = chain_of(40, 80, 60)
        of = space(groups, chain(groups))
        assert of.project([0.2, 0.4, 0.4]) == of.project([0.4, 0.8, 0.8])

    def test_the_keep_fractions_are_in_the_proportions_asked_for(self):
        groups = chain_of(100, 100)
        first, second = space(groups, chain(groups), ratio=0.2).project([0.4, 0.8])
        assert second / first == pytest.approx(2, abs=0.1)  # one channel of some 30 either way

    def test_it_uses_the_budget_to_the_last_channel_that_a_branch_allows(self):
        groups = chain_of(50, 50)
        of = space(groups, parallel(groups), ratio=0.5)
        assert of.project([0.5, 0.5]) == (25, 25)

    @pytest.mark.parametrize("preference", [[0.5], [0.5, 0.0], [0.5, float("inf")], [0.5, float("nan")]])
    def test_a_preference_that_is_not_one_positive_number_a_group_is_refused(self, preference):
        groups = chain_of(8, 8)
        with pytest.raises(ValueError, match="positive number"):
            space(groups, chain(groups)).project(preference)


class TestFill:
    @given(random_spaces())
    @steady
    def test_nothing_more_fits(self, of):
        assert within_one_step(of, of.fill(of.least))

    def test_the_lowest_keep_fraction_grows_first(self):
        groups = chain_of(10, 10, 10)
        assert space(groups, parallel(groups), ratio=0.5).fill([1, 8, 1]) == (4, 8, 3)

    def test_widths_over_the_budget_come_back_as_they_are(self):
        groups = chain_of(10, 10)
        assert space(groups, chain(groups), ratio=0.5).fill([10, 9]) == (10, 9)


class TestLargest:
    @given(random_spaces(), st.data())
    @steady
    def test_it_is_what_trying_every_width_finds(self, of, data):
        widths = [data.draw(st.sampled_from(range(of.least[i], of.dense[i] + 1, of.step[i]))) for i in range(len(of.step))]
        group = data.draw(st.sampled_from(of.searchable))
        limit = data.draw(st.integers(0, of.cost(of.dense)))
        tried = range(of.least[group], widths[group] + 1, of.step[group])
        fitting = [w for w in tried if of.cost([*widths[:group], w, *widths[group + 1 :]]) <= limit]
        assert of.largest(widths, group, limit) == (max(fitting) if fitting else None)
