"""Searches for several sizes: those that were asked for, and the smallest that keeps the metric."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from searchers.base import Asked, Done, Given, Outcome, Proposal, Record, Searcher, Told, Training, Wait, front, ranked, replay
from searchers.guarantee import MOST_SIZES, RETREATS, Guaranteed
from searchers.sizes import EveryBudget, Sizes
from searchers.space import Budget, SearchSpace, Widths
from searchers.uniform import uniform_plan
from tests.searchers.objectives import landscape, make, residual_space

OF = residual_space(2, 0.5)
ON = landscape(OF, 0)
DENSE, LEAST = OF.cost(OF.dense), OF.cost(OF.least)


def by(name: str, trials: int = 12, **params: object) -> Callable[[SearchSpace], Searcher]:
    return lambda space: make(name, space, trials, 0, **params)


def drop(widths: Widths) -> float:
    """What the metric of these widths drops by: as their damage, 1 for the better uniform plan of ``OF``."""
    return ON.damage(widths) / ON.uniform


def outcome(proposal: Proposal) -> Outcome:
    """Training makes up for half of what was lost."""
    share = 0.5 if proposal.training else 1.0
    return Outcome(share * ON(proposal.widths), 0.9, drop=share * drop(proposal.widths))


def walk(search: Searcher, outcome: Callable[[Proposal], Outcome] = outcome, concurrent: int = 1) -> list[Record]:
    """A search to its end, so many trials at once, told in a drawn order."""
    record: list[Record] = []
    running: list[Proposal] = []
    draw = random.Random(0)
    while True:
        answer = search.ask() if len(running) < concurrent else Wait()
        if isinstance(answer, Proposal):
            record.append(Asked(answer))
            running.append(answer)
        elif running:
            told = running.pop(draw.randrange(len(running)))
            record.append(Told(told.id, outcome(told)))
            search.tell(told.id, outcome(told))
        else:
            assert answer == Done()
            return record


def asked(record: list[Record]) -> list[Proposal]:
    return [entry.proposal for entry in record if isinstance(entry, Asked)]


def smallest_uniform(most: float) -> int:
    """The cost of the narrowest uniform plan that drops by no more, of a thousand."""
    plans = [uniform_plan(OF.under(Budget("macs", LEAST + (DENSE - 1 - LEAST) * i // 1000))) for i in range(1001)]
    return min(OF.cost(plan) for plan in plans if drop(plan) <= most)


@pytest.mark.parametrize("most", [0.03, 0.3, 3.0])
def test_the_smallest_network_that_keeps_the_metric_is_found_and_a_safe_one_is_on_the_way(most: float) -> None:
    search = Guaranteed(by("fixed", 1), OF, most, 0)
    proposals = asked(walk(search, concurrent=2))
    ladder = [proposals[number] for number in search.ladder]
    costs = [OF.cost(proposal.widths) for proposal in ladder]
    assert costs == sorted(costs, reverse=True)
    assert all(drop(proposal.widths) <= most for proposal in ladder)
    assert costs[-1] <= 1.2 * smallest_uniform(most), (
        "as near as it says, but for plans of few channels that drop by less again"
    )
    assert costs[0] >= 0.85 * DENSE
    assert len(proposals) <= search.planned_trials


def test_where_nothing_is_lost_the_narrowest_network_is_the_answer_and_where_all_is_there_is_none() -> None:
    search = Guaranteed(by("random", 3), OF, 0.1, 0)
    proposals = asked(walk(search, lambda proposal: Outcome(0.0, 1.0, drop=0.0)))
    assert proposals[search.ladder[-1]].widths == OF.least
    for lost in (Outcome(-1.0, 0.5, drop=0.5), Outcome(-1.0, 0.5), Outcome(None, error="failed")):
        search = Guaranteed(by("random", 3), OF, 0.1, 0)
        proposals = asked(walk(search, lambda proposal, lost=lost: lost))  # type: ignore[misc]
        assert search.ladder == []
        assert len(search.settled) == 1 + RETREATS, "smaller cuts than the first were tried"


def test_the_best_plan_of_each_size_is_trained_before_it_is_judged() -> None:
    bare = Guaranteed(by("auto"), OF, 1.0, 0)
    walk(bare)
    search = Guaranteed(by("auto"), OF, 1.0, 5)
    record = walk(search)
    proposals = asked(record)
    outcomes = {entry.proposal_id: entry.outcome for entry in record if isinstance(entry, Told)}
    for limit, answer in search.settled.items():
        assert answer is not None
        assert proposals[answer].training == Training(None, retrain=5)
        before = {n: proposals[n] for n in range(answer) if proposals[n].training is None}
        leader = ranked(before, {n: outcomes[n] for n in before}, OF.under(Budget("macs", limit)).fits)[0]
        assert proposals[answer].widths == leader.widths
    assert sum(proposal.training is not None for proposal in proposals) == len(search.settled) <= MOST_SIZES
    least, without = (OF.cost(each.proposals[each.ladder[-1]].widths) for each in (search, bare))
    assert least < without


@pytest.mark.parametrize("name", ["sensitivity", "auto", "optuna", "simulated_annealing", "amc", "netadapt", "random"])
def test_each_size_gets_its_best_and_no_plan_is_tried_twice(name: str) -> None:
    limits = [DENSE * share // 10 for share in (4, 7, 2)]
    search = EveryBudget(by(name, 24), OF, limits)
    proposals = asked(walk(search, concurrent=3))
    assert list(search.settled) == sorted(limits, reverse=True)
    for limit, answer in search.settled.items():
        assert answer is not None
        assert 0.97 * limit < OF.cost(proposals[answer].widths) <= limit
        assert ON(proposals[answer].widths) == max(ON(p.widths) for p in proposals if OF.cost(p.widths) <= limit)
    assert len({proposal.widths for proposal in proposals}) == len(proposals) <= search.planned_trials
    assert [proposal.id for proposal in proposals] == list(range(len(proposals)))


def test_what_probes_of_single_groups_told_serves_all_sizes() -> None:
    search = EveryBudget(by("sensitivity", 40), OF, [DENSE * share // 10 for share in (5, 4, 3)])
    alone = [sum(w < dense for w, dense in zip(p.widths, OF.dense, strict=True)) == 1 for p in asked(walk(search))]
    assert sum(alone[:40]) > 10
    assert sum(alone[40:]) <= 3, "the curves of the first size are known in the others"


def training(name: str) -> Callable[[SearchSpace], Searcher]:
    def build(space: SearchSpace) -> Searcher:
        search = make(name, space, 24, 0)
        search.expect_training()
        return search

    return build


def test_parents_and_rivals_are_numbered_as_the_whole_search_numbers_them() -> None:
    limits = [DENSE // 2, DENSE // 4]
    search = EveryBudget(training("netadapt"), OF, limits)
    assert search.names_parents
    proposals = asked(walk(search, concurrent=2))
    children = [proposal for proposal in proposals if proposal.parent is not None]
    assert {search.proposals[p.id].note.split()[0] for p in children} == {"50", "25"}
    for child in children:
        assert child.parent is not None
        assert all(w <= had for w, had in zip(child.widths, proposals[child.parent].widths, strict=True))
    named = [child.parent for child in children if child.parent is not None]
    assert named == sorted(named), "parents never go back"
    halved = EveryBudget(by("optuna", 24, halving=3), OF, limits)
    assert halved.names_rivals
    rivals = [proposal for proposal in asked(walk(halved)) if proposal.rival is not None]
    assert rivals[-1].id > 24
    assert all(p.rival is not None and p.rival.bar == ON(halved.proposals[p.rival.number].widths) for p in rivals)


SEARCHES: list[Callable[[], Sizes]] = [
    lambda: Guaranteed(by("auto"), OF, 1.0, 2),
    lambda: Guaranteed(by("optuna", halving=3), OF, 1.0, 0),
    lambda: EveryBudget(training("netadapt"), OF, [DENSE // 2, DENSE // 3]),
]


@pytest.mark.parametrize("build", SEARCHES)
def test_replay_after_a_prefix_gives_the_next_ask(build: Callable[[], Sizes]) -> None:
    record = walk(build(), concurrent=2)
    for end in range(0, len(record), 15):
        again = build()
        replay(again, record[:end])
        following = next((entry.proposal for entry in record[end:] if isinstance(entry, Asked)), None)
        if isinstance(record[end], Asked):
            assert again.ask() == following
    again = build()
    replay(again, record)
    assert again.ask() == Done()


def test_trials_of_an_earlier_search_are_known_at_every_size() -> None:
    limits = [DENSE // 2, DENSE // 4]
    first = asked(walk(EveryBudget(by("random", 8), OF, limits)))
    search = EveryBudget(by("random", 8), OF, limits)
    for number, proposal in enumerate(first):
        search.give(Given(Proposal(number, proposal.widths), outcome(proposal)))
    proposals = asked(walk(search))
    assert not {proposal.widths for proposal in proposals} & {proposal.widths for proposal in first}
    assert [proposal.id for proposal in proposals] == list(range(len(first), len(first) + len(proposals)))
    with pytest.raises(ValueError, match="after the first ask"):
        search.give(Given(Proposal(len(first), OF.least), Outcome(0.0)))
    for number in (0, 999):
        with pytest.raises(ValueError, match=f"proposal {number} was told already or never asked for"):
            search.tell(number, Outcome(0.0))


def test_a_plan_of_an_earlier_search_of_which_the_drop_is_not_known_is_no_answer() -> None:
    search = Guaranteed(by("fixed", 1), OF, 1000.0, 0)
    search.give(Given(Proposal(0, OF.least), Outcome(0.0, 0.9)))
    walk(search)
    assert 0 not in search.settled.values()


def test_the_front_holds_what_none_beats() -> None:
    plans = {0: (8, 8), 1: (4, 4), 2: (4, 4), 3: (2, 2), 4: (1, 1), 5: (9, 9)}
    scores = {0: -1.0, 1: -2.0, 2: -1.5, 3: -1.75, 4: None, 5: -0.5}
    outcomes = {n: Outcome(score, None if n == 5 else 0.5) for n, score in scores.items()}
    found = front({n: Proposal(n, widths) for n, widths in plans.items()}, outcomes, sum)
    assert [proposal.id for proposal in found] == [3, 2, 0], "the fifth ended early"
