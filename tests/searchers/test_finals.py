"""The final behind a search: its best plans once more, each trained."""

from __future__ import annotations

import pytest

from searchers.base import Asked, Done, Given, Outcome, Proposal, Record, Told, Training, Wait, ranked, replay
from searchers.finals import Finals
from searchers.space import Widths
from tests.searchers.objectives import landscape, make, residual_space

OF = residual_space(3, 0.5)
ON = landscape(OF, 0)


def final(name: str = "auto", trials: int = 30, finalists: int = 3) -> Finals:
    return Finals(make(name, OF, trials, 0), finalists, 2)


def walk(searcher: Finals, trained: dict[Widths, float | None] | None = None) -> list[Record]:
    """A search to its end, one trial after the other; a trained network scores as told, or half of what it lost bare."""
    record: list[Record] = []
    while isinstance(proposal := searcher.ask(), Proposal):
        score: float | None = ON(proposal.widths)
        if proposal.training is not None:
            assert score is not None
            score = (trained or {}).get(proposal.widths, score / 2)
        outcome = Outcome(score, error="failed" if score is None else None)
        searcher.tell(proposal.id, outcome)
        record += [Asked(proposal), Told(proposal.id, outcome)]
    assert proposal == Done()
    return record


def asked(record: list[Record]) -> list[Proposal]:
    return [entry.proposal for entry in record if isinstance(entry, Asked)]


@pytest.mark.parametrize("name", ["auto", "netadapt", "random", "uniform", "optuna"])
def test_the_best_plans_are_trained_last_and_the_search_is_as_it_would_be_without(name: str) -> None:
    searcher = final(name)
    proposals = asked(walk(searcher))
    bare = [p for p in proposals if p.training is None]
    alone = make(name, OF, 30, 0)
    for proposal in bare:
        assert alone.ask() == proposal
        alone.tell(proposal.id, Outcome(ON(proposal.widths)))
    assert alone.ask() == Done()
    finalists = proposals[len(bare) :]
    ranked = sorted((p.widths for p in bare if OF.fits(p.widths)), key=ON, reverse=True)
    assert [p.widths for p in finalists] == ranked[: len(finalists)]
    assert len(finalists) == min(3, len(ranked))
    assert {p.training for p in finalists} == {Training(None, retrain=2)}
    assert [p.id for p in proposals] == list(range(len(proposals)))
    assert len(proposals) <= searcher.planned_trials


def test_a_finalist_that_trains_best_wins_and_where_all_fail_the_bare_winner_does() -> None:
    finalists = [p for p in asked(walk(final())) if p.training]
    for worths, winner in (
        ({finalists[1].widths: 0.0}, finalists[1]),
        (dict.fromkeys((f.widths for f in finalists), None), None),
    ):
        record = walk(final(), worths)
        proposals = {p.id: p for p in asked(record)}
        outcomes = {entry.proposal_id: entry.outcome for entry in record if isinstance(entry, Told)}
        found = ranked(proposals, outcomes, OF.fits)[0]
        assert found.widths == (winner or finalists[0]).widths
        assert (found.training is None) == (winner is None)


def test_the_final_begins_when_every_trial_is_told() -> None:
    searcher = final("random", 4)
    four = [searcher.ask() for _ in range(4)]
    assert isinstance(searcher.ask(), Wait)
    for proposal in reversed(four):
        assert isinstance(proposal, Proposal)
        searcher.tell(proposal.id, Outcome(ON(proposal.widths)))
    finalists = [searcher.ask() for _ in range(3)]
    assert all(isinstance(each, Proposal) and each.training for each in finalists)
    assert searcher.ask() == Done(), "nothing depends on how they end"
    searcher.tell(5, Outcome(0.0))
    for number in (5, 7):
        with pytest.raises(ValueError, match=f"proposal {number} was told already or never asked for"):
            searcher.tell(number, Outcome(0.0))


def test_a_search_without_a_success_has_no_final() -> None:
    searcher = final("random", 4)
    while isinstance(proposal := searcher.ask(), Proposal):
        assert proposal.training is None
        searcher.tell(proposal.id, Outcome(None, error="failed"))
    assert proposal == Done()


def test_replay_after_every_prefix_gives_the_next_ask() -> None:
    record = walk(final("simulated_annealing", 12))
    for end, entry in enumerate(record):
        if isinstance(entry, Asked):
            again = final("simulated_annealing", 12)
            replay(again, record[:end])
            assert again.ask() == entry.proposal


def test_plans_of_an_earlier_search_may_be_finalists() -> None:
    winner = max((p.widths for p in asked(walk(final())) if OF.fits(p.widths)), key=ON)
    searcher = final("random", 5)
    searcher.give(Given(Proposal(0, winner), Outcome(ON(winner))))
    proposals = asked(walk(searcher))
    assert [p.id for p in proposals] == list(range(1, 9))
    assert next(p.widths for p in proposals if p.training) == winner
