"""The app as a whole: who may call, how faults look, what it says about itself, what it imports."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import structlog
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from service.app import create_app
from service.auth import admin_token
from service.settings import Settings
from tests.service.doubles import TOKEN, FakeInspect, FakeRay, make_settings

OPEN = {"/livez", "/readyz", "/version"}  # /metrics is too, but from this machine alone

SQLITE = pytest.mark.parametrize("kind", ["sqlite"])  # where the database has no say, one kind of it will do


def routes(api: TestClient) -> list[tuple[str, str]]:
    paths = api.get("/openapi.json").json()["paths"]
    return [(method, path) for path, methods in paths.items() for method in methods]


@SQLITE
@pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer ", "Basic abc", TOKEN, "Bearer tökén".encode()])
def test_every_route_but_the_open_ones_needs_the_token(api: TestClient, header: str | bytes | None) -> None:
    closed = [(method, path) for method, path in routes(api) if path not in OPEN]
    assert len(closed) >= 15
    del api.headers["Authorization"]
    for method, path in closed:
        headers = {} if header is None else {b"Authorization": header if isinstance(header, bytes) else header.encode()}
        refused = api.request(method, path.replace("{", "").replace("}", ""), headers=headers)
        assert refused.status_code == 401, (method, path)
        assert refused.headers["www-authenticate"].startswith("Bearer")
        assert refused.headers["content-type"] == "application/problem+json"


@SQLITE
def test_the_open_routes_need_none(api: TestClient) -> None:
    del api.headers["Authorization"]
    assert api.get("/livez").json() == {"status": "ok"}
    assert api.get("/version").json()["name"] == "secateur"
    assert api.get("/docs").status_code == 200
    assert api.get("/readyz").status_code in (200, 503)


def test_readiness_names_what_is_missing(api: TestClient, ray: FakeRay, tmp_path: Path) -> None:
    answer = api.get("/readyz")
    assert answer.status_code == 503
    ready = answer.json()
    assert (ready["ready"], ready["database"]["ok"], ready["store"]["ok"], ready["ray"]["ok"]) == (
        False,
        True,
        True,
        False,
    )
    assert ready["ray"]["reason"]
    (tmp_path / "data" / "store" / "incoming").rmdir()
    (tmp_path / "data" / "store").rmdir()
    assert api.get("/readyz").json()["store"] == {"ok": False, "reason": "The store's folder is gone or not writable."}


@SQLITE
def test_a_fault_of_ours_shows_an_id_and_no_detail(api: TestClient) -> None:
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logs:
        answer = api.post("/models", content=b"crash")
    assert answer.status_code == 500
    (trace,) = (entry for entry in logs if entry["event"] == "request_failed")
    assert trace["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert "secret detail" not in answer.text


@SQLITE
@pytest.mark.parametrize(("given", "kept"), [("trace-1/a:b", True), ("x" * 129, False), ("a b", False), ("é", False)])
def test_a_request_keeps_its_callers_id_if_it_is_one(api: TestClient, given: str, kept: bool) -> None:
    answer = api.get("/jobs/none", headers={b"X-Request-ID": given.encode()})
    found = answer.headers["x-request-id"]
    assert (found == given) is kept
    assert found == answer.json()["request_id"]
    assert len(found) >= 8


@SQLITE
def test_browsers_do_nothing_with_an_answer_that_was_not_meant(api: TestClient) -> None:
    for path in ("/jobs", "/livez", "/docs", "/nothing"):
        headers = api.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers
    assert "script-src" not in api.get("/jobs").headers["content-security-policy"]


@SQLITE
def test_unknown_paths_and_methods_are_problems(api: TestClient) -> None:
    missing, method = api.get("/nothing"), api.delete("/models")
    assert (missing.status_code, method.status_code) == (404, 405)
    assert method.headers["allow"]
    assert method.headers["allow"] == "GET, POST"
    for answer in (missing, method):
        assert answer.headers["content-type"] == "application/problem+json"
        assert "/docs" in answer.json()["detail"]


@SQLITE
def test_algorithms_are_listed_with_their_parameters(api: TestClient) -> None:
    searchers = {item["name"]: item for item in api.get("/searchers").json()["items"]}
    assert "decay" in searchers["netadapt"]["params"]["properties"]
    assert "1804.03230" in searchers["netadapt"]["reference"]
    assert [item["name"] for item in api.get("/pruners").json()["items"]] == ["l1", "apoz", "level", "slim", "agp"]


@SQLITE
def test_the_description_documents_every_error(api: TestClient) -> None:
    document = api.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    fields = set(schemas["Problem"]["properties"])
    assert "HTTPValidationError" not in schemas  # FastAPI's own, which we never send
    for path, methods in document["paths"].items():
        for operation in methods.values():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    ((kind, content),) = response["content"].items()
                    assert kind == "application/problem+json", (path, status)
                    for example in content["examples"].values():
                        assert example["value"]["status"] == int(status)
                        assert set(example["value"]) <= fields
    refs = {part.split('"')[0] for part in api.get("/openapi.json").text.split("#/components/schemas/")[1:]}
    assert refs <= set(schemas)
    assert schemas["JobRequest"]["examples"][0]["budget"] == {"metric": "macs", "ratio": 0.5}


def test_the_token_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    settings = make_settings(tmp_path / "data", token=None)
    first = admin_token(settings)
    path = tmp_path / "data" / "token"
    assert len(first) >= 40
    assert admin_token(settings) == first == path.read_text().strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [child.name for child in path.parent.iterdir()] == ["token"]


def test_a_chosen_token_wins_and_is_not_written(tmp_path: Path) -> None:
    assert admin_token(make_settings(tmp_path / "data")) == TOKEN
    assert not (tmp_path / "data").exists()


def test_a_restart_keeps_what_was_uploaded(tmp_path: Path) -> None:
    settings = make_settings(tmp_path / "data")
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with TestClient(create_app(settings, inspect=FakeInspect(), ray=FakeRay()), headers=headers) as client:
        model = client.post("/models", content=b"bytes").json()
    with TestClient(create_app(settings, inspect=FakeInspect(), ray=FakeRay()), headers=headers) as client:
        assert client.get(f"/models/{model['id']}").json() == model


def test_a_restart_keeps_idempotency_keys_and_api_keys(tmp_path: Path) -> None:
    settings, ray = make_settings(tmp_path / "data"), FakeRay()
    ray.down = True
    headers = {"Authorization": f"Bearer {TOKEN}"}
    files = {"model": b"model", "data": b"data"}
    spec = {"budget": {"ratio": 0.5}}
    made = []
    for seed in (0, 0, 1):
        with TestClient(create_app(settings, inspect=FakeInspect(), ray=ray), headers=headers) as client:
            if not made:
                key = client.post("/keys", json={"user": "alice"}).json()["key"]
            hers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "k"}
            made.append(client.post("/jobs", files=files, data={"job": json.dumps({**spec, "seed": seed})}, headers=hers))
    assert [answer.status_code for answer in made] == [202, 202, 422]
    assert made[0].json()["id"] == made[1].json()["id"]
    assert made[2].json()["title"] == "Idempotency-Key used before"


def test_the_api_imports_neither_torch_nor_ray() -> None:
    """They take seconds and gigabytes; the API is to answer at once."""
    code = "import sys, service.server; print(sorted({'torch', 'ray', 'sklearn', 'optuna'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_default_settings_stay_on_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.load()
    assert settings.host == "127.0.0.1"
    assert settings.database == f"sqlite:///{tmp_path / 'secateur-data' / 'secateur.db'}"
    settings.check_exposure()
