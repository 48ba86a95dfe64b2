"""From an inspection and a specification to the search: which groups vary, and how refusals read."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pruners.cost import CostModel, Linear, Polynomial, Term
from pruners.errors import InvalidInput
from searchers.base import Searcher
from searchers.finals import Finals
from workers.plan import check_schedule, check_scored, make_searcher, make_space, selected_groups
from workers.refusal import refusal
from workers.spec import JobSpec, LayerRule


def group(name: str, *layers: str, kind: str = "Conv2d", frozen: str | None = None) -> dict[str, Any]:
    return {
        "name": name,
        "width": 8,
        "divisor": 1,
        "minimum": 1,
        "layers": list(layers),
        "types": [kind] * len(layers),
        "residual": False,
        "frozen_reason": frozen,
        "unscored_by": ["slim"] if kind == "Linear" else [],
    }


GROUPS = [
    group("a", "a"),
    group("head", "head", kind="Linear", frozen="is an output of the network"),
    group("b", "b", "shortcut"),
    group("c", "c", kind="Linear"),
]


def cost() -> CostModel:
    """A chain a → b → c: over the three groups that are not frozen."""
    widths = [Linear(0, {i: 1}) for i in range(3)]
    polynomial = Polynomial([Term(1, widths[0]), Term(1, widths[0], widths[1]), Term(1, widths[1], widths[2])], 3)
    return CostModel([1, 1, 1], {"macs": polynomial, "params": polynomial})


@pytest.mark.parametrize(
    ("rules", "selected"),
    [
        ([{"op_types": ["default"]}], {"a", "b", "c"}),
        ([{"op_types": ["Conv2d"]}], {"a", "b"}),
        ([{"op_types": ["Conv2d"]}, {"op_names": ["c"]}], {"a", "b", "c"}),
        ([{"op_types": ["default"]}, {"op_names": ["shortcut"], "exclude": True}], {"a", "c"}),
        ([{"op_names": ["a"], "exclude": True}, {"op_types": ["default"]}], {"a", "b", "c"}),
        ([{"op_types": ["Linear"], "op_names": ["a", "c"]}], {"c"}),
        ([{"op_types": ["default"]}, {"op_names": ["head"], "exclude": True}], {"a", "b", "c"}),
    ],
)
def test_rules_select_groups_and_later_ones_win(rules: list[dict[str, Any]], selected: set[str]) -> None:
    assert selected_groups(GROUPS, [LayerRule.model_validate(rule) for rule in rules]) == selected


def test_groups_that_are_not_selected_keep_their_width() -> None:
    spec = JobSpec.model_validate(
        {"budget": {"ratio": 0.5}, "pruner": {"config_list": [{"op_types": ["Conv2d"]}], "round_to": 2}}
    )
    space = make_space(GROUPS, cost(), spec)
    assert [g.name for g in space.groups] == ["a", "b", "c"]
    assert space.least == (2, 2, 8)
    assert space.budget.limit == (8 + 64 + 64) // 2
    searcher = make_searcher(space, spec)
    assert 0 < searcher.planned_trials <= spec.limits.max_trials


def test_a_pruner_that_sees_nothing_of_a_selected_group_is_refused() -> None:
    def spec(rules: list[dict[str, Any]]) -> JobSpec:
        return JobSpec.model_validate({"budget": {"ratio": 0.5}, "pruner": {"name": "slim", "config_list": rules}})

    check_scored(GROUPS, spec([{"op_types": ["Conv2d"]}]))
    with pytest.raises(InvalidInput, match=r"^pruner\.name 'slim' sees nothing of the channels of c, .* or exclude c in "):
        check_scored(GROUPS, spec([{"op_types": ["default"]}]))


def test_a_searchers_parameters_are_named_in_full() -> None:
    spec = JobSpec.model_validate({"budget": {"ratio": 0.5}, "searcher": {"name": "netadapt", "params": {"rounds": "many"}}})
    with pytest.raises(InvalidInput, match=r"^searcher\.params\.rounds 'many' should be a valid integer"):
        make_searcher(make_space(GROUPS, cost(), spec), spec)


@pytest.mark.parametrize(
    ("sent", "sentence"),
    [
        ({"budget": {"ratio": 2}}, "budget.ratio 2 should be less than 1."),
        ({"budget": {"ratio": 0.5}, "sede": 1}, "sede 1 is not a known field; check its spelling or leave it out."),
        ({"budget": {"ratio": 0.5, "max": 3}}, "budget {'ratio': 0.5, 'max': 3} is not usable: give either ratio or max."),
    ],
)
def test_pydantics_errors_become_sentences(sent: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError) as refused:
        JobSpec.model_validate(sent)
    assert str(refusal(refused.value.errors())) == sentence


def test_scores_reach_the_space_and_a_schedule_has_none_to_rank() -> None:
    searcher = {"name": "fixed", "params": {"ranking": "global"}}
    spec = JobSpec.model_validate({"budget": {"ratio": 0.5}, "searcher": searcher})
    scores = [[float(g + 8 * i) for i in range(8)] for g in range(3)]
    space = make_space(GROUPS, cost(), spec, scores)
    assert [group.scores for group in space.groups] == [tuple(each) for each in scores]
    assert space.fits(make_searcher(space, spec).ask().widths)
    schedule = JobSpec.model_validate({"budget": {"ratio": 0.5}, "searcher": searcher, "pruner": {"name": "agp"}})
    with pytest.raises(InvalidInput, match=r"^searcher\.params\.ranking 'global' needs scores before anything is trained"):
        check_schedule(schedule)


def search_of(name: str, trials: int = 50, **recovery: object) -> Searcher:
    spec = JobSpec.model_validate(
        {"budget": {"ratio": 0.5}, "searcher": {"name": name}, "limits": {"max_trials": trials}, "recovery": recovery}
    )
    return make_searcher(make_space(GROUPS, cost(), spec), spec)


@pytest.mark.parametrize(
    ("name", "trials", "recovery", "has"),
    [
        ("auto", 50, {}, False),
        ("auto", 50, {"final_epochs": 5}, True),
        ("netadapt", 50, {"final_epochs": 5}, True),
        ("netadapt", 50, {"final_epochs": 5, "short_steps": 5}, False),  # trials start from each other's networks
        ("autocompress", 50, {"final_epochs": 5}, False),
        ("fixed", 50, {"final_epochs": 5}, False),  # one plan
        ("auto", 39, {"final_epochs": 5}, False),
        ("auto", 10, {"finalists": 3}, True),
        ("auto", 50, {"final_epochs": 5, "finalists": 0}, False),
    ],
)
def test_a_search_whose_winner_is_trained_ends_with_a_final(
    name: str, trials: int, recovery: dict[str, Any], has: bool
) -> None:
    search = search_of(name, trials, **recovery)
    assert isinstance(search, Finals) == has
    assert search.planned_trials <= trials


@pytest.mark.parametrize(
    ("name", "finalists", "sentence"),
    [
        ("autocompress", 2, "recovery.finalists 2 does not go with autocompress here, whose trials start from each other's"),
        ("auto", 50, "recovery.finalists 50 leaves auto too few of limits.max_trials 50; state fewer, or allow more trials."),
        ("netadapt", 48, "recovery.finalists 48 leaves netadapt too few of limits.max_trials 50"),
    ],
)
def test_a_final_that_leaves_no_search_is_refused(name: str, finalists: int, sentence: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        search_of(name, finalists=finalists)
    assert str(refused.value).startswith(sentence)


@pytest.mark.parametrize(
    ("sent", "sentence"),
    [
        ({}, "budget states no limit; give ratio or max, or a constraint"),
        ({"budget": {}}, "budget states no limit; give ratio or max, or a constraint"),
        ({"budget": []}, "budget lists 0 sizes; state one to 10."),
        (
            {"budget": [{"ratio": 0.5}, {"metric": "params", "max": 9}]},
            r"budget lists sizes in unlike metrics \(macs, par",
        ),
        (
            {"budget": [{"ratio": 0.5}, {"ratio": 0.3}], "constraint": {"max_metric_drop": 0.1}},
            "constraint goes with one budget",
        ),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(sent: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{sentence}"):
        JobSpec.model_validate(sent)


def test_a_list_of_sizes_names_the_one_that_is_wrong() -> None:
    with pytest.raises(ValidationError) as refused:
        JobSpec.model_validate({"budget": [{"ratio": 0.5}, {"ratio": 2}]})
    assert str(refusal(refused.value.errors())) == "budget.1.ratio 2 should be less than 1."
    spec = JobSpec.model_validate({"budget": [{"ratio": 0.5}, {"ratio": 0.01}]})
    with pytest.raises(InvalidInput, match=r"^budget\.ratio 0\.01 is out of reach"):
        make_space(GROUPS, cost(), spec)


def test_several_sizes_share_the_trials() -> None:
    sizes = {"budget": [{"ratio": 0.3}, {"ratio": 0.7}], "limits": {"max_trials": 20}, "searcher": {"name": "random"}}
    spec = JobSpec.model_validate(sizes)
    space = make_space(GROUPS, cost(), spec)
    assert space.budget.ratio == 0.7, "what is within the smaller is within the larger"
    assert make_searcher(space, spec).planned_trials == 20
    smallest = JobSpec.model_validate(
        {"constraint": {"max_metric_drop": 0.1}, "recovery": {"final_epochs": 2}, "limits": {"max_trials": 40}}
    )
    space = make_space(GROUPS, cost(), smallest)
    assert space.fits(space.least)
    assert not space.fits(space.dense)
    assert make_searcher(space, smallest).planned_trials == 40
    few = smallest.model_copy(update={"limits": smallest.limits.model_copy(update={"max_trials": 19})})
    with pytest.raises(InvalidInput, match=r"^limits\.max_trials 19 leaves 0 trials for each of 10 sizes; allow more\."):
        make_searcher(space, few)
    netadapt = smallest.model_copy(update={"searcher": smallest.searcher.model_copy(update={"name": "netadapt"})})
    wanting = netadapt.model_copy(update={"limits": smallest.limits.model_copy(update={"max_trials": 30})})
    with pytest.raises(InvalidInput, match=r"^limits\.max_trials 30 leaves 2 trials for each of 10 sizes, and .* too few for"):
        make_searcher(space, wanting)
