from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from fastapi.testclient import TestClient

from service.app import create_app
from service.context import Context
from service.database import Database
from service.database.migrate import upgrade
from service.store import FolderStore
from tests.postgres import Postgres, postgres
from tests.service.doubles import TOKEN, FakeInspect, FakeRay, a_job, make_settings

# By default rich draws every local variable of a trace, which takes seconds.
_renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
structlog.configure(processors=[*structlog.get_config()["processors"][:-1], _renderer])


@pytest.fixture
def inspect() -> FakeInspect:
    return FakeInspect()


@pytest.fixture
def ray() -> FakeRay:
    return FakeRay()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with all tables and no rows."""
    path = tmp_path_factory.mktemp("migrated") / "empty.db"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgres]:
    """A PostgreSQL that all tests of this process share; its database ``migrated`` has all tables and no rows."""
    with postgres() as server:
        _migrate(server.url(server.database(name="migrated")))
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of database in turn."""
    return str(request.param)


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> Iterator[str]:
    """A database of the test's own with all tables."""
    if kind == "sqlite":
        path = tmp_path / "test.db"
        shutil.copy(request.getfixturevalue("migrated"), path)
        yield f"sqlite:///{path}"
        return
    server: Postgres = request.getfixturevalue("postgresql")
    name = server.database(template="migrated")
    yield server.url(name)
    server.drop(name)


@pytest.fixture
def api(tmp_path: Path, inspect: FakeInspect, ray: FakeRay, database_url: str) -> Iterator[TestClient]:
    """A service that runs no dispatcher rounds (Ray is away), so that jobs stay as the test puts them."""
    ray.down = True
    app = create_app(make_settings(tmp_path / "data", database_url=database_url), inspect=inspect, ray=ray)
    with TestClient(app, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        yield client


@pytest.fixture
def context(api: TestClient) -> Context:
    context: Context = api.app.state.context  # type: ignore[attr-defined]
    return context


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


def _migrate(url: str) -> None:
    database = Database(url)
    upgrade(database)
    database.close()


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


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
