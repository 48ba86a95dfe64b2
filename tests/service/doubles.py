"""Doubles for what the API talks to: inspections written by the test, and Ray's Jobs API in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2

from pruners.cost import ENGINE, CostModel, Linear, Polynomial, Term
from pruners.errors import InvalidInput
from service.database import Database
from service.database.tables import Dataset, Job, Model, new_id
from service.jobs.folders import clear_folders
from service.ray_jobs import RayJobs
from service.settings import Settings
from workers.formats.convert import VERSION

TOKEN = "a-token-for-tests"
MODEL, DATA = b"a network", b"images and labels"
"""What the rows of ``a_job`` stand for."""

PRUNERS = [
    {
        "name": "l1",
        "description": "By absolute weights.",
        "reference": "arXiv 1608.08710",
        "params": {"type": "object", "properties": {}, "additionalProperties": False},
        "schedule": False,
    },
    {
        "name": "apoz",
        "description": "By zeros.",
        "reference": "arXiv 1607.03250",
        "params": {
            "type": "object",
            "properties": {"images": {"type": "integer", "minimum": 1}},
            "additionalProperties": False,
        },
        "schedule": False,
    },
    {
        "name": "level",
        "description": "Single weights.",
        "reference": "arXiv 1506.02626",
        "params": {"type": "object", "properties": {}, "additionalProperties": False},
        "schedule": False,
    },
    {
        "name": "slim",
        "description": "By scales.",
        "reference": "arXiv 1708.06519",
        "params": {"type": "object", "properties": {}, "additionalProperties": False},
        "schedule": False,
    },
    {
        "name": "agp",
        "description": "Step by step.",
        "reference": "arXiv 1710.01878",
        "params": {"type": "object", "properties": {}, "additionalProperties": False},
        "schedule": True,
    },
]


def cost_model() -> CostModel:
    """Of conv1 (1 → a) and conv2 (a → b) on 8×8 images, and a linear layer b → 10."""
    first, second = Linear(0, {0: 1}), Linear(0, {1: 1})
    macs = [Term(9 * 64, first), Term(9 * 64, first, second), Term(10, second)]
    params = [Term(9, first), Term(9, first, second), Term(10, second, Linear(1, {}))]
    size_bytes = [Term(4 * term.coefficient, *term.factors) for term in params]
    metrics = {"macs": macs, "params": params, "size_bytes": size_bytes}
    return CostModel([1, 1], {name: Polynomial(terms, 2) for name, terms in metrics.items()})


def group(name: str, width: int, frozen: str | None = None, **other: Any) -> dict[str, Any]:
    return {
        "name": name,
        "width": width,
        "divisor": 1,
        "minimum": 1,
        "layers": [name],
        "types": ["Conv2d"],
        "residual": False,
        "frozen_reason": frozen,
        "unscored_by": [],
        **other,
    }


def layer(name: str, kind: str, weights: int) -> dict[str, Any]:
    return {"name": name, "type": kind, "width": 16, "weights": weights, "groups": {name: 16}}


def model_inspection(**changes: Any) -> dict[str, Any]:
    cost = cost_model()
    return {
        "macs": cost("macs", [16, 16]),
        "params": cost("params", [16, 16]),
        "inputs": [{"shape": [None, 1, 8, 8], "dtype": "float32"}],
        "outputs": [{"shape": [None, 10]}],
        "groups": [
            group("conv1", 16),
            group("conv2", 16, layers=["conv2", "shortcut"], types=["Conv2d", "Conv2d"], residual=True),
            group("fc", 10, types=["Linear"], frozen="is an output of the network"),
        ],
        "layers": [layer("conv1", "Conv2d", 144), layer("conv2", "Conv2d", 2304), layer("fc", "Linear", 160)],
        "engine": ENGINE,
        "cost": cost.to_json(),
        **changes,
    }


def data_inspection(**changes: Any) -> dict[str, Any]:
    return {
        "version": VERSION,
        "format": "npz",
        "split_by": "the arrays' names",
        "splits": {"train": 1000, "test": 300, "val": 0},
        "shape": [1, 8, 8],
        "dtype": "float32",
        "targets": {"shape": [], "dtype": "int64"},
        "classes": 10,
        "labels": [0, 9],
        "class_names": None,
        "arrays": sha256(DATA).hexdigest(),
        **changes,
    }


class FakeInspect:
    """Finds the standard model and data, with the changes that the upload states in JSON; refuses the bytes ``bad``."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def __call__(self, kind: str, path: Path | None = None, into: Path | None = None) -> dict[str, Any]:
        self.calls.append(kind)
        if path is None:
            return {"pruners": PRUNERS}
        content = await asyncio.to_thread(path.read_bytes)
        if content == b"bad":
            raise InvalidInput(kind, None, "is not a program archive; export it again")
        if content == b"crash":
            raise RuntimeError("a secret detail")
        if into is not None:
            await asyncio.to_thread(into.write_bytes, b"arrays of " + content)
        changes = json.loads(content) if content.startswith(b"{") else {}
        return model_inspection(**changes) if kind == "model" else data_inspection(**changes)


