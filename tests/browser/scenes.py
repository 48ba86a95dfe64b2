"""A service in a thread with jobs to look at: searches of a network of ten groups, made up by a seeded generator."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
from fastapi import FastAPI
from sqlalchemy import insert

from pruners.cost import CostModel, Linear, Polynomial, Term
from searchers.base import Outcome, Proposal
from service.app import create_app
from service.context import Context
from service.database.tables import Job, Trial, utc_now
from service.jobs.log import DatabaseLog
from service.jobs.repository import JobRepository
from tests.service.doubles import TOKEN, FakeInspect, FakeRay, group, make_settings, model_inspection
from tests.service.real_server import serving
from workers.log import Artefact, Finished, Measurement, Plan, Worker

WIDTHS = (16, 16, 16, 16, 32, 32, 32, 64, 64, 64)
NAMES = tuple(f"layer{1 + (i > 3) + (i > 6)}.{i % 3}.conv{1 + i % 2}" for i in range(len(WIDTHS)))
PIXELS = (1024,) * 4 + (256,) * 3 + (64,) * 3


def _cost() -> CostModel:
    """A chain of convolutions of 3×3 on ever smaller images, and a linear layer."""
    macs, params = [], []
    for i, pixels in enumerate(PIXELS):
        factors = [Linear(0, {i: 1})] + ([Linear(0, {i - 1: 1})] if i else [])
        macs.append(Term(9 * pixels, *factors))
        params.append(Term(9, *factors))
    last = Linear(0, {len(WIDTHS) - 1: 1})
    macs.append(Term(10, last))
    params.append(Term(10, last))
    size = [Term(4 * term.coefficient, *term.factors) for term in params]
    metrics = {"macs": macs, "params": params, "size_bytes": size}
    return CostModel([1] * len(WIDTHS), {name: Polynomial(terms, len(WIDTHS)) for name, terms in metrics.items()})


COST = _cost()


def inspection() -> dict[str, Any]:
    """What the inspection of that network finds."""
    groups = [group(name, width) for name, width in zip(NAMES, WIDTHS, strict=True)]
    layers = [
        {"name": name, "type": "Conv2d", "width": width, "weights": 9 * width, "groups": {name: width}}
        for name, width in zip(NAMES, WIDTHS, strict=True)
    ]
    frozen = group("fc", 10, types=["Linear"], frozen="is an output of the network")
    return model_inspection(
        macs=COST("macs", WIDTHS),
        params=COST("params", WIDTHS),
        size_bytes=COST("size_bytes", WIDTHS),
        cost=COST.to_json(),
        groups=[*groups, frozen],
        layers=[*layers, {"name": "fc", "type": "Linear", "width": 10, "weights": 640, "groups": {"fc": 10}}],
    )


@dataclass
class Site:
    """A running service and a client of its administrator's."""

    url: str
    api: httpx2.Client
    app: FastAPI
    folder: Path

    @property
    def context(self) -> Context:
        context: Context = self.app.state.context
        return context

    def key(self, user: str, scope: str = "submit") -> str:
        made = self.api.post("/keys", json={"user": user, "scope": scope, "name": "browser"})
        return str(made.raise_for_status().json()["key"])

    def model(self, name: str = "resnet20") -> str:
        sent = self.api.post("/models", params={"name": name}, content=json.dumps(inspection()).encode())
        return str(sent.raise_for_status().json()["id"])

    def job(self, name: str, trials: int = 40, **changes: Any) -> str:
        """A queued job."""
        dataset = self.api.post("/datasets", params={"name": "cifar10"}, content=b"data").json()["id"]
        sent = {"name": name, "model": self.model(), "dataset": dataset, "budget": {"metric": "macs", "ratio": 0.5}}
        sent |= {"searcher": {"name": "netadapt"}, "limits": {"max_trials": trials}}
        return str(self.api.post("/jobs", json={**sent, **changes}).raise_for_status().json()["id"])

    def search(self, job_id: str, trials: int = 40) -> Search:
        job = JobRepository(self.context.database).start(job_id, "fake", most=99)
        assert job is not None
        search = Search(self, job_id, DatabaseLog(self.context.database, self.context.store, job_id, job.attempt))
        search.log.running(trials)
        return search


