"""The state machine: only its moves can be made, and each leaves an event."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from service.database import Database
from service.database.tables import Event, Job, Trial
from service.jobs.states import ENDS, LIVE, MOVES, WRITABLE, State, locked, move
from service.problems import NotFound


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
