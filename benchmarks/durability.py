"""What durability costs: ``python -m benchmarks.durability``.

    trials     a job of so many trials, nothing evaluated: seconds to write one, bytes that the database grows by, a page of
               them and the list of jobs over HTTP, and the replay by which a new attempt begins
    writers    16 processes that write 1,000 times each into one SQLite file

With ``--database-url`` the first is measured on a PostgreSQL.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from fastapi.testclient import TestClient
from sqlalchemy import text

from pruners.cost import CostModel, Linear, Polynomial, Term
from searchers import SEARCHERS
from searchers.base import Done, Proposal, Searcher
from searchers.space import Budget, Group, SearchSpace
from service.app import create_app
from service.context import Context
from service.database import Database
from service.database.tables import Job
from service.jobs.log import DatabaseLog
from service.jobs.repository import JobRepository
from service.jobs.states import locked
from service.settings import Settings
from tests.service.doubles import FakeInspect, FakeRay
from tests.workers.test_search import result
from workers.log import Plan
from workers.search import RecordedSearch
from workers.spec import Limits

LAYERS = 20  # in each trial's plan, as many as a ResNet-20 has


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--searcher", default="random")
    parser.add_argument("--database-url")
    parser.add_argument("--writers", type=int, default=16)
    parser.add_argument("--writes", type=int, default=1000)
    parsed = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))  # a line a trial otherwise
    with tempfile.TemporaryDirectory(prefix="secateur-") as name:
        folder = Path(name)
        print(json.dumps(many_trials(folder, parsed.trials, parsed.searcher, parsed.database_url)))
        print(json.dumps(many_writers(folder / "writers.db", parsed.writers, parsed.writes)))


def many_trials(folder: Path, trials: int, searcher: str, url: str | None) -> dict[str, Any]:
    """A job of so many trials, written as a running job writes it, listed, and taken up again."""
    ray = FakeRay()
    ray.down = True
    settings = Settings.load(data_dir=folder / "data", token="t", database_url=url)  # noqa: S106
    headers = {"Authorization": "Bearer t"}
    with TestClient(create_app(settings, inspect=FakeInspect(), ray=ray), headers=headers) as client:
        files = {"model": b"model", "data": b"data"}
        limits = json.dumps({"budget": {"ratio": 0.5}, "limits": {"max_trials": trials}})
        job = client.post("/jobs", files=files, data={"job": limits}).json()["id"]
        context: Context = client.app.state.context  # type: ignore[attr-defined]
        JobRepository(context.database).start(job, "fake", most=9)
        log = DatabaseLog(context.database, context.store, job, 1)
        before, began = size(context.database), time.perf_counter()
        log.claim("here", 1)
        search = RecordedSearch(machine(searcher, trials), log, describe, Limits(max_trials=trials))
        log.running(trials)
        while isinstance(proposal := search.ask(), Proposal):
            log.started(proposal.id)
            search.tell(proposal.id, result(proposal.widths))
        assert isinstance(proposal, Done)
        writing = time.perf_counter() - began
        grown = size(context.database) - before
        made = len(search.outcomes)
        pages = {
            "trials page ms": f"/jobs/{job}/trials?limit=100",
            "trials page behind half of them ms": f"/jobs/{job}/trials?limit=100&after={made // 2}",
            "jobs page ms": "/jobs",
            "job ms": f"/jobs/{job}",
            "events page ms": f"/jobs/{job}/events?limit=100",
        }
        shown = {name: round(1000 * median(lambda path=path: client.get(path)), 1) for name, path in pages.items()}  # type: ignore[misc]
        began = time.perf_counter()
        again = RecordedSearch(machine(searcher, trials), log, describe, Limits(max_trials=trials))
        replaying = time.perf_counter() - began
        assert again.outcomes == search.outcomes
    return {
        "database": context.database.engine.dialect.name,
        "searcher": searcher,
        "trials": made,
        "ms to write one": round(1000 * writing / made, 2),
        "bytes for one": round(grown / made),
        "replay s": round(replaying, 2),
        **shown,
    }


def machine(name: str, trials: int) -> Searcher:
    """A searcher over three wide groups, so many plans that it never runs out of new ones."""
    wide = [Group(f"g{number}", 200) for number in range(3)]
    cost = CostModel([1, 1, 1], {"macs": Polynomial([Term(1, Linear(0, {0: 1, 1: 1, 2: 1}))], 3)})
    kind = SEARCHERS[name]
    return kind(SearchSpace(wide, cost, Budget.of("macs", 600, ratio=0.5)), kind.Params(), 0, trials)


def describe(proposal: Proposal) -> Plan:
    """As long as that of a ResNet-20."""
    names = [f"layer{number // 6 + 1}.{number % 6 // 2}.conv{number % 2 + 1}" for number in range(LAYERS)]
    return Plan(dict.fromkeys(names, 16), dict.fromkeys(names, 0.4375), *[sum(proposal.widths)] * 3)


def size(database: Database) -> int:
    """Bytes that a database takes."""
    with database.read() as session:
        if database.engine.dialect.name == "sqlite":
            return int(session.scalar(text("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")) or 0)
        return int(session.scalar(text("SELECT pg_database_size(current_database())")) or 0)


def median(call: Callable[[], Any], times: int = 11) -> float:
    """Seconds."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        assert call().status_code == 200
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def many_writers(path: Path, writers: int, writes: int) -> dict[str, Any]:
    """So many processes at one SQLite file; an error in any of them is raised here."""
    from service.database.migrate import upgrade
    from tests.service.doubles import a_job

    database = Database(f"sqlite:///{path}")
    upgrade(database)
    model, dataset, job = a_job()
    with database.write() as session:
        session.add_all([model, dataset])
        session.flush()
        session.add(job)
    began = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(writers) as pool:
        slowest = pool.starmap(write, [(str(path), job.id, writes)] * writers)
    seconds = time.perf_counter() - began
    with database.read() as session:
        written = session.get_one(Job, job.id).sequence
    database.close()
    assert written == writers * writes, "a write was lost"
    return {
        "writers": writers,
        "writes": written,
        "errors": 0,
        "slowest write s": round(max(slowest), 2),
        "s": round(seconds, 1),
    }


def write(path: str, job: str, writes: int) -> float:
    """One process's writes, each reading the row that it changes; seconds of its slowest."""
    database, slowest = Database(f"sqlite:///{path}"), 0.0
    for _ in range(writes):
        began = time.perf_counter()
        with database.write() as session:
            locked(session, job).sequence += 1
        slowest = max(slowest, time.perf_counter() - began)
    database.close()
    return slowest


if __name__ == "__main__":
    main()
