"""Garbage, backups, and what is restored from them."""

from __future__ import annotations

import os
import sqlite3
import tarfile
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from pruners.errors import InvalidInput
from service.app import create_app
from service.backup import backup, restore
from service.context import Context
from service.database.tables import AuditEntry, IdempotencyKey
from service.retention import collect
from service.settings import Settings
from service.store import Damaged, FolderStore
from tests.service.doubles import TOKEN, FakeInspect, FakeRay, make_settings
from tests.service.test_log import finished as finished  # noqa: PLC0414 - a fixture
from tests.service.test_log import succeed

HOUR = 3600.0


def aged(path: Path, hours: float) -> Path:
    then = time.time() - hours * HOUR
    os.utime(path, (then, then))
    return path


@pytest.mark.parametrize("kind", ["sqlite"])
def test_only_what_nothing_refers_to_is_deleted(finished, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    succeed(finished, tmp_path)
    context: Context = finished.client.app.state.context
    store, data_dir = context.store, context.settings.data_dir
    needed = [path for path in store.folder.rglob("*") if path.is_file()]
    assert len(needed) == 3 + len(finished.files) + 1, "with the card"
    orphan, young = (store.path(store.put([content]).sha256) for content in (b"orphan", b"young"))
    broken = store.folder / "incoming" / "tmp1"
    broken.write_bytes(b"half an upload")
    for path in (*needed, orphan, broken):
        aged(path, 48)
    waiting = finished.client.post(
        "/jobs", files={"model": b"model", "data": b"data"}, data={"job": '{"budget": {"ratio": 0.5}}'}
    )
    for job in (finished.job, "job-deleted", waiting.json()["id"]):
        (data_dir / "jobs" / job).mkdir(parents=True)
    freed = collect(context.database, store, data_dir, 24 * HOUR)
    assert (freed.files, freed.size) == (2, len(b"orphan" + b"half an upload"))
    assert sorted(freed.folders) == sorted([finished.job, "job-deleted"])
    assert sorted(path for path in store.folder.rglob("*") if path.is_file()) == sorted([*needed, young])
    assert [path.name for path in (data_dir / "jobs").iterdir()] == [waiting.json()["id"]]
    finished.client.delete(f"/jobs/{finished.job}")
    freed = collect(context.database, store, data_dir, 24 * HOUR)
    assert freed.files == len(finished.files) + 1, "its checkpoints and its card"


@pytest.mark.parametrize("kind", ["sqlite"])
def test_old_keys_and_entries_are_forgotten(api: TestClient, context: Context, job_json: dict[str, Any]) -> None:
    for key in ("old", "young"):
        api.post("/jobs", json=job_json, headers={"Idempotency-Key": key})
    with context.database.write() as session:
        session.get_one(IdempotencyKey, ("admin", "old")).created_at -= timedelta(days=8)
        entries = session.scalars(select(AuditEntry).order_by(AuditEntry.id)).all()
        entries[0].at -= timedelta(days=366)
    freed = collect(context.database, context.store, context.settings.data_dir)
    assert (freed.idempotency_keys, freed.audit_entries) == (1, 1)
    made = [api.post("/jobs", json=job_json, headers={"Idempotency-Key": key}).json()["id"] for key in ("old", "young")]
    assert len({job["id"] for job in api.get("/jobs").json()["items"]}) == 3, "the old key makes a new job"
    assert api.get("/jobs").json()["items"][1]["id"] == made[1]


def test_a_file_that_is_stored_again_while_it_is_deleted_stays(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    path = aged(store.path(store.put([b"again"]).sha256), 48)
    replace = os.replace

    def meanwhile(source: Path, target: Path) -> None:
        if "doomed" in target.name:
            monkeypatch.setattr(os, "replace", replace)
            store.put([b"again"])
        replace(source, target)

    monkeypatch.setattr(os, "replace", meanwhile)
    assert store.discard([], 24 * HOUR) == []
    assert path.read_bytes() == b"again"


def served(settings: Settings) -> TestClient:
    ray = FakeRay()
    ray.down = True
    return TestClient(create_app(settings, inspect=FakeInspect(), ray=ray), headers={"Authorization": f"Bearer {TOKEN}"})


def test_a_backup_of_a_running_service_is_that_service(tmp_path: Path) -> None:
    settings, file = make_settings(tmp_path / "old"), tmp_path / "backup.tar"
    with served(settings) as client:
        made = client.post(
            "/jobs", files={"model": b"model", "data": b"data"}, data={"job": '{"budget": {"ratio": 0.5}}'}
        ).json()
        assert backup(settings, file) == 3, "the data's arrays too"
        client.post("/models", content=b"later")
    assert [path.name for path in tmp_path.iterdir() if "backup" in path.name] == ["backup.tar"]
    again = make_settings(tmp_path / "new")
    assert restore(again, file) == 3
    with served(again) as client:
        assert client.get(f"/jobs/{made['id']}").json() == made
        assert [model["size"] for model in client.get("/models").json()["items"]] == [len(b"model")]
    with pytest.raises(InvalidInput, match="holds a database already; restore into an empty folder"):
        restore(again, file)


def test_a_damaged_store_is_not_backed_up_and_leaves_the_last_backup(tmp_path: Path) -> None:
    settings, file = make_settings(tmp_path / "data"), tmp_path / "backup.tar"
    file.write_bytes(b"the last one")
    with served(settings) as client:
        sha256 = client.post("/models", content=b"model").json()["sha256"]
        FolderStore(Path(settings.store_at)).path(sha256).write_bytes(b"rotten")
        with pytest.raises(Damaged, match=sha256):
            backup(settings, file)
    assert file.read_bytes() == b"the last one"


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("text", "is no backup, or a damaged one"),
        ("no database", "secateur.db is not in it"),
        ("other bytes", "has other bytes than its name says"),
        ("a file less", "1 of the files that it refers to are not in it"),
    ],
)
def test_what_is_no_whole_backup_is_refused(tmp_path: Path, harm: str, said: str, migrated: Path) -> None:
    file = tmp_path / "backup.tar"
    (tmp_path / "x.db").write_bytes(migrated.read_bytes())
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        connection.execute("INSERT INTO models VALUES ('model-1', ?, 1, 'n', '{}', '2026-01-01', 'admin')", ["a" * 64])
        connection.commit()
    if harm == "text":
        file.write_text("not a tar archive")
    else:
        with tarfile.open(file, "w") as archive:
            if harm != "no database":
                archive.add(tmp_path / "x.db", "secateur.db")
            if harm == "other bytes":
                archive.add(tmp_path / "x.db", f"store/{'a' * 64}")
    settings = make_settings(tmp_path / "new")
    with pytest.raises(InvalidInput, match=said):
        restore(settings, file)
    assert not (settings.data_dir / "secateur.db").exists()


def test_another_database_is_backed_up_by_its_own_tools(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, database_url="postgresql+psycopg://me:secret@host/db")
    with pytest.raises(InvalidInput, match="use pg_dump") as refusal:
        backup(settings, tmp_path / "x")
    assert "secret" not in str(refusal.value)
