"""Any order of what users, dispatchers and processes do to a job: no illegal move, nothing told twice or forgotten."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from searchers.base import Outcome, Proposal, Told
from service.database import Database
from service.jobs.log import DatabaseLog, NotWanted
from service.jobs.repository import MOST_LOSSES, JobRepository
from service.jobs.states import ENDS, LIVE, MOVES, State
from service.problems import Conflict
from service.store import FolderStore
from tests.service.doubles import a_job
from tests.service.test_log import BEST, DENSE, plan
from workers.log import Finished


def machine(migrated: Path) -> type[RuleBasedStateMachine]:
    class Life(RuleBasedStateMachine):
        """One job; ``processes`` are all that were ever started for it, for those given up for dead may still write."""

        def __init__(self) -> None:
            super().__init__()
            self.folder = TemporaryDirectory()
            path = Path(self.folder.name) / "x.db"
            shutil.copy(migrated, path)
            self.database, self.store = Database(f"sqlite:///{path}"), FolderStore(Path(self.folder.name) / "store")
            self.jobs = JobRepository(self.database)
            model, dataset, job = a_job()
            with self.database.write() as session:
                session.add_all([model, dataset])
            self.job = self.jobs.add(job).id
            self.processes: list[DatabaseLog] = []
            self.told: dict[int, float] = {}
            self.ended: State | None = None

        def teardown(self) -> None:
            self.database.close()
            self.folder.cleanup()

        @property
        def state(self) -> State:
            return State(self.jobs.get(self.job).state)

        @rule(call=st.sampled_from(["pause", "resume", "stop", "cancel"]))
        def control(self, call: str) -> None:
            with suppress(Conflict):
                getattr(self.jobs, call)(self.job)

        @precondition(lambda self: self.state == State.QUEUED)
        @rule()
        def dispatch(self) -> None:
            started = self.jobs.start(self.job, "fake", most=9)
            assert started is not None
            self._process(started.attempt)

        @precondition(lambda self: self.processes)
        @rule()
        def lose(self) -> None:
            before = self.jobs.get(self.job)
            again = self.jobs.lost(self.job, before.attempt, "It was killed.", "fake")
            if again is not None:
                assert before.losses + 1 < MOST_LOSSES
                self._process(again.attempt)

        @precondition(lambda self: self.processes)
        @rule(
            which=st.integers(0, 5),
            what=st.sampled_from(["running", "ask", "start", "lose", "tell", "finishing", "succeed", "fail"]),
        )
        def write(self, which: int, what: str) -> None:
            log = self.processes[max(0, len(self.processes) - 1 - which)]
            newest = log is self.processes[-1]
            record = log.record()
            told = {entry.proposal_id for entry in record if isinstance(entry, Told)}
            asked = [entry.proposal.id for entry in record if not isinstance(entry, Told)]
            waiting = [number for number in asked if number not in told]
            first = waiting[0] if waiting else None
            score = -float(len(self.told))
            writes: dict[str, Callable[[], object]] = {
                "running": lambda: log.running(9),
                "ask": lambda: log.asked(Proposal(len(asked), (1,)), plan()),
                "start": lambda: first is None or log.started(first),
                "lose": lambda: first is None or log.lost(first, "Its worker was lost."),
                "tell": lambda: first is None or log.told(first, Outcome(score), 0.1, None),
                "finishing": log.finishing,
                "succeed": lambda: log.succeeded(DENSE, [Finished(0, BEST, [])]),
                "fail": lambda: log.failed("It cannot be."),
            }
            before = self.state
            try:
                writes[what]()
            except (NotWanted, Conflict):
                assert self.state == before
                return
            assert newest or (what in ("start", "lose", "tell") and first is None), "a process that was replaced wrote"
            if what == "tell" and first is not None:
                self.told[first] = score

        @invariant()
        def nothing_told_is_lost_or_doubled(self) -> None:
            trials, _ = self.jobs.trials(self.job, 500, None)
            assert {trial.number: trial.score for trial in trials if trial.score is not None} == self.told
            sequences = [trial.asked_sequence for trial in trials] + [t.told_sequence for t in trials if t.told_sequence]
            assert sorted(sequences) == list(range(1, len(sequences) + 1))
            running = [trial.number for trial in trials if trial.state == "running"]
            assert not running or self.state in LIVE

        @invariant()
        def every_move_is_legal_and_told_once(self) -> None:
            events, _ = self.jobs.events(self.job, 500, None)
            states = [State(event.data["state"]) for event in events if event.type == "state"]
            # A stop that waits for its process is an event of its own.
            assert all(after in MOVES[before] or after == before for before, after in pairwise(states))
            assert states[-1] == self.state
            if self.ended is not None:
                assert self.state == self.ended, "an end lasts"
            if self.state in ENDS:
                self.ended = self.state

        @invariant()
        def one_attempt_is_open_while_the_job_is_live(self) -> None:
            still = [attempt.number for attempt in self.jobs.attempts(self.job) if attempt.ended_at is None]
            assert still == ([self.jobs.get(self.job).attempt] if self.state in LIVE else [])

        def _process(self, attempt: int) -> None:
            log = DatabaseLog(self.database, self.store, self.job, attempt)
            with suppress(NotWanted):
                log.claim("here", attempt)
            self.processes.append(log)

    return Life


def test_any_life_of_a_job(migrated: Path) -> None:
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    given = settings(max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=slow)
    run_state_machine_as_test(machine(migrated), settings=given)
