"""What every registered searcher must do, on any space and against any objective."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchers import SEARCHERS
from searchers.base import (
    Asked,
    Done,
    Given,
    Outcome,
    Proposal,
    Record,
    ReplayMismatch,
    Searcher,
    Told,
    Training,
    Wait,
    parse_params,
    ranked,
    replay,
)
from searchers.space import Budget, Group, SearchSpace, Widths
from tests.searchers.spaces import chain, random_spaces, space, within_one_step

ROOT = Path(__file__).parents[2]
TRAINED = " of trained networks"  # a search that goes another way where its trials train
NAMES = [*SEARCHERS, f"netadapt{TRAINED}"]
pytestmark = pytest.mark.parametrize("name", NAMES)
steady = settings(derandomize=True, deadline=None, max_examples=12)

DEAR = {"amc": 40, "auto": 60, "optuna": 60, "random": 100}
"""Spaces that these are tried on, each of whose searches costs as much as many others' ones; the others get 200."""

Objective = Callable[[SearchSpace, Widths], Outcome]


def succeed(score: float) -> Outcome:
    return Outcome(score, metric=0.5)


def fail() -> Outcome:
    return Outcome(None, error="out of memory")


def noise(widths: Widths) -> float:
    return random.Random(str(widths)).random()


def ever_worse() -> Objective:
    """However good a plan is, the later one looks worse."""
    told: list[Widths] = []

    def objective(of: SearchSpace, widths: Widths) -> Outcome:
        told.append(widths)
        return succeed(-float(len(told)))

    return objective


def against_the_leader() -> Objective:
    """The nearer a plan is to the one that led so far, the worse it is: whatever a search learns is wrong."""
    scores: dict[Widths, float] = {}

    def objective(of: SearchSpace, widths: Widths) -> Outcome:
        leader = max(scores, key=scores.__getitem__, default=of.dense)
        scores[widths] = float(sum(abs(a - b) for a, b in zip(widths, leader, strict=True)))
        return succeed(scores[widths])

    return objective


OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "constant": lambda: lambda of, w: succeed(0.0),
    "noisy": lambda: lambda of, w: succeed(noise(w)),
    "wider is better": lambda: lambda of, w: succeed(float(of.cost(w))),
    "narrower is better": lambda: lambda of, w: succeed(-float(of.cost(w))),
    "huge": lambda: lambda of, w: succeed(1e308 if noise(w) < 0.5 else -1e308),
    "ever worse": ever_worse,
    "against the leader": against_the_leader,
}
FAILING: dict[str, Callable[[], Objective]] = {
    "all fail": lambda: lambda of, w: fail(),
    "some fail": lambda: lambda of, w: fail() if noise(w) < 0.5 else succeed(noise(w)),
    "not a number": lambda: lambda of, w: succeed(math.nan if noise(w) < 0.5 else math.inf),
}
objectives = st.sampled_from([*OBJECTIVES, *FAILING])


def objective_of(kind: str) -> Objective:
    return {**OBJECTIVES, **FAILING}[kind]()


@dataclass
class Run:
    """One search to its end: what was given, asked and told, in order."""

    record: list[Record] = field(default_factory=list)
    outcomes: dict[Proposal, Outcome] = field(default_factory=dict)

    @property
    def proposals(self) -> list[Proposal]:
        return [entry.proposal for entry in self.record if isinstance(entry, Asked)]

    @property
    def tried(self) -> list[tuple[Proposal, Outcome]]:
        """Every trial that was given, or asked for and told."""
        given = [(entry.proposal, entry.outcome) for entry in self.record if isinstance(entry, Given)]
        return [*given, *self.outcomes.items()]


def make(name: str, of: SearchSpace, max_trials: int, seed: int = 0) -> Searcher:
    searcher = SEARCHERS[name.removesuffix(TRAINED)]
    made = searcher(of, parse_params(searcher, {}), seed, max_trials)
    if name.endswith(TRAINED):
        made.expect_training()
    return made


def check_parent(run: Run, child: Proposal) -> None:
    """It has succeeded, is as wide in every group, and no older than the last one that was named."""
    named = [proposal.parent for proposal in run.proposals if proposal.parent is not None]
    if child.parent is None:
        assert not named, "back to the dense network"
        return
    parent, outcome = next((proposal, outcome) for proposal, outcome in run.tried if proposal.id == child.parent)
    assert outcome.score is not None
    assert all(mine <= had for mine, had in zip(child.widths, parent.widths, strict=True))
    assert child.parent >= max(named, default=0)


