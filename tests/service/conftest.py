from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.database import Database
from service.database.migrate import upgrade
from service.store import Store
from tests.service.doubles import TOKEN, FakeInspect, FakeRay, a_job, make_settings


@pytest.fixture
def inspect() -> FakeInspect:
    return FakeInspect()


@pytest.fixture
def ray() -> FakeRay:
    return FakeRay()


@pytest.fixture
def api(tmp_path: Path, inspect: FakeInspect, ray: FakeRay) -> Iterator[TestClient]:
    """A service that runs no dispatcher rounds (Ray is away), so that jobs stay as the test puts them."""
    ray.down = True
    app = create_app(make_settings(tmp_path / "data"), inspect=inspect, ray=ray)
    with TestClient(app, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        yield client


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'test.db'}")
    upgrade(database)
    yield database
    database.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def queued(database: Database) -> str:
    """The id of a queued job."""
    with database.write() as session:
        model, dataset, job = a_job()
        session.add_all([model, dataset])
        session.flush()
        session.add(job)
        return job.id


@pytest.fixture
def job_json(api: TestClient) -> dict[str, Any]:
    """A job that is accepted."""
    model = api.post("/models", content=b"model").json()["id"]
    dataset = api.post("/datasets", content=b"data").json()["id"]
    return {"model": model, "dataset": dataset, "budget": {"metric": "macs", "ratio": 0.5}}
