"""The bound on what a metric dropped by holds as often as it says; what can never be confirmed is refused beforehand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pruners.errors import InvalidInput
from workers.constraint import CONFIDENCE, check_constraint, drop_bound, inputs_needed
from workers.spec import JobSpec, Task

TOP1 = Task.model_validate({"type": "classification"})
MSE = Task.model_validate({"type": "regression"})


def drops(lost: int, gained: int, inputs: int) -> NDArray[np.float64]:
    return np.array([1.0] * lost + [-1.0] * gained + [0.0] * (inputs - lost - gained))


@pytest.mark.parametrize(
    ("lost", "inputs", "bound"), [(0, 299, 0.009969), (0, 1000, 0.002991), (1, 473, 0.01), (10, 1000, 0.016909)]
)
def test_where_nothing_is_gained_the_bound_is_that_of_a_share(lost: int, inputs: int, bound: float) -> None:
    """Of tables of Clopper and Pearson's limits: with 0 of n it is 1 − 0.05^(1/n)."""
    assert drop_bound(drops(lost, 0, inputs)) == pytest.approx(bound, abs=3e-5)
    if lost == 0:
        assert drop_bound(drops(0, 0, inputs)) == pytest.approx(1 - (1 - CONFIDENCE) ** (1 / inputs))


def test_what_is_gained_counts_against_what_is_lost() -> None:
    """As for large samples: difference + 1.645·√(lost + gained − (lost − gained)²/n)/n."""
    for lost, gained, inputs in [(60, 40, 2000), (400, 330, 10_000), (30, 90, 5000)]:
        error = math.sqrt(lost + gained - (lost - gained) ** 2 / inputs) / inputs
        assert drop_bound(drops(lost, gained, inputs)) == pytest.approx((lost - gained) / inputs + 1.645 * error, rel=0.05)
    assert drop_bound(drops(5, 5, 400)) < drop_bound(drops(5, 0, 400))
    assert drop_bound(drops(3, 0, 3)) == 1.0


def test_the_bound_of_more_inputs_is_what_they_would_give_were_they_alike() -> None:
    for lost, gained in [(2, 0), (3, 1)]:
        assert drop_bound(drops(lost, gained, 300), 1200) == pytest.approx(drop_bound(drops(4 * lost, 4 * gained, 1200)))
    figures = np.random.default_rng(0).normal(0.1, 1, 400)
    assert drop_bound(figures, 1600) < drop_bound(figures)


@pytest.mark.parametrize("inputs", [300, 400, 1000])
@pytest.mark.parametrize("gained", [0.0, 0.001, 0.005, 0.02, 0.1])
def test_a_network_that_drops_by_too_much_is_confirmed_in_one_case_of_twenty(inputs: int, gained: float) -> None:
    """Exact: the chance, of all counts that may come up, of those by which a drop of 0.0101 counts as one of less than 0.01."""
    allowed, lost = 0.01, gained + 0.0101
    log = [math.lgamma(n + 1) for n in range(inputs + 1)]
    shares = [math.log(lost), math.log(gained) if gained else -math.inf, math.log1p(-lost - gained)]
    spread = 6 * math.sqrt(inputs * (lost + gained)) + 6
    chance = 0.0
    for b in range(int(inputs * lost + spread)):
        for c in range(int(inputs * gained + spread) if gained else 1):
            rest = inputs - b - c
            weight = (
                log[inputs] - log[b] - log[c] - log[rest] + b * shares[0] + (c * shares[1] if c else 0.0) + rest * shares[2]
            )
            if weight > -20 and b - c < inputs * allowed and drop_bound(drops(b, c, inputs)) <= allowed:
                chance += math.exp(weight)
    assert chance <= 0.06, "a score bound is near to its level, not always below it"


def test_of_a_mean_of_figures_the_bound_is_students() -> None:
    draw = np.random.default_rng(0)
    held = [drop_bound(draw.normal(0.3, 2.0, 40)) >= 0.3 for _ in range(2000)]
    assert np.mean(held) == pytest.approx(CONFIDENCE, abs=0.015)


@pytest.mark.parametrize("allowed", [0.001, 0.01, 0.05, 0.5])
def test_inputs_are_needed_until_a_perfect_network_is_confirmed(allowed: float) -> None:
    needed = inputs_needed(allowed, TOP1)
    assert drop_bound(drops(0, 0, needed)) <= allowed < drop_bound(drops(0, 0, needed - 1))


def spec(**fields: Any) -> JobSpec:
    return JobSpec.model_validate({"constraint": {"max_metric_drop": 0.01}, **fields})


def data(test: int) -> dict[str, Any]:
    return {"splits": {"train": 1000, "test": test, "val": 0}}


@pytest.mark.parametrize(
    ("fields", "task", "test", "sentence"),
    [
        (
            {},
            TOP1,
            200,
            "constraint.max_metric_drop 0.01 cannot be confirmed on 200 test inputs, by any network: to be 95% certain takes "
            "299; add some, or allow 0.015.",
        ),
        (
            {},
            MSE,
            20,
            "constraint.max_metric_drop 0.01 cannot be confirmed on 20 test inputs, by any network: .* takes 30; add",
        ),
        (
            {},
            Task.model_validate({"type": "custom", "code": "def metric(outputs, labels): return 0"}),
            999,
            "task.metric 'custom_score' is no mean over inputs, so that no bound on its drop can be confirmed; use one of",
        ),
        (
            {"searcher": {"name": "autocompress"}},
            TOP1,
            400,
            "searcher.name 'autocompress' trains towards one size, .* use one of ",
        ),
        ({"recovery": {"finalists": 3}}, TOP1, 400, "recovery.finalists 3 is not for a constraint alone: each size is trained"),
        ({"recovery": {"recipe": {"patience": 3}}}, TOP1, 400, "recovery.recipe.patience 3 is not for a constraint alone"),
    ],
)
def test_what_cannot_be_confirmed_or_searched_is_refused(fields: dict[str, Any], task: Task, test: int, sentence: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{sentence}"):
        check_constraint(spec(**fields), task, data(test), schedule=False)
    check_constraint(spec(), TOP1, data(299), schedule=False)


def test_a_schedule_goes_with_a_budget_beside_the_constraint_alone() -> None:
    with pytest.raises(InvalidInput, match=r"^pruner.name 'agp' trains towards one size"):
        check_constraint(spec(pruner={"name": "agp"}, searcher={"name": "fixed"}), TOP1, data(400), schedule=True)
    stated = spec(budget={"ratio": 0.5}, pruner={"name": "agp"}, searcher={"name": "fixed"})
    check_constraint(stated, TOP1, data(400), schedule=True)