class Search:
    """A job's process, trial by trial."""

    def __init__(self, site: Site, job_id: str, log: DatabaseLog) -> None:
        self.site, self.job_id, self.log = site, job_id, log
        self.number = 0
        self._random = random.Random(7)

    def try_one(self, failed: bool = False, widths: tuple[int, ...] | None = None) -> None:
        """One more trial, told at once."""
        widths = self.begin_one(widths)
        number = self.number
        outcome = Outcome(None, None, "out of memory") if failed else outcome_of(self._random, number, widths)
        self.log.told(number, outcome, 0.4 + 0.2 * self._random.random(), Worker(f"node-{number % 3 % 2}", 100 + number % 3))
        self.number += 1

    def begin_one(self, widths: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """One more trial, of which nothing is told yet."""
        number, widths = self.number, widths or plan(self._random, self.number)
        self.log.asked(Proposal(number, widths, f"round {number // 8 + 1}: {NAMES[number % len(NAMES)]}"), plan_of(widths))
        self.log.started(number)
        return widths

    def alone(self, place: int, width: int) -> None:
        """A trial that cuts one group and no other."""
        self.try_one(widths=(*WIDTHS[:place], width, *WIDTHS[place + 1 :]))

    def spread(self) -> None:
        """Gives the trials such times as they would have taken, side by side on three workers, up to now."""
        with self.site.context.database.write() as session:
            free = [utc_now() - timedelta(seconds=0.55 * self.number / 3)] * 3
            for number in range(self.number):
                trial = session.get_one(Trial, (self.job_id, number))
                trial.started_at = free[number % 3] + timedelta(seconds=0.02)
                free[number % 3] = trial.finished_at = trial.started_at + timedelta(seconds=trial.evaluate_seconds or 0.0)

    def succeed(self, *trials: int) -> None:
        """With the networks of these trials."""
        path = self.site.folder / "best.pt2"
        path.write_bytes(b"the network of " + self.job_id.encode())
        files = [Artefact("pt2", path), Artefact("safetensors", path)]
        with self.site.context.database.read() as session:
            tried = [session.get_one(Trial, (self.job_id, number)) for number in trials]
        kept = [Finished(trial.number, measured(trial.widths, (trial.metric or 0.0) - 0.005), files) for trial in tried]
        self.log.finishing()
        self.log.succeeded(measured(WIDTHS, 0.9212), kept)


def measured(widths: Sequence[int], metric: float) -> Measurement:
    """The figures of a network; it is the faster the less it computes, and files have a head besides the weights."""
    share = COST("macs", widths) / COST("macs", WIDTHS)
    size = COST("size_bytes", widths) + 40_000
    return Measurement(metric, COST("macs", widths), COST("params", widths), size, 1.4 + 2.8 * share, 0.2, share)


def plan(generator: random.Random, number: int) -> tuple[int, ...]:
    """Widths, of which the later ones cost less."""
    share = max(0.55, 1 - number / 60) + generator.uniform(-0.12, 0.12)
    return tuple(max(1, min(width, round(width * (share + generator.uniform(-0.15, 0.15))))) for width in WIDTHS)


def plan_of(widths: tuple[int, ...]) -> Plan:
    kept = dict(zip(NAMES, widths, strict=True))
    removed = {name: 1 - kept[name] / width for name, width in zip(NAMES, WIDTHS, strict=True)}
    return Plan(kept, removed, COST("macs", widths), COST("params", widths), COST("size_bytes", widths))


def outcome_of(generator: random.Random, number: int, widths: tuple[int, ...]) -> Outcome:
    left = COST("macs", widths) / COST("macs", WIDTHS)
    loss = 0.25 * (1 - left) ** 2 * (1 + 0.3 * generator.random()) * (1 if number < 10 else 0.8)
    return Outcome(-loss, round(0.93 - loss, 4))


def fill(site: Site, job_id: str, trials: int) -> None:
    """So many finished trials at once, as rows."""
    generator, began = random.Random(3), utc_now()
    rows = []
    for number in range(trials):
        widths = plan(generator, number % 60)
        outcome, made = outcome_of(generator, number, widths), plan_of(widths)
        start = began + timedelta(seconds=number // 2)
        rows.append(
            {
                "job_id": job_id,
                "number": number,
                "state": "succeeded",
                "note": f"trial {number}",
                "widths": list(widths),
                "plan": {"widths": dict(made.widths), "sparsity": dict(made.sparsity)},
                "macs": made.macs,
                "params": made.params,
                "size_bytes": made.size_bytes,
                "score": outcome.score,
                "metric": outcome.metric,
                "attempts": 1,
                "asked_sequence": 2 * number,
                "told_sequence": 2 * number + 1,
                "started_at": start,
                "finished_at": start + timedelta(seconds=0.9),
                "evaluate_seconds": 0.9,
                "node": "node-0",
                "pid": 100 + number % 2,
            }
        )
    with site.context.database.write() as session:
        session.execute(insert(Trial), rows)
        session.get_one(Job, job_id).sequence = 2 * trials


@contextmanager
def site() -> Iterator[Site]:
    """The service; Ray is away, so that jobs stay as they are put."""
    ray = FakeRay()
    ray.down = True
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(make_settings(Path(folder) / "data", max_running_jobs=4), inspect=FakeInspect(), ray=ray)
        with serving(app) as (host, port):
            url = f"http://{host}:{port}"
            with httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30) as api:
                yield Site(url, api, app, Path(folder))
