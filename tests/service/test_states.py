"""The state machine: only its moves can be made, and each leaves an event."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from service.database import Database
from service.database.migrate import upgrade
from service.database.tables import Event, Job, Trial
from service.jobs.states import ENDS, LIVE, MOVES, WRITABLE, IllegalMove, State, locked, move
from service.problems import NotFound
from tests.service.doubles import a_job


def test_every_state_can_be_reached_and_left_for_an_end() -> None:
    def reachable(start: State) -> set[State]:
        found, new = {start}, {start}
        while new:
            new = {to for state in new for to in MOVES[state]} - found
            found |= new
        return found

    assert set(MOVES) == set(State)
    assert reachable(State.QUEUED) == set(State)
    assert sorted(ENDS) == [State.CANCELLED, State.FAILED, State.SUCCEEDED]
    for state in set(State) - ENDS:
        assert reachable(state) & ENDS
        assert reachable(state) & {State.CANCELLED}, "every job can be cancelled"
    assert WRITABLE < LIVE
    assert not LIVE & ENDS


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(State), max_size=12))
def test_any_sequence_of_moves_follows_the_table(wishes: list[State]) -> None:
    with TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{Path(folder) / 'x.db'}")
        upgrade(database)
        with database.write() as session:
            model, dataset, job = a_job()
            session.add_all([model, dataset])
            session.flush()
            session.add(job)
        job_id, expected, attempts = job.id, State.QUEUED, 0
        made: list[State] = []
        for wish in wishes:
            legal = wish in MOVES[expected]
            refusal: AbstractContextManager[object] = (
                nullcontext() if legal else pytest.raises(IllegalMove, match=f"is {expected} and cannot become {wish}")
            )
            with refusal, database.write() as session:
                move(session, locked(session, job_id), wish, "because")
            if legal:
                expected = wish
                made.append(wish)
                attempts += wish is State.STARTING
        with database.read() as session:
            final = session.get_one(Job, job_id)
            events = [event.data["state"] for event in session.scalars(select(Event).order_by(Event.id))]
        assert (final.state, final.attempt) == (expected, attempts)
        assert (final.finished_at is not None) == (expected in ENDS)
        assert (final.started_at is not None) == (State.RUNNING in made)
        assert events == made
        database.close()


def test_a_move_and_its_event_are_one_transaction(database: Database, queued: str) -> None:
    def interrupted() -> None:
        with database.write() as session:
            move(session, locked(session, queued), State.STARTING)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    with database.read() as session:
        assert session.get_one(Job, queued).state == State.QUEUED
        assert session.scalars(select(Event)).all() == []


def test_trials_of_a_process_that_is_gone_do_not_run(database: Database, queued: str) -> None:
    with database.write() as session:
        trial = {"note": "", "widths": [1], "plan": {}, "macs": 1, "params": 1, "asked_sequence": 1}
        session.add(Trial(job_id=queued, number=0, state="running", **trial))
        session.add(Trial(job_id=queued, number=1, state="succeeded", **trial))
        session.flush()
        for state in (State.STARTING, State.CANCELLING, State.CANCELLED):
            move(session, locked(session, queued), state)
    with database.read() as session:
        assert session.scalars(select(Trial.state).order_by(Trial.number)).all() == ["pending", "succeeded"]


def test_an_unknown_job_is_not_found(database: Database) -> None:
    with pytest.raises(NotFound), database.write() as session:
        locked(session, "job-none")
