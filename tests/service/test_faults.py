"""Every commit of a job's life, and everything that works at it dies just before or just behind that one: the same end."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from searchers.base import Done, Proposal
from service.database import Database
from service.dispatcher import Dispatcher
from service.jobs.repository import JobRepository, Once
from service.jobs.states import ENDS, MOVES, State
from service.run_job import attempt
from service.store import FolderStore
from tests.postgres import Postgres
from tests.service.doubles import DATA, MODEL, FakeRay, a_job
from tests.service.test_log import BEST, DENSE
from tests.workers.test_search import describe, result, searcher
from workers.log import Finished, JobLog
from workers.search import RecordedSearch
from workers.spec import JobSpec, Limits

TRIALS = 3


class Crash(BaseException):
    """A process is killed: nothing catches it."""


class Fatal(Database):
    """Crashes whoever makes one certain commit, before it or behind it."""

    def __init__(self, url: str, at: int | None, committed: bool) -> None:
        super().__init__(url)
        self.at, self.committed, self.commits = at, committed, 0

    @contextmanager
    def write(self) -> Iterator[Session]:
        with super().write() as session:
            yield session
            self.commits += 1
            number = self.commits
            if number == self.at and not self.committed:
                raise Crash
        if number == self.at:
            raise Crash


@dataclass
class World:
    """A service with one job, whose processes run here and now."""

    database: Fatal
    store: FolderStore
    folder: Path
    control: str
    ray: FakeRay = field(default_factory=FakeRay)
    asked_for: set[str] = field(default_factory=set)
    job: str = ""

    @property
    def jobs(self) -> JobRepository:
        return JobRepository(self.database)

    def live(self) -> None:
        """From the queue to the end; whoever crashes is started again."""
        for content in (MODEL, DATA):
            self.store.put([content])
        model, dataset, job = a_job(spec={"budget": {"metric": "macs", "ratio": 0.5}})
        with Database.write(self.database) as session:
            session.add_all([model, dataset])
        self.ray.data_dir = self.folder
        once = Once("key", "c" * 64)
        self.job = self.user(lambda: self.jobs.made_by(once) or self.jobs.add(job, once=once)).id
        for _ in range(30):
            try:
                asyncio.run(self.round())
                self.work()
            except Crash:
                self.ray.statuses = dict.fromkeys(self.ray.statuses, "FAILED")
            state = self.jobs.get(self.job).state
            if state == State.PAUSED:
                self.user(lambda: self.jobs.resume(self.job))
            if state in ENDS:
                asyncio.run(self.round())
                return
        raise AssertionError(f"the job is still {state}")

    async def round(self) -> None:
        async with await self.ray.connect() as client:
            await Dispatcher(self.database, self.ray, 1).round(client)

    def work(self) -> None:
        """What Ray does with the attempts that it was given."""
        for submission, status in self.ray.statuses.items():
            if status == "RUNNING":
                job, _, number = submission.rpartition("-")
                code = attempt(job, int(number), self.database, self.store, self.folder, self.search, lambda: None)
                self.ray.statuses[submission] = "FAILED" if code else "SUCCEEDED"

    def search(self, spec: JobSpec, model: Path, data: Path, workdir: Path, networks: Path, log: JobLog) -> None:
        search = RecordedSearch(searcher(), log, describe, Limits(max_trials=TRIALS))
        log.running(search.planned_trials)
        while isinstance(proposal := search.ask(), Proposal):
            log.started(proposal.id)
            if proposal.id == TRIALS // 2 and self.control and self.control not in self.asked_for:
                self.asked_for.add(self.control)
                self.user(lambda: getattr(self.jobs, self.control)(self.job))
            search.tell(proposal.id, result(proposal.widths))
        assert isinstance(proposal, Done)
        log.finishing()
        winner = search.ranked(lambda widths: True)[0]
        log.succeeded(DENSE, [Finished(winner.id, BEST, [])])

    def user(self, call):  # type: ignore[no-untyped-def]
        """A call over HTTP: where the API dies in it, its client repeats it."""
        try:
            return call()
        except Crash:
            return call()

    def outcome(self) -> tuple[object, ...]:
        """What must not depend on who died: the state, the winner, every trial; checked on the way: a clean history."""
        job = self.jobs.get(self.job)
        trials, _ = self.jobs.trials(self.job, 100, None)
        events, _ = self.jobs.events(self.job, 500, None)
        states = [State(event.data["state"]) for event in events if event.type == "state"]
        assert states[0] == State.QUEUED
        assert all(after in MOVES[before] for before, after in pairwise(states))
        told = [event.data["number"] for event in events if event.data.get("state") == "succeeded" and event.type == "trial"]
        assert sorted(told) == [trial.number for trial in trials if trial.score is not None], "each trial is told once"
        attempts = self.jobs.attempts(self.job)
        assert [made.number for made in attempts] == list(range(1, job.attempt + 1))
        assert all(made.ended_at is not None for made in attempts)
        assert list((self.folder / "jobs").glob("*")) == [], "nothing is left"
        self.database.close()
        return job.state, job.best, [(trial.widths, trial.score) for trial in trials if trial.score is not None]


@pytest.mark.parametrize("control", ["pause", "stop"])
def test_whoever_dies_at_whichever_commit(control: str, tmp_path: Path, migrated: Path) -> None:
    def play(at: int | None, committed: bool) -> World:
        folder = tmp_path / f"{at} {committed}"
        folder.mkdir()
        shutil.copy(migrated, folder / "x.db")
        world = World(Fatal(f"sqlite:///{folder / 'x.db'}", at, committed), FolderStore(folder / "store"), folder, control)
        world.live()
        return world

    _compare(play, control)


def test_whoever_dies_at_whichever_commit_of_postgresql(tmp_path: Path, postgresql: Postgres) -> None:
    def play(at: int | None, committed: bool) -> World:
        folder = tmp_path / f"{at} {committed}"
        url = postgresql.url(postgresql.database(template="migrated"))
        world = World(Fatal(url, at, committed), FolderStore(folder / "store"), folder, "")
        world.live()
        return world

    _compare(play, "", both=False)


def _compare(play, control: str, both: bool = True) -> None:  # type: ignore[no-untyped-def]
    undisturbed = play(None, False)
    whole = undisturbed.outcome()
    assert whole[0] == State.SUCCEEDED
    assert undisturbed.database.commits >= 3 * TRIALS // 2
    for at in range(1, undisturbed.database.commits + 1):
        for committed in (False, True) if both else (at % 2 == 0,):
            found = play(at, committed).outcome()
            if control == "stop":  # a trial in flight may be lost with its process, and no other is started
                assert found[0] == whole[0]
                assert all(trial in whole[2] for trial in found[2])  # type: ignore[attr-defined, operator]
            else:
                assert found == whole, f"commit {at}, {'behind' if committed else 'before'} it"