class FakeRay:
    """Ray's Jobs API over a dictionary; tests change ``statuses`` to say what became of a job.

    ``down`` makes it unreachable, ``refusal`` makes it refuse submissions with that text.
    """

    def __init__(self, name: str = "fake") -> None:
        self.name = name
        self.dashboard = "http://ray.test"
        self.data_dir: Path | None = None  # where it keeps its jobs' folders
        self.statuses: dict[str, str] = {}
        self.submitted: dict[str, Mapping[str, Any]] = {}
        self.stopped: list[str] = []
        self.down = False
        self.refusal: str | None = None
        self.closed_with: bool | None = None

    async def connect(self) -> RayJobs:
        return RayJobs("http://ray.test", "ray-token", httpx2.MockTransport(self._answer))

    async def close(self, live_jobs: bool) -> None:
        self.closed_with = live_jobs

    def command(self, job: Job) -> str:
        return f"run {job.id} {job.attempt}"

    def tidy(self, database: Database) -> None:
        if self.data_dir is not None:
            clear_folders(database, self.data_dir)

    def environment(self) -> Mapping[str, str]:
        return {"SECATEUR_DATA_DIR": "/data"}

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        if self.down:
            raise httpx2.ConnectError("refused", request=request)
        if request.headers.get("authorization") != "Bearer ray-token":
            return httpx2.Response(401)
        path = request.url.path
        if path == "/api/version":
            return httpx2.Response(200, json={"version": "4"})
        if path == "/api/jobs/":
            return self._submit(json.loads(request.content))
        submission = path.split("/")[3]
        if submission not in self.statuses:
            return httpx2.Response(404, text=f"Job {submission} does not exist")
        if path.endswith("/stop"):
            self.stopped.append(submission)
            self.statuses[submission] = "STOPPED"
            return httpx2.Response(200, json={"stopped": True})
        message = "Job entrypoint command failed with exit code 1, last available logs: secret"
        return httpx2.Response(200, json={"status": self.statuses[submission], "message": message})

    def _submit(self, body: Mapping[str, Any]) -> httpx2.Response:
        if self.refusal is not None:
            return httpx2.Response(400, text=f"Traceback\n{self.refusal}")
        submission = body["submission_id"]
        if submission in self.statuses:  # as a real head does: its agent's 400 inside a 500
            return httpx2.Response(500, text=f"status code 400\nJob with submission_id {submission} already exists.")
        self.submitted[submission] = body
        self.statuses[submission] = "RUNNING"
        return httpx2.Response(200, json={"submission_id": submission})


def make_settings(folder: Path, **changes: Any) -> Settings:
    return Settings.load(**{"data_dir": folder, "token": TOKEN, **changes})


def a_job(**changes: Any) -> tuple[Model, Dataset, Job]:
    """Rows of a queued job."""
    files = [{"sha256": sha256(content).hexdigest(), "size": len(content)} for content in (MODEL, DATA)]
    model = Model(id=new_id("model"), name="net", inspection=model_inspection(), **files[0])
    dataset = Dataset(id=new_id("dataset"), name="digits", inspection=data_inspection(), **files[1])
    job = Job(
        **{
            "id": new_id("job"),
            "name": "half",
            "model_id": model.id,
            "dataset_id": dataset.id,
            "spec": {"budget": {"metric": "macs", "ratio": 0.5}},
            "budget_limit": 80_000,
            "planned_trials": 20,
            "state": "queued",
            **changes,
        }
    )
    return model, dataset, job
