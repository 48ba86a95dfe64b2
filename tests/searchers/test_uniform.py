from __future__ import annotations

from searchers.base import Done, Outcome, Proposal, parse_params
from searchers.space import Group, SearchSpace
from searchers.uniform import Uniform
from tests.searchers.spaces import model, space


def residual_network(ratio: float) -> SearchSpace:
    """Two blocks of one inner group each on a stream of 40 channels."""
    groups = [Group("stream", 40, residual=True), Group("inner1", 40), Group("inner2", 40)]
    cost = model([(4, None, 0), (4, 0, 1), (4, 1, 0), (4, 0, 2), (4, 2, 0), (4, 0, None)], groups)
    return space(groups, cost, ratio=ratio)


def proposals(of: SearchSpace, max_trials: int = 10) -> list[Proposal]:
    searcher = Uniform(of, parse_params(Uniform, {}), 0, max_trials)
    found = []
    while isinstance(answer := searcher.ask(), Proposal):
        found.append(answer)
    for proposal in found:
        searcher.tell(proposal.id, Outcome(0.0))
    assert searcher.ask() == Done()
    assert len(found) == searcher.planned_trials
    return found


def test_one_plan_cuts_all_groups_alike_and_one_spares_the_residual_stream():
    everywhere, spared = (p.widths for p in proposals(residual_network(0.5)))
    assert max(everywhere) - min(everywhere) <= 1
    assert spared[0] == 40
    assert abs(spared[1] - spared[2]) <= 1
    assert spared[1] < everywhere[1]


def test_a_budget_that_needs_the_stream_leaves_one_plan():
    assert len(proposals(residual_network(0.05))) == 1


def test_a_network_without_streams_has_one_plan():
    groups = [Group("a", 40), Group("b", 40)]
    assert len(proposals(space(groups, model([(4, None, 0), (4, 0, 1), (4, 1, None)], groups)))) == 1


def test_one_trial_is_one_plan():
    assert [p.note for p in proposals(residual_network(0.5), max_trials=1)] == ["the same keep fraction in every group"]