def search(
    searcher: Searcher,
    objective: Objective,
    concurrent: int = 1,
    shuffle: int = 0,
    late: bool = False,
    earlier: tuple[Given, ...] = (),
) -> Run:
    """Runs up to ``concurrent`` proposals at once and tells them in a shuffled order.

    With ``late`` the first one of all is told when nothing else is left to do, and every outcome is told twice.
    """
    run, running, order = Run([*earlier]), [], random.Random(shuffle)
    replay(searcher, earlier)
    known = {replace(entry.proposal, id=0, note="") for entry in earlier}
    while True:
        answer = searcher.ask() if len(running) < concurrent else Wait()
        if isinstance(answer, Proposal):
            assert answer.id == len(earlier) + len(run.proposals)
            assert replace(answer, id=0, note="") not in known, "the same twice"
            known.add(replace(answer, id=0, note=""))
            assert answer.parent is None or searcher.names_parents
            check_parent(run, answer)
            run.record.append(Asked(answer))
            running.append(answer)
        elif running:
            first = 1 if late and len(running) > 1 and running[0].id == len(earlier) else 0
            told = running.pop(order.randrange(first, len(running)))
            run.outcomes[told] = objective(searcher.space, told.widths)
            run.record.append(Told(told.id, run.outcomes[told]))
            searcher.tell(told.id, run.outcomes[told])
            if late:
                with pytest.raises(ValueError, match=f"proposal {told.id} "):
                    searcher.tell(told.id, succeed(1e6))
        else:
            assert isinstance(answer, Done), "Wait with nothing to wait for"
            assert isinstance(searcher.ask(), Done), "Done is not the end"
            return run


@dataclass(frozen=True)
class Setup:
    """A space, a number of trials that any search can do with, how many run at once, and the order of telling."""

    of: SearchSpace
    max_trials: int
    concurrent: int
    shuffle: int
    late: bool

    def run(self, name: str, objective: Objective, earlier: tuple[Given, ...] = ()) -> Run:
        searcher = make(name, self.of, self.max_trials)
        planned = searcher.planned_trials
        run = search(searcher, objective, self.concurrent, self.shuffle, self.late, earlier)
        assert len(run.proposals) <= planned <= self.max_trials
        return run


@st.composite
def setups(draw: st.DrawFn, spaces: st.SearchStrategy[SearchSpace]) -> Setup:
    of, concurrent = draw(spaces), draw(st.integers(1, 6))
    return Setup(of, draw(st.integers(len(of.searchable), 30)), concurrent, draw(st.integers(0, 2**16)), draw(st.booleans()))


any_setup = setups(random_spaces())


def test_any_search_ends_on_the_budget_with_networks_that_can_be_built(name):
    @settings(steady, max_examples=DEAR.get(name, 200))
    @given(any_setup, objectives)
    def on(setup, kind):
        run = setup.run(name, objective_of(kind))
        assert all(setup.of.holds(proposal.widths) for proposal in run.proposals)
        assert all(type(width) is int for proposal in run.proposals for width in proposal.widths)
        fitting = {proposal: outcome for proposal, outcome in run.outcomes.items() if setup.of.fits(proposal.widths)}
        if kind in OBJECTIVES:
            assert fitting, "no proposal within the budget"
            winner = max(fitting, key=lambda proposal: fitting[proposal].score)
            parent = None if winner.parent is None else run.proposals[winner.parent].widths
            assert within_one_step(setup.of, winner.widths, parent)

    on()


@given(any_setup, objectives, st.floats(0, 1))
@steady
def test_a_replay_of_any_part_goes_on_as_the_search_did(name, setup, kind, part):
    """A replay of all checks the ask behind every part of it; that of one part, that it leaves no trace of what follows."""
    record = setup.run(name, objective_of(kind)).record
    whole = make(name, setup.of, setup.max_trials)
    replay(whole, record)
    assert whole.ask() == Done()
    length = int(part * len(record))
    some = make(name, setup.of, setup.max_trials)
    replay(some, record[:length])
    if isinstance(following := record[length] if length < len(record) else None, Asked):
        assert some.ask() == following.proposal


@given(any_setup, objectives, st.floats(0, 1))
@steady
def test_a_warm_start_is_not_tried_again_and_no_search_ends_worse_than_it(name, setup, kind, budget):
    """The second search may have another budget; as in a job, it is given the trials that succeeded."""
    of = setup.of
    first = setup.run(name, objective_of(kind)).outcomes.items()
    cuts = {proposal.widths: outcome for proposal, outcome in first if outcome.score is not None and proposal.bare}
    earlier = tuple(Given(Proposal(n, widths, "earlier"), outcome) for n, (widths, outcome) in enumerate(cuts.items()))
    limit = of.cost(of.least) + int(budget * (of.cost(of.dense) - 1 - of.cost(of.least)))
    for second in (of, of.under(Budget(of.budget.metric, limit))):
        run = replace(setup, of=second).run(name, objective_of(kind), earlier)
        proposals = {proposal.id: proposal for proposal, _ in run.tried}
        outcomes = {proposal.id: outcome for proposal, outcome in run.tried}
        start = next(iter(ranked(proposals, {n: outcomes[n] for n in range(len(earlier))}, second.fits)), None)
        end = next(iter(ranked(proposals, outcomes, second.fits)), None)
        if start is not None and kind != "not a number":
            assert end is not None
            assert outcomes[end.id].score >= outcomes[start.id].score
        again = make(name, second, setup.max_trials)
        replay(again, run.record)
        assert again.ask() == Done()


