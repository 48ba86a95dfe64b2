from __future__ import annotations

from collections.abc import Callable

import pytest

from pruners.errors import InvalidInput
from searchers.autocompress import AutoCompress
from searchers.base import Done, Outcome, Proposal, parse_params
from searchers.space import Group, SearchSpace
from tests.searchers.objectives import landscape, residual_space, run
from tests.searchers.spaces import parallel, space, within_one_step

Objective = Callable[[Proposal], float | None]


@pytest.fixture
def branches() -> SearchSpace:
    groups = [Group(f"branch{i}", 64) for i in range(4)]
    return space(groups, parallel(groups), ratio=0.25)


def autocompress(of: SearchSpace, max_trials: int = 90, **params: object) -> AutoCompress:
    return AutoCompress(of, parse_params(AutoCompress, params), 0, max_trials)


def tried(searcher: AutoCompress, objective: Objective) -> list[Proposal]:
    asked: list[Proposal] = []
    while not isinstance(answer := searcher.ask(), Done):
        assert isinstance(answer, Proposal)
        asked.append(answer)
        searcher.tell(answer.id, Outcome(objective(answer)))
    return asked


def trained(proposals: list[Proposal]) -> list[Proposal]:
    return [proposal for proposal in proposals if proposal.training is not None]


def sensitive(of: SearchSpace, *sensitivity: float, training: float = 0.0) -> Objective:
    """Each group's share that went, squared; a network that was trained, or whose parent was, is better."""

    def score(proposal: Proposal) -> float:
        gone = zip(sensitivity, proposal.widths, of.dense, strict=True)
        better = training if proposal.training or proposal.parent is not None else 0.0
        return -1 - sum(s * (1 - width / dense) ** 2 for s, width, dense in gone) + better

    return score


def test_every_round_removes_the_same_share_and_the_last_ends_on_the_budget(branches):
    asked = tried(autocompress(branches, purify=0), sensitive(branches, 1, 2, 3, 4))
    costs = [branches.cost(proposal.widths) / branches.cost(branches.dense) for proposal in trained(asked)]
    assert costs == pytest.approx([0.25 ** (1 / 3), 0.25 ** (2 / 3), 0.25], abs=0.005)  # a channel is 0.4 % of it
    assert within_one_step(branches, trained(asked)[-1].widths, trained(asked)[-2].widths)
    assert len(asked) <= 90


def test_a_round_starts_from_what_the_last_one_trained(branches):
    asked = tried(autocompress(branches, purify=0), sensitive(branches, 1, 2, 3, 4))
    first, second, third = trained(asked)
    assert [first.parent, second.parent, third.parent] == [None, first.id, second.id]
    for proposal in asked:
        assert proposal.parent == (None if proposal.id <= first.id else first.id if proposal.id <= second.id else second.id)


def test_admm_trains_towards_the_best_plan_of_its_round(branches):
    objective = sensitive(branches, 1, 2, 3, 4)
    asked = tried(autocompress(branches, purify=0, admm_iterations=7, rho=0.5), objective)
    first = trained(asked)[0]
    assert first.widths == max(asked[: first.id], key=objective).widths
    assert dict(first.training.params) == {"criterion": "l2", "iterations": 7, "epochs": 1, "rho": 0.5}


def test_channels_that_are_not_missed_go_behind_the_training(branches):
    asked = tried(autocompress(branches), sensitive(branches, 0, 2, 0.001, 4))
    first = trained(asked)[0]
    probes = [proposal for proposal in asked if proposal.parent == first.id and "without" in proposal.note]
    assert [sum(a != b for a, b in zip(p.widths, first.widths, strict=True)) for p in probes] == [1] * len(probes)
    (purified,) = [proposal for proposal in asked if proposal.parent == first.id and "purified" in proposal.note]
    assert purified.widths[0] < first.widths[0]
    assert purified.widths[2] < first.widths[2]
    assert (purified.widths[1], purified.widths[3]) == (first.widths[1], first.widths[3])
    assert trained(asked)[1].parent == purified.id
    assert branches.cost(trained(asked)[-1].widths) == branches.cost((64, 64, 64, 64)) // 4, "behind the last round none go"


def test_what_is_missed_together_goes_alone(branches):
    free = sensitive(branches, 0, 2, 0.001, 4)
    asked = tried(autocompress(branches), lambda p: -9.0 if "purified" in p.note else free(p))
    first, second = trained(asked)[:2]
    parent = asked[second.parent]
    assert parent.parent == first.id
    assert parent.note == "round 1 of 3: without a part of branch0"


def test_a_training_that_fails_is_made_up_for_by_the_next_round(branches):
    objective = sensitive(branches, 1, 2, 3, 4)
    first_fails = lambda p: None if p.training and p.parent is None and "round 1" in p.note else objective(p)  # noqa: E731
    first, second, third = trained(tried(autocompress(branches, purify=0), first_fails))
    assert (first.parent, second.parent, third.parent) == (None, None, second.id)


def test_few_trials_make_fewer_rounds(branches):
    objective = sensitive(branches, 1, 2, 3, 4)
    assert len(trained(tried(autocompress(branches, max_trials=30), objective))) == 2
    (only,) = tried(autocompress(branches, max_trials=1), objective)
    assert only.training is not None
    assert only.widths == (16, 16, 16, 16)
    with pytest.raises(InvalidInput, match=r"searcher\.params\.rounds 3 takes two trials a round at least; state at most 2"):
        autocompress(branches, max_trials=5, rounds=3)


def test_it_does_less_damage_than_the_uniform_plan():
    of = residual_space(3, ratio=0.4)
    for seed in range(3):
        on = landscape(of, seed)
        plans = [widths for widths in run("autocompress", of, on, 120, seed) if of.fits(widths)]
        assert on.percent(max(plans, key=on)) < 75
