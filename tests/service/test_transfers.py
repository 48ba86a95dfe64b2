"""Uploads in parts: cut anywhere, resumed where they ended, whole in the end or not there at all."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.transfers import files
from tests.service.doubles import FakeInspect

pytestmark = pytest.mark.parametrize("kind", ["sqlite"])

CONTENT = bytes(range(256)) * 40


def begin(api: TestClient, content: bytes = CONTENT, **changes: Any) -> Any:
    announced = {"kind": "model", "size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "name": "big"}
    return api.post("/uploads", json={**announced, **changes})


def send(api: TestClient, upload: str, offset: int, part: Any, **headers: str) -> Any:
    return api.patch(f"/uploads/{upload}", content=part, headers={"Upload-Offset": str(offset), **headers})


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "data" / "store" / "incoming").iterdir())


def test_parts_make_the_whole(api: TestClient, inspect: FakeInspect, tmp_path: Path) -> None:
    began = begin(api)
    assert began.status_code == 201
    upload = began.json()["id"]
    assert began.headers["location"] == f"/uploads/{upload}"
    assert (began.json()["offset"], began.headers["upload-offset"]) == (0, "0")
    place, cut = 0, random.Random(0)
    while place < len(CONTENT):
        size = cut.randrange(1, 3000)
        sent = send(api, upload, place, CONTENT[place : place + size])
        place = sent.json()["offset"]
        assert api.get(f"/uploads/{upload}").json()["offset"] == place
    made = api.post(f"/uploads/{upload}/finish")
    assert made.status_code == 201
    assert (made.json()["sha256"], made.json()["size"]) == (hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
    assert made.json()["name"] == "big"
    assert made.json() == api.get(f"/models/{made.json()['id']}").json()
    assert api.post("/models", content=CONTENT).json() == made.json(), "the same bytes, the same model"
    again = api.post(f"/uploads/{upload}/finish")
    assert (again.status_code, again.json()) == (200, made.json()), "for whoever missed the answer"
    assert begin(api).json()["offset"] == len(CONTENT)
    assert inspect.calls.count("model") == 1
    assert left(tmp_path) == [f"{upload}.json"]
    assert api.delete(f"/models/{made.json()['id']}").status_code == 204
    assert begin(api).json()["offset"] == 0, "what it became is gone, so that it begins anew"
    api.delete(f"/uploads/{upload}")
    assert left(tmp_path) == []


def test_whoever_begins_the_same_again_goes_on(api: TestClient) -> None:
    upload = begin(api).json()["id"]
    send(api, upload, 0, CONTENT[:100])
    again = begin(api)
    assert (again.status_code, again.json()["id"], again.json()["offset"]) == (200, upload, 100)
    assert begin(api, kind="dataset").json()["id"] != upload


def test_a_part_elsewhere_is_refused_with_the_offset(api: TestClient) -> None:
    upload = begin(api).json()["id"]
    send(api, upload, 0, CONTENT[:100])
    for offset in (0, 99, 101):
        refused = send(api, upload, offset, b"x")
        assert (refused.status_code, refused.headers["upload-offset"]) == (409, "100")
        assert refused.json()["detail"] == f"Upload-Offset {offset} is not where this upload ends, 100; go on from there."
    assert api.patch(f"/uploads/{upload}", content=b"x").status_code == 422
    early = api.post(f"/uploads/{upload}/finish")
    assert early.json()["detail"] == f"Upload {upload} has 100 of 10,240 bytes; send the rest first."


def test_bytes_beyond_the_announced_size_are_refused(api: TestClient) -> None:
    upload = begin(api).json()["id"]
    for content in (CONTENT + b"x", iter([CONTENT + b"x"])):  # the first is known by its Content-Length
        beyond = send(api, upload, 0, content)
        assert beyond.json()["detail"] == "part goes beyond the 10,240 bytes that were announced; send no more."
    assert api.get(f"/uploads/{upload}").json()["offset"] == 0


def test_a_damaged_part_is_taken_back(api: TestClient) -> None:
    upload = begin(api).json()["id"]
    send(api, upload, 0, CONTENT[:100])
    digest = base64.b64encode(hashlib.sha256(CONTENT[100:200]).digest()).decode()
    header = {"Content-Digest": f"sha-256=:{digest}:"}
    damaged = send(api, upload, 100, b"x" * 100, **header)
    assert (damaged.status_code, damaged.json()["field"]) == (422, "Content-Digest")
    assert send(api, upload, 100, CONTENT[100:200], **header).json()["offset"] == 200


@pytest.mark.parametrize("content", [b"bad", b"other"])
def test_what_is_refused_in_the_end_is_gone(api: TestClient, tmp_path: Path, content: bytes) -> None:
    changes = {} if content == b"bad" else {"sha256": "0" * 64}
    upload = begin(api, content, **changes).json()["id"]
    send(api, upload, 0, content)
    refused = api.post(f"/uploads/{upload}/finish")
    assert (refused.status_code, refused.json()["field"]) == (422, "model" if content == b"bad" else "sha256")
    assert api.get(f"/uploads/{upload}").status_code == 404
    assert [path for path in (tmp_path / "data" / "store").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "changes",
    [{"size": 0}, {"size": -1}, {"size": 2**63}, {"sha256": "../../x"}, {"sha256": "A" * 64}, {"kind": "code"},
     {"name": "a\x00"}, {"path": "/etc/passwd"}],
)  # fmt: skip
def test_an_announcement_that_cannot_be_is_refused_by_name(api: TestClient, tmp_path: Path, changes: dict[str, Any]) -> None:
    refused = begin(api, **changes)
    assert refused.status_code == 422
    assert refused.json()["field"] == next(iter(changes))
    assert left(tmp_path) == []


def test_too_much_is_refused_before_a_byte_is_sent(api: TestClient) -> None:
    refused = begin(api, size=2**40)
    assert (refused.status_code, refused.headers["content-type"]) == (413, "application/problem+json")


def test_a_disk_without_room_is_known_before_a_byte_is_sent(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.store.base.shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    assert begin(api).status_code == 507
    assert api.post("/models", content=CONTENT).status_code == 507


@pytest.mark.parametrize("name", ["nothing", "..%2f..%2fetc", "%252e%252e", "upload-" + "g" * 32, "upload-" + "0" * 32])
def test_an_unknown_upload_is_not_found(api: TestClient, name: str) -> None:
    assert api.get(f"/uploads/{name}").status_code == 404
    assert send(api, name, 0, b"x").status_code == 404
    assert api.post(f"/uploads/{name}/finish").status_code == 404


def test_old_uploads_are_forgotten_and_not_too_many_open(
    api: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_OPEN", 2)
    uploads = [begin(api, bytes([number])).json()["id"] for number in range(2)]
    assert begin(api).json()["detail"] == "2 uploads are open; finish or delete some, or wait a day."
    then = time.time() - files.FORGOTTEN_SECONDS - 60
    os.utime(tmp_path / "data" / "store" / "incoming" / f"{uploads[0]}.part", (then, then))
    assert begin(api).status_code == 201
    assert [api.get(f"/uploads/{upload}").status_code for upload in uploads] == [404, 200]