def test_what_is_no_trial_of_an_earlier_search_is_refused(name):
    groups = [Group("a", 16), Group("b", 16)]
    of = space(groups, chain(groups))
    searcher = make(name, of, 10)
    for trial, problem in [
        (Given(Proposal(1, (8, 8)), succeed(0.0)), "is not the next"),
        (Given(Proposal(0, (8, 17)), succeed(0.0)), "not of this space"),
        (Given(Proposal(0, (8,)), succeed(0.0)), "not of this space"),
        (Given(Proposal(0, (8, 8), training=Training("admm")), succeed(0.0)), "no cut of the dense network"),
    ]:
        with pytest.raises(ValueError, match=problem):
            searcher.give(trial)
    searcher.give(Given(Proposal(0, (8, 8)), succeed(0.0)))
    with pytest.raises(ValueError, match="an earlier one has"):
        searcher.give(Given(Proposal(1, (8, 8)), succeed(0.0)))
    assert isinstance(searcher.ask(), Proposal)
    with pytest.raises(ValueError, match="after the first ask"):
        searcher.give(Given(Proposal(1, (4, 4)), succeed(0.0)))


@given(random_spaces())
@settings(steady, max_examples=10)
def test_a_record_of_another_search_is_refused(name, of):
    record = search(make(name, of, 10), OBJECTIVES["constant"]()).record
    asked = max(i for i, entry in enumerate(record) if isinstance(entry, Asked))
    original = record[asked].proposal
    record[asked] = Asked(Proposal(original.id, of.dense, original.note))
    with pytest.raises(ReplayMismatch, match=f"Replayed ask {original.id} gave"):
        replay(make(name, of, 10), record)


@given(random_spaces())
@settings(steady, max_examples=10)
def test_a_record_that_goes_on_after_the_end_is_refused(name, of):
    record = search(make(name, of, 10), OBJECTIVES["constant"]()).record
    with pytest.raises(ReplayMismatch, match="Done"):
        replay(make(name, of, 10), [*record, Asked(Proposal(99, of.least))])


@given(random_spaces())
@settings(steady, max_examples=10)
def test_an_outcome_is_told_once_and_only_for_what_was_asked(name, of):
    searcher = make(name, of, 10)
    proposal = searcher.ask()
    with pytest.raises(ValueError, match="proposal 99 "):
        searcher.tell(99, succeed(0.0))
    searcher.tell(proposal.id, succeed(0.0))
    with pytest.raises(ValueError, match="proposal 0 "):
        searcher.tell(proposal.id, succeed(0.0))


def test_one_group_is_cut_to_the_budget(name):
    groups = [Group("only", 60)]
    of = space(groups, chain(groups), ratio=0.5)
    run = search(make(name, of, 10), OBJECTIVES["wider is better"]())
    assert (30,) in [proposal.widths for proposal in run.proposals]


def test_a_space_with_fewer_plans_than_trials_is_searched_to_its_end(name):
    groups = [Group("a", 2), Group("b", 2)]
    of = space(groups, chain(groups), ratio=0.9)
    assert search(make(name, of, 200), OBJECTIVES["noisy"](), concurrent=3).proposals


def proposals_of_a_fixed_search(name: str) -> list[list[int]]:
    groups = [Group(f"layer{i}", width, residual=i == 1) for i, width in enumerate([24, 48, 48, 96])]
    of = space(groups, chain(groups), ratio=0.4)
    return [list(p.widths) for p in search(make(name, of, 24, seed=7), OBJECTIVES["noisy"](), concurrent=3).proposals]


@cache
def proposals_in_another_process() -> dict[str, list[list[int]]]:
    script = (
        "import json; from tests.conformance.test_searchers import NAMES, proposals_of_a_fixed_search as run; "
        "print(json.dumps({name: run(name) for name in NAMES}))"
    )
    command = [sys.executable, "-c", script]
    other = subprocess.run(command, cwd=ROOT, env={"PYTHONHASHSEED": "1"}, check=True, capture_output=True, text=True)
    found: dict[str, list[list[int]]] = json.loads(other.stdout)
    return found


def test_another_process_searches_alike(name):
    assert proposals_in_another_process()[name] == proposals_of_a_fixed_search(name)
