"""Models and data sets: uploaded, inspected, kept once; lists; what is refused."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from tests.service.doubles import TOKEN, FakeInspect, FakeRay, make_settings


def stored_files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "data" / "store").rglob("*") if path.is_file())


@pytest.mark.parametrize(("path", "word"), [("/models", "model"), ("/datasets", "dataset")])
def test_the_same_bytes_give_the_same_id_and_body(
    api: TestClient, inspect: FakeInspect, tmp_path: Path, path: str, word: str
) -> None:
    first = api.post(path, content=b"bytes", params={"name": "mine"})
    again = api.post(path, content=b"bytes")
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json() == api.get(f"{path}/{first.json()['id']}").json()
    assert first.json()["sha256"] == hashlib.sha256(b"bytes").hexdigest()
    assert first.json()["size"] == 5
    assert first.json()["name"] == "mine"
    assert first.json()["id"].startswith(word)
    assert inspect.calls.count("model" if word == "model" else "data") == 1
    arrays = [hashlib.sha256(b"arrays of bytes").hexdigest()] if word == "dataset" else []
    assert stored_files(tmp_path) == sorted([first.json()["sha256"], *arrays])


def test_a_known_upload_is_renamed_by_a_new_name(api: TestClient) -> None:
    first = api.post("/models", content=b"bytes", params={"name": "old"}).json()
    second = api.post("/models", content=b"bytes", params={"name": "new"}).json()
    assert second == {**first, "name": "new"}
    assert api.get(f"/models/{first['id']}").json()["name"] == "new"


def test_a_model_shows_its_groups_and_why_one_is_frozen(api: TestClient) -> None:
    model = api.post("/models", content=b"model").json()
    assert [g["name"] for g in model["groups"]] == ["conv1", "conv2", "fc"]
    assert [g["frozen_reason"] for g in model["groups"]] == [None, None, "is an output of the network"]
    assert model["macs"] == 576 * 16 + 576 * 256 + 160


def test_a_refused_upload_leaves_nothing_behind(api: TestClient, tmp_path: Path) -> None:
    refused = api.post("/models", content=b"bad")
    assert refused.status_code == 422
    assert refused.json()["detail"] == "model is not a program archive; export it again."
    assert refused.json()["field"] == "model"
    assert stored_files(tmp_path) == []
    assert api.get("/models").json() == {"items": [], "next": None}


def test_an_empty_body_and_a_form_are_refused_with_the_remedy(api: TestClient) -> None:
    empty = api.post("/datasets", content=b"")
    form = api.post("/datasets", files={"data": b"bytes"})
    assert (empty.status_code, form.status_code) == (422, 415)
    assert empty.json()["detail"] == "data is empty; send the file's bytes."
    assert "--data-binary" in form.json()["detail"]


@pytest.mark.parametrize("announced", [True, False])
def test_more_bytes_than_the_limit_are_refused(tmp_path: Path, announced: bool) -> None:
    app = create_app(make_settings(tmp_path / "data", max_model_bytes=1000), inspect=FakeInspect(), ray=FakeRay())
    content = b"x" * 1001 if announced else iter([b"x" * 1001])
    with TestClient(app, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        refused = client.post("/models", content=content)
        assert client.post("/models", content=b"x" * 1000).status_code == 201
    assert refused.status_code == 413
    assert "1,000 bytes" in refused.json()["detail"]
    assert len(stored_files(tmp_path)) == 1


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "..\\..\\x", "%252e%252e%252f", "a#b?c&d", "name; rm -rf", "模型 ☂", "-" * 200]
)
def test_a_hostile_name_is_only_ever_a_name(api: TestClient, tmp_path: Path, name: str) -> None:
    model = api.post("/models", content=b"bytes", params={"name": name}).json()
    assert model["name"] == name
    assert stored_files(tmp_path) == [model["sha256"]]


@pytest.mark.parametrize("name", ["", " ", "a\x00b", "a\nb", "\u202egnp.exe", "x" * 201])
def test_a_name_that_cannot_be_shown_is_refused(api: TestClient, name: str) -> None:
    refused = api.post("/models", content=b"bytes", params={"name": name})
    assert refused.status_code == 422
    assert refused.json()["field"] == "name"


@pytest.mark.parametrize("name", ["nothing", "..%2f..%2fetc", "%00", "a" * 5000, "model-'; DROP TABLE models;--"])
def test_an_unknown_id_is_not_found(api: TestClient, name: str) -> None:
    for path in ("/models", "/datasets", "/jobs"):
        missing = api.get(f"{path}/{name}")
        assert missing.status_code == 404
        assert missing.headers["content-type"] == "application/problem+json"


def test_lists_go_through_all_pages_newest_first(api: TestClient) -> None:
    made = [api.post("/models", content=f"model {i}".encode()).json()["id"] for i in range(5)]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = api.get("/models", params={"limit": 2, **({"after": cursor} if cursor else {})}).json()
        seen += [model["id"] for model in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == made[::-1]


@pytest.mark.parametrize(("name", "value"), [("limit", "0"), ("limit", "501"), ("limit", "x"), ("after", "../x")])
def test_a_bad_page_parameter_is_named(api: TestClient, name: str, value: str) -> None:
    refused = api.get("/models", params={name: value})
    assert refused.status_code == 422
    assert refused.json()["field"] == name
    assert refused.json()["detail"].startswith(f"{name} '{value}' ")
    assert refused.json()["errors"] == [{"field": name, "detail": refused.json()["detail"]}]


def test_a_full_disk_refuses_an_upload_and_keeps_nothing_of_it(
    api: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("service.store.base.os.fsync", full)
        refused = api.post("/models", content=b"model")
    assert (refused.status_code, refused.json()["title"]) == (507, "Storage full")
    assert refused.json()["detail"] == "The store's disk is full; free some space and try again."
    assert [path for path in (tmp_path / "data" / "store").rglob("*") if path.is_file()] == []
    assert api.post("/models", content=b"model").status_code == 201
