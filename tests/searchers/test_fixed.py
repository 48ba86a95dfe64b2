"""The one plan of ``fixed``: the same fraction everywhere, or one threshold over all scores, exactly on the budget."""

from __future__ import annotations

import numpy as np
import pytest

from pruners.errors import InvalidInput
from searchers.base import Proposal, parse_params
from searchers.fixed import Fixed
from searchers.space import Group, SearchSpace
from tests.searchers.spaces import chain, parallel, space, within_one_step


def plan(of: SearchSpace, **params: object) -> tuple[int, ...]:
    searcher = Fixed(of, parse_params(Fixed, params), 0, 1)
    answer = searcher.ask()
    assert isinstance(answer, Proposal)
    return answer.widths


def scored(*groups: tuple[int, int, float], seed: int = 0) -> list[Group]:
    """Groups of (width, divisor, size of their scores)."""
    rng = np.random.default_rng(seed)
    return [
        Group(f"g{i}", width, divisor, divisor, scores=tuple(size * rng.random(width // divisor)))
        for i, (width, divisor, size) in enumerate(groups)
    ]


@pytest.mark.parametrize("ratio", [0.15, 0.4, 0.7, 0.95])
@pytest.mark.parametrize("seed", range(3))
def test_one_threshold_decides_every_width_and_uses_the_budget_up(ratio: float, seed: int) -> None:
    groups = scored((32, 1, 1.0), (48, 2, 2.0), (64, 1, 0.2), (16, 4, 5.0), seed=seed)
    of = space(groups, parallel(groups), ratio=ratio)

    def above(threshold: float) -> list[int]:
        counts = [group.divisor * sum(score >= threshold for score in group.scores) for group in groups]
        return [max(count, least) for count, least in zip(counts, of.least, strict=True)]

    lowest, fitting = list(of.least), list(of.least)
    for threshold in sorted((score for group in groups for score in group.scores), reverse=True):
        lowest = above(threshold)
        if not of.fits(lowest):
            break
        fitting = lowest
    widths = plan(of, ranking="global")
    assert within_one_step(of, widths)
    assert all(width >= least for width, least in zip(widths, fitting, strict=True))
    (next_one,) = [i for i, (low, fit) in enumerate(zip(lowest, fitting, strict=True)) if low != fit]
    assert widths[next_one] == fitting[next_one], "the best one that went does not fit"


@pytest.mark.parametrize("round_to", [4, 8])
def test_thresholds_hold_on_a_grid(round_to: int) -> None:
    groups = scored((32, 1, 1.0), (48, 2, 2.0), (64, 1, 0.2))
    of = space(groups, chain(groups), ratio=0.4, round_to=round_to)
    assert within_one_step(of, plan(of, ranking="global"))


def test_a_group_of_worthless_channels_keeps_its_least() -> None:
    groups = [Group("good", 20, scores=(1.0,) * 20), Group("bad", 20, scores=(0.0,) * 20)]
    assert plan(space(groups, parallel(groups), ratio=0.525), ranking="global") == (20, 1)


def test_equal_scores_are_cut_one_by_one_to_the_budget() -> None:
    groups = [Group(name, 20, scores=(1.0,) * 20) for name in "abc"]
    of = space(groups, chain(groups), ratio=0.5)
    assert within_one_step(of, plan(of, ranking="global"))


def test_uniform_is_the_default_and_global_spares_no_stream() -> None:
    groups = scored((32, 1, 1.0), (64, 1, 1.0))
    of = space(groups, parallel(groups), ratio=0.5)
    assert plan(of) == of.project([0.5, 0.5])
    with pytest.raises(InvalidInput, match=r"^searcher\.params\.residual False cannot spare residual streams"):
        plan(of, ranking="global", residual=False)
