"""The recorded search: every ask and tell is on record, and a new attempt goes on where the record ends."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pruners.cost import CostModel, Linear, Polynomial, Term
from searchers import SEARCHERS
from searchers.base import Asked, Done, Outcome, Proposal, Searcher, Told, Wait
from searchers.space import Budget, Group, SearchSpace
from tests.workers.logs import ListLog
from workers.log import Plan
from workers.search import LOST_WORKER_RETRIES, RecordedSearch
from workers.spec import Limits


def searcher(max_trials: int = 40) -> Searcher:
    cost = CostModel([1, 1, 1], {"macs": Polynomial([Term(1, Linear(0, {0: 1, 1: 1, 2: 1}))], 3)})
    space = SearchSpace([Group(f"g{i}", 20) for i in range(3)], cost, Budget.of("macs", 60, ratio=0.5))
    kind = SEARCHERS["netadapt"]
    return kind(space, kind.Params.model_validate({"rounds": 5}), 0, max_trials)


def describe(proposal: Proposal) -> Plan:
    return Plan({}, {}, *[sum(proposal.widths)] * 3)


def result(widths: Sequence[int]) -> dict[str, object]:
    score = -float(sum((width - best) ** 2 for width, best in zip(widths, (20, 5, 5), strict=True)))
    return {"score": score, "metric": 0.5, "error": None, "evaluate_seconds": 0.1, "node": "n", "process": 1}


def run(search: RecordedSearch, stop_after: int | None = None) -> list[Proposal]:
    asked: list[Proposal] = []
    while stop_after is None or len(asked) < stop_after:
        answer = search.ask()
        if isinstance(answer, Done):
            break
        assert not isinstance(answer, Wait)
        asked.append(answer)
        search.tell(answer.id, result(answer.widths))
    return asked


def test_a_new_attempt_continues_the_search() -> None:
    whole = ListLog()
    everything = run(RecordedSearch(searcher(), whole, describe, Limits(max_trials=40)))
    for cut in range(1, len(everything)):
        log = ListLog()
        first = RecordedSearch(searcher(), log, describe, Limits(max_trials=40))
        run(first, stop_after=cut)
        first.ask()  # in flight when the attempt dies
        rest = run(RecordedSearch(searcher(), log, describe, Limits(max_trials=40)))
        done = [entry for entry in log.entries if hasattr(entry, "outcome")]
        assert [proposal.widths for proposal in everything[cut:]] == [proposal.widths for proposal in rest]
        assert len(done) == len(everything)


def test_limits_end_the_search() -> None:
    assert len(run(RecordedSearch(searcher(), ListLog(), describe, Limits(max_trials=4)))) == 4


def test_the_deadline_stops_new_trials_but_hears_running_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("workers.search.time.monotonic", lambda: now[0])
    log = ListLog()
    search = RecordedSearch(searcher(), log, describe, Limits(max_trials=40, max_seconds=10))
    running = search.ask()
    assert isinstance(running, Proposal)
    now[0] = 10.0
    assert isinstance(search.ask(), Done)
    search.tell(running.id, result(running.widths))
    assert search.outcomes[running.id].score is not None


def test_the_time_of_earlier_attempts_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("workers.search.time.monotonic", lambda: now[0])
    search = RecordedSearch(searcher(), ListLog(earlier_seconds=7), describe, Limits(max_trials=40, max_seconds=10))
    now[0] = 102.9
    assert isinstance(search.ask(), Proposal)
    now[0] = 103.0
    assert isinstance(search.ask(), Done)


def failure(proposal: Proposal) -> dict[str, object]:
    return {**result(proposal.widths), "score": None, "error": "Out of memory."}


def asked(search: RecordedSearch) -> Proposal:
    answer = search.ask()
    assert isinstance(answer, Proposal)
    return answer


def test_a_trial_that_fails_is_not_tried_again() -> None:
    log = ListLog()
    search = RecordedSearch(searcher(), log, describe, Limits(max_trials=40))
    first = asked(search)
    search.tell(first.id, failure(first))
    assert search.outcomes[first.id].error == "Out of memory."
    assert asked(search) != first
    assert log.losses == []


@pytest.mark.parametrize("attempts", [1, 2], ids=["one attempt", "counted over attempts"])
def test_a_trial_whose_worker_is_lost_is_tried_three_times_more(attempts: int) -> None:
    log = ListLog()
    search = RecordedSearch(searcher(), log, describe, Limits(max_trials=40))
    first = asked(search)
    for number in range(LOST_WORKER_RETRIES):
        search.tell(first.id, None)
        assert first.id not in search.outcomes
        if attempts == 2 and number == 1:
            search = RecordedSearch(searcher(), log, describe, Limits(max_trials=40))
        assert asked(search) == first
    search.tell(first.id, None)
    assert search.outcomes[first.id] == Outcome(None, error="Its worker was lost 4 times; see the job's log.")
    assert log.losses == [(first.id, "Its worker was lost.")] * LOST_WORKER_RETRIES
    assert asked(search) != first


def test_a_lost_trial_comes_again_though_it_was_the_last() -> None:
    search = RecordedSearch(searcher(), ListLog(), describe, Limits(max_trials=1))
    last = asked(search)
    assert isinstance(search.ask(), Wait), "it may be lost"
    search.tell(last.id, None)
    assert asked(search) == last
    search.tell(last.id, result(last.widths))
    assert isinstance(search.ask(), Done)


def test_a_hopeless_search_ends() -> None:
    search = RecordedSearch(searcher(), ListLog(), describe, Limits(max_trials=40, max_failed_trials=2))
    first, second, third = asked(search), asked(search), asked(search)
    search.tell(first.id, failure(first))
    assert not search.hopeless
    search.tell(second.id, result(second.widths))
    search.tell(third.id, failure(third))
    assert search.hopeless
    assert isinstance(search.ask(), Done)


def test_a_search_that_is_to_stop_hears_what_runs_and_asks_for_no_more() -> None:
    log = ListLog()
    search = RecordedSearch(searcher(), log, describe, Limits(max_trials=40))
    running = asked(search)
    log.stop = True
    assert isinstance(search.ask(), Done)
    search.tell(running.id, result(running.widths))
    assert search.ranked(lambda widths: True) == [running]


def test_networks_are_wanted_while_they_may_be_parents() -> None:
    kind = searcher()
    kind.expect_training()
    search = RecordedSearch(kind, ListLog(), describe, Limits(max_trials=40))
    proposals: list[Proposal] = []
    while not isinstance(answer := search.ask(), Done):
        assert isinstance(answer, Proposal)
        assert answer.parent is None or answer.parent in search.wanted()
        search.tell(answer.id, result(answer.widths))
        proposals.append(answer)
    newest = max(proposal.parent or 0 for proposal in proposals)
    assert newest > 10
    assert search.wanted() == set(range(newest, len(proposals)))
    plain = RecordedSearch(searcher(), ListLog(), describe, Limits(max_trials=40))
    run(plain)
    assert plain.wanted() == set(), "no trial starts from another"


def test_the_best_come_first_and_fit_the_budget_and_of_equals_the_earlier() -> None:
    search = RecordedSearch(searcher(), ListLog(), describe, Limits(max_trials=40))
    assert search.ranked(lambda widths: True) == []
    proposals = run(search)
    found = search.ranked(lambda widths: sum(widths) <= 30)
    scores = [(-score, p.id) for p in proposals if sum(p.widths) <= 30 and (score := search.outcomes[p.id].score) is not None]
    assert [proposal.id for proposal in found] == [number for _, number in sorted(scores)]


def test_known_outcomes_are_told_at_once_and_change_nothing() -> None:
    whole = ListLog()
    everything = run(RecordedSearch(searcher(), whole, describe, Limits(max_trials=40)))
    outcomes = {entry.proposal_id: entry.outcome for entry in whole.entries if isinstance(entry, Told)}
    known = {proposal.widths: outcomes[proposal.id] for proposal in everything[::2]}
    log = ListLog()
    search = RecordedSearch(searcher(), log, describe, Limits(max_trials=40), known)
    assert [proposal.widths for proposal in run(search)] == [proposal.widths for proposal in everything[1::2]]
    assert {entry.proposal_id: entry.outcome for entry in log.entries if isinstance(entry, Told)} == outcomes
    assert [entry for entry in log.entries if isinstance(entry, Asked)] == [Asked(proposal) for proposal in everything]
    resumed = RecordedSearch(searcher(), log, describe, Limits(max_trials=40), known)
    assert isinstance(resumed.ask(), Done)


def test_a_search_of_known_outcomes_hands_nothing_out() -> None:
    everything = run(RecordedSearch(searcher(), ListLog(), describe, Limits(max_trials=40)))
    known = {proposal.widths: Outcome(result(proposal.widths)["score"], 0.5) for proposal in everything}  # type: ignore[arg-type]
    assert run(RecordedSearch(searcher(), ListLog(), describe, Limits(max_trials=40), known)) == []


def test_a_cut_of_a_trained_network_is_never_known() -> None:
    kind = searcher()
    kind.expect_training()
    plain = run(RecordedSearch(kind, ListLog(), describe, Limits(max_trials=40)))
    known = {proposal.widths: Outcome(0.0) for proposal in plain if proposal.parent is not None}
    again = searcher()
    again.expect_training()
    assert run(RecordedSearch(again, ListLog(), describe, Limits(max_trials=40), known)) == plain
