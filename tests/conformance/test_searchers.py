"""What every registered searcher must do, on any space and against any objective."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchers import SEARCHERS
from searchers.base import Asked, Done, Outcome, Proposal, ReplayMismatch, Searcher, Told, Wait, parse_params, replay
from searchers.space import Group, SearchSpace, Widths
from tests.searchers.spaces import chain, random_spaces, space, within_one_step

ROOT = Path(__file__).parents[2]
TRAINED = " of trained networks"  # a search that goes another way where its trials train
pytestmark = pytest.mark.parametrize("name", [*SEARCHERS, f"netadapt{TRAINED}"])
steady = settings(derandomize=True, deadline=None, max_examples=25)

Objective = Callable[[SearchSpace, Widths], Outcome]


def succeed(score: float) -> Outcome:
    return Outcome(score, metric=0.5)


def noise(widths: Widths) -> float:
    return random.Random(str(widths)).random()


OBJECTIVES: dict[str, Objective] = {
    "constant": lambda of, w: succeed(0.0),
    "noisy": lambda of, w: succeed(noise(w)),
    "wider is better": lambda of, w: succeed(float(of.cost(w))),
    "narrower is better": lambda of, w: succeed(-float(of.cost(w))),
    "huge": lambda of, w: succeed(1e308 if noise(w) < 0.5 else -1e308),
}
FAILING: dict[str, Objective] = {
    "all fail": lambda of, w: Outcome(None, error="out of memory"),
    "some fail": lambda of, w: Outcome(None, error="out of memory") if noise(w) < 0.5 else succeed(noise(w)),
    "not a number": lambda of, w: succeed(math.nan if noise(w) < 0.5 else math.inf),
}
objectives = st.sampled_from(list(OBJECTIVES.values()))
any_objectives = st.sampled_from([*OBJECTIVES.values(), *FAILING.values()])


@dataclass
class Run:
    """One search to its end: what was asked and told, in order."""

    record: list[Asked | Told] = field(default_factory=list)
    outcomes: dict[Proposal, Outcome] = field(default_factory=dict)

    @property
    def proposals(self) -> list[Proposal]:
        return [entry.proposal for entry in self.record if isinstance(entry, Asked)]


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
    parent = run.proposals[child.parent]
    assert run.outcomes[parent].score is not None
    assert all(mine <= had for mine, had in zip(child.widths, parent.widths, strict=True))
    assert child.parent >= max(named, default=0)


def search(searcher: Searcher, objective: Objective, concurrent: int = 1, shuffle: int = 0) -> Run:
    """Runs up to ``concurrent`` proposals at once and tells them in a shuffled order."""
    run, running, order = Run(), [], random.Random(shuffle)
    while True:
        answer = searcher.ask() if len(running) < concurrent else Wait()
        if isinstance(answer, Proposal):
            assert answer.id == len(run.proposals)
            tried = [(other.widths, other.parent, other.training) for other in run.proposals]
            assert (answer.widths, answer.parent, answer.training) not in tried, "the same twice"
            assert answer.parent is None or searcher.names_parents
            check_parent(run, answer)
            run.record.append(Asked(answer))
            running.append(answer)
        elif running:
            told = running.pop(order.randrange(len(running)))
            run.outcomes[told] = objective(searcher.space, told.widths)
            run.record.append(Told(told.id, run.outcomes[told]))
            searcher.tell(told.id, run.outcomes[told])
        else:
            assert isinstance(answer, Done), "Wait with nothing to wait for"
            assert isinstance(searcher.ask(), Done), "Done is not the end"
            return run


@st.composite
def setups(draw: st.DrawFn) -> tuple[SearchSpace, int, int, int]:
    """A space, a number of trials that any search can do with, how many run at once, and the order of telling."""
    of = draw(random_spaces())
    return of, draw(st.integers(len(of.searchable), 40)), draw(st.integers(1, 6)), draw(st.integers(0, 2**16))


@given(setups(), objectives)
@steady
def test_the_best_that_fits_uses_the_budget_up(name, setup, objective):
    of, max_trials, concurrent, shuffle = setup
    run = search(make(name, of, max_trials), objective, concurrent, shuffle)
    fitting = {proposal: outcome for proposal, outcome in run.outcomes.items() if of.fits(proposal.widths)}
    assert fitting, "no proposal within the budget"
    best = max(fitting, key=lambda proposal: fitting[proposal].score)
    assert within_one_step(of, best.widths, None if best.parent is None else run.proposals[best.parent].widths)


@given(setups(), any_objectives)
@steady
def test_it_ends_within_the_trials_it_planned(name, setup, objective):
    of, max_trials, concurrent, shuffle = setup
    searcher = make(name, of, max_trials)
    planned = searcher.planned_trials
    run = search(searcher, objective, concurrent, shuffle)
    assert len(run.proposals) <= planned <= max_trials


@given(setups(), any_objectives)
@steady
def test_every_proposal_is_a_network_that_can_be_built(name, setup, objective):
    of, max_trials, concurrent, shuffle = setup
    for proposal in search(make(name, of, max_trials), objective, concurrent, shuffle).proposals:
        assert all(type(width) is int for width in proposal.widths)
        for width, least, dense, step in zip(proposal.widths, of.least, of.dense, of.step, strict=True):
            assert width in range(least, dense + 1, step)


@given(setups(), any_objectives)
@settings(steady, max_examples=10)
def test_a_replay_of_any_part_goes_on_as_the_search_did(name, setup, objective):
    of, max_trials, concurrent, shuffle = setup
    record = search(make(name, of, max_trials), objective, concurrent, shuffle).record
    for length in range(len(record) + 1):
        searcher = make(name, of, max_trials)
        replay(searcher, record[:length])
        following = record[length] if length < len(record) else None
        if isinstance(following, Asked):
            assert searcher.ask() == following.proposal
        elif following is None:
            assert searcher.ask() == Done()


@given(random_spaces())
@settings(steady, max_examples=10)
def test_a_record_of_another_search_is_refused(name, of):
    record = search(make(name, of, 40), OBJECTIVES["constant"]).record
    asked = max(i for i, entry in enumerate(record) if isinstance(entry, Asked))
    original = record[asked].proposal
    record[asked] = Asked(Proposal(original.id, of.dense, original.note))
    with pytest.raises(ReplayMismatch, match=f"Replayed ask {original.id} gave"):
        replay(make(name, of, 40), record)


@given(random_spaces())
@settings(steady, max_examples=10)
def test_a_record_that_goes_on_after_the_end_is_refused(name, of):
    record = search(make(name, of, 40), OBJECTIVES["constant"]).record
    with pytest.raises(ReplayMismatch, match="Done"):
        replay(make(name, of, 40), [*record, Asked(Proposal(99, of.least))])


@given(random_spaces())
@settings(steady, max_examples=10)
def test_an_outcome_is_told_once_and_only_for_what_was_asked(name, of):
    searcher = make(name, of, 40)
    proposal = searcher.ask()
    with pytest.raises(ValueError, match="proposal 99 "):
        searcher.tell(99, succeed(0.0))
    searcher.tell(proposal.id, succeed(0.0))
    with pytest.raises(ValueError, match="proposal 0 "):
        searcher.tell(proposal.id, succeed(0.0))


def test_one_group_is_cut_to_the_budget(name):
    groups = [Group("only", 60)]
    of = space(groups, chain(groups), ratio=0.5)
    run = search(make(name, of, 10), OBJECTIVES["wider is better"])
    assert (30,) in [proposal.widths for proposal in run.proposals]


def proposals_of_a_fixed_search(name: str) -> list[list[int]]:
    groups = [Group(f"layer{i}", width, residual=i == 1) for i, width in enumerate([24, 48, 48, 96])]
    of = space(groups, chain(groups), ratio=0.4)
    return [list(p.widths) for p in search(make(name, of, 40, seed=7), OBJECTIVES["noisy"], concurrent=3).proposals]


def test_another_process_searches_alike(name):
    script = (
        "import json, sys; from tests.conformance.test_searchers import proposals_of_a_fixed_search as run; "
        "print(json.dumps(run(sys.argv[1])))"
    )
    command = [sys.executable, "-c", script, name]
    other = subprocess.run(command, cwd=ROOT, env={"PYTHONHASHSEED": "1"}, check=True, capture_output=True, text=True)
    assert json.loads(other.stdout) == proposals_of_a_fixed_search(name)
