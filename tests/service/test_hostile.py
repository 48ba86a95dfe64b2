"""The hostile corpus through the API: nothing runs, nothing is kept or written elsewhere, each is refused in one sentence."""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from pruners.errors import InvalidInput
from service.app import create_app
from tests.service.doubles import TOKEN, FakeRay, make_settings
from tests.service.hostile import DATA, MODELS, programs

# One process for the whole corpus instead of one for each file, and not shut in: the readers alone keep the canary silent.
_CHILD = """
import json, resource, sys
from pathlib import Path
import workers.inspection
from service import inspection
from workers.formats import folders, npz, parquet
for line in sys.stdin:
    kind, *paths = json.loads(line)
    found = {} if kind == "nothing" else inspection.answer(kind, 2**30, [Path(path) for path in paths])
    print(json.dumps([found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]), flush=True)
"""


class Reader:
    """What ``LimitedProcess`` is, in one process that stays."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", _CHILD]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.peak = 0

    async def __call__(self, kind: str, path: Path | None = None, into: Path | None = None) -> dict[str, Any]:
        if path is None:
            return {"pruners": []}
        found = await asyncio.to_thread(self.ask, kind, *[str(file) for file in (path, into) if file is not None])
        if "found" not in found:
            raise InvalidInput(found["field"], None, found["problem"])
        answer: dict[str, Any] = found["found"]
        return answer

    def ask(self, kind: str, *paths: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([kind, *paths]) + "\n")
        self.process.stdin.flush()
        found, self.peak = json.loads(self.process.stdout.readline())
        return dict(found)


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    reader = Reader()
    yield reader
    reader.process.communicate()


@pytest.fixture
def api(tmp_path: Path, reader: Reader) -> Iterator[TestClient]:
    ray = FakeRay()
    ray.down = True
    app = create_app(make_settings(tmp_path / "data"), inspect=reader, ray=ray)
    with TestClient(app, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        yield client


def test_nothing_of_the_corpus_does_anything(api: TestClient, reader: Reader, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    uploads = [("/models", name, make(canary), named) for name, (make, named) in MODELS.items()]
    uploads += [("/datasets", name, make(canary), named) for name, (make, named) in DATA.items()]
    (tmp_path / "made").mkdir()
    uploads += [("/models", name, content, named) for name, (content, named) in programs(tmp_path / "made").items()]
    assert len(uploads) > 90
    reader.ask("nothing")
    there, ours = reader.peak, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    before = sorted(tmp_path.rglob("*"))
    for path, name, content, named in uploads:
        refused = api.post(path, content=content)
        problem = refused.json()
        assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json"), name
        sentence = problem["detail"]
        assert sentence.endswith("."), name
        assert "\n" not in sentence, name
        assert len(sentence) < 500, name
        assert "could not be read (" not in sentence, f"{name}: an error that nobody foresaw, {sentence}"
        assert any(word in sentence for word in named.split("|")), f"{name}: {sentence}"
        assert not canary.exists(), name
    assert [path for path in (tmp_path / "data" / "store").rglob("*") if path.is_file()] == []
    written = [path for path in tmp_path.rglob("*") if path not in before and not path.is_relative_to(tmp_path / "data")]
    assert written == []
    assert reader.peak - there < 64 * 2**10, "KiB that reading them took"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - ours < 64 * 2**10


@pytest.mark.parametrize("name", ["%252e%252e", "%2e%2e%2f", "模型", "..."])
def test_a_name_is_only_a_name(api: TestClient, tmp_path: Path, name: str) -> None:
    from tests.workers.files import image, tar

    path = tar(tmp_path / "data.tar", {f"{folder}/{n}.png": image(n) for folder in (name, "cat") for n in range(5)})
    made = api.post("/datasets", content=path.read_bytes(), params={"name": name})
    assert made.status_code == 201
    assert (made.json()["class_names"], made.json()["name"]) == (sorted([name, "cat"]), name)


HEADERS: dict[str, tuple[dict[str, str], int, str]] = {
    "length too small": ({"Content-Length": "3"}, 422, "Content-Length 3 is not what arrived, 5 bytes"),
    "length too large": ({"Content-Length": "500"}, 422, "Content-Length 500 is not what arrived, 5 bytes"),
    "length no number": ({"Content-Length": "0x10"}, 422, "Content-Length '0x10' is no number of bytes"),
    "length negative": ({"Content-Length": "-1"}, 422, "Content-Length '-1' is no number of bytes"),
    "another digest": ({"Content-Digest": f"sha-256=:{'A' * 43}=:"}, 422, "Content-Digest is not the sha-256 of the body"),
    "no digest": ({"Content-Digest": "sha-256=:AAAA:"}, 422, "holds no sha-256"),
    "a digest of another kind": ({"Content-Digest": "md5=:AAAA:"}, 422, "holds no sha-256"),
    "a digest that is none": ({"Content-Digest": "sha-256=../../etc"}, 422, "holds no sha-256"),
    "compressed": ({"Content-Encoding": "gzip"}, 415, "leave Content-Encoding out"),
    "a form": ({"Content-Type": "multipart/form-data; boundary=x"}, 415, "--data-binary"),
}


@pytest.mark.parametrize(("headers", "status", "sentence"), HEADERS.values(), ids=HEADERS)
@pytest.mark.parametrize("path", ["/models", "/datasets"])
def test_headers_that_lie_are_found_out(
    api: TestClient, tmp_path: Path, path: str, headers: dict[str, str], status: int, sentence: str
) -> None:
    refused = api.post(path, content=b"bytes", headers=headers)
    assert (refused.status_code, refused.headers["content-type"]) == (status, "application/problem+json")
    assert sentence in refused.json()["detail"]
    assert [file for file in (tmp_path / "data" / "store").rglob("*") if file.is_file()] == []
