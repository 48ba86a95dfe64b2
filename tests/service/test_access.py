"""Keys, users and what they may: each route for each kind of caller, from the OpenAPI document."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import select
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from service.cli import app
from service.client import Client
from service.context import Context
from service.database.tables import ApiKey, Checkpoint
from service.limits import RateLimits
from service.problems import TooManyRequests
from service.scopes import Scope


@dataclass(frozen=True)
class Person:
    """Calls with a key of their own."""

    api: TestClient
    key: str

    def __call__(self, method: str, path: str, **request: Any) -> Response:
        headers = {"Authorization": f"Bearer {self.key}", **request.pop("headers", {})}
        return self.api.request(method, path, headers=headers, **request)


Introduce = Callable[..., Person]


@pytest.fixture
def introduce(api: TestClient) -> Introduce:
    """Somebody new, or a new key of somebody."""

    def make(user: str, scope: str = "submit") -> Person:
        made = api.post("/keys", json={"user": user, "scope": scope})
        assert made.status_code == 201, made.text
        return Person(api, made.json()["key"])

    return make


def submitted(person: Person, model: bytes = b"model", **spec: Any) -> dict[str, Any]:
    """A queued job of theirs."""
    ids = {"model": person("POST", "/models", content=model).json()["id"]}
    ids["dataset"] = person("POST", "/datasets", content=b"data").json()["id"]
    made = person("POST", "/jobs", json={**ids, "budget": {"ratio": 0.5}, **spec})
    assert made.status_code == 202, made.text
    job: dict[str, Any] = made.json()
    return job


SQLITE = pytest.mark.parametrize("kind", ["sqlite"])


@SQLITE
def test_every_route_for_every_kind_of_caller(api: TestClient, introduce: Introduce) -> None:
    alice = introduce("alice")
    job = submitted(alice)
    key_id = alice.key.partition(".")[0]
    filled = {
        "job_id": job["id"],
        "model_id": job["model"],
        "dataset_id": job["dataset"],
        "number": "0",
        "key_id": introduce("carol").key.partition(".")[0],
        "name": "alice",
        "upload_id": begun_upload(alice),
    }
    callers = {
        "nobody": Person(api, ""),
        "reader": introduce("alice", "read"),
        "other": introduce("bob"),
        "submitter": alice,
        "admin": introduce("root", "admin"),
    }
    paths = api.get("/openapi.json").json()["paths"]
    operations = [(method, path, found) for path, methods in paths.items() for method, found in methods.items()]
    operations.sort(key=lambda operation: operation[0] == "delete")  # at the end, when everything else has been asked for
    seen = 0
    for method, path, operation in operations:
        names = re.findall(r"{(\w+)}", path)
        assert set(names) <= set(filled), f"say in this test what {path} is about"
        scope = operation.get("x-scope")
        for caller, person in callers.items():
            if (method, names) == ("delete", ["job_id"]):  # whoever came before may have deleted it
                filled["job_id"] = submitted(alice)["id"]
                alice("POST", f"/jobs/{filled['job_id']}/cancel")
            for kind in ("model", "dataset"):
                if (method, names) == ("delete", [f"{kind}_id"]):
                    filled[names[0]] = alice("POST", f"/{kind}s", content=caller.encode()).json()["id"]
            if (method, names) == ("delete", ["upload_id"]):
                filled["upload_id"] = begun_upload(alice)
            actual = path.format(**filled)
            answer = person(method.upper(), actual, follow_redirects=False, headers={"Upload-Offset": "0"})
            where = (caller, method, path, answer.status_code, answer.text[:200])
            seen += 1
            if scope is None:
                assert answer.status_code in (200, 503), where  # Ray is away here
            elif caller == "nobody":
                assert answer.status_code == 401, where
            elif not Scope({"reader": "read", "admin": "admin"}.get(caller, "submit")).includes(Scope(scope)):
                assert answer.status_code == 403, where
            elif (caller == "other" and names) or is_not_there(caller, names):
                assert answer.status_code == 404, where
            else:
                assert answer.status_code not in (401, 403, 404), where
            if caller == "other":
                assert not any(id_ in answer.text for id_ in (job["id"], key_id) if id_ not in actual), where
    assert seen >= 5 * 30


def begun_upload(person: Person) -> str:
    announced = {"kind": "model", "size": 9, "sha256": hashlib.sha256(b"a network").hexdigest()}
    return str(person("POST", "/uploads", json=announced).json()["id"])


def is_not_there(caller: str, names: list[str]) -> bool:
    """The job has no trial yet; and half a file is its sender's alone, not the administrator's."""
    return "number" in names or (caller == "admin" and "upload_id" in names)


def test_users_see_what_is_theirs_and_the_administrator_everything(api: TestClient, introduce: Introduce) -> None:
    alice, bob = introduce("alice"), introduce("bob")
    hers, his = submitted(alice), submitted(bob)
    assert (hers["owner"], his["owner"]) == ("alice", "bob")
    assert hers["model"] != his["model"], "equal bytes of two users are two models"
    for person, own in ((alice, [hers]), (bob, [his]), (Person(api, api.headers["Authorization"][7:]), [his, hers])):
        assert [job["id"] for job in person("GET", "/jobs").json()["items"]] == [job["id"] for job in own]
        assert {model["id"] for model in person("GET", "/models").json()["items"]} == {job["model"] for job in own}
        assert {data["id"] for data in person("GET", "/datasets").json()["items"]} == {job["dataset"] for job in own}
    stolen = bob("POST", "/jobs", json={"model": hers["model"], "dataset": his["dataset"], "budget": {"ratio": 0.5}})
    assert (stolen.status_code, stolen.json()["detail"][:18]) == (404, "There is no model ")
    warm = {"name": "random", "params": {"warm_start": hers["id"]}}
    ids = {name: his[name] for name in ("model", "dataset")}
    peeked = bob("POST", "/jobs", json={**ids, "budget": {"ratio": 0.5}, "searcher": warm})
    assert (peeked.status_code, peeked.json()["field"]) == (422, "searcher.params.warm_start")
    assert "is no job" in peeked.json()["detail"]
    for call in ("cancel", "pause", "resume", "stop"):
        assert bob("POST", f"/jobs/{hers['id']}/{call}").status_code == 404
    assert api.post(f"/jobs/{hers['id']}/cancel").json()["state"] == "cancelled"
    assert bob("DELETE", f"/jobs/{hers['id']}").status_code == 404
    assert alice("DELETE", f"/jobs/{hers['id']}").status_code == 204


@SQLITE
def test_the_same_idempotency_key_of_two_users_is_two_keys(introduce: Introduce) -> None:
    jobs = []
    for person in (introduce("alice"), introduce("bob")):
        first = submitted(person)
        ids = {name: first[name] for name in ("model", "dataset")}
        spec = {**ids, "budget": {"ratio": 0.5}}
        made = [person("POST", "/jobs", json=spec, headers={"Idempotency-Key": "k"}).json()["id"] for _ in range(2)]
        assert made[0] == made[1] != first["id"]
        jobs.append(made[0])
    assert jobs[0] != jobs[1]


def test_a_key_is_shown_once_kept_as_a_hash_and_ends_at_once(api: TestClient, introduce: Introduce, context: Context) -> None:
    alice = introduce("alice")
    key_id, _, secret = alice.key.partition(".")
    assert len(secret) >= 43, "256 bits"
    with context.database.read() as session:
        row = session.scalars(select(ApiKey)).one()
    assert row.sha256 == hashlib.sha256(alice.key.encode()).hexdigest()
    assert secret not in api.get("/keys").text + api.get(f"/keys/{key_id}").text
    assert api.get(f"/keys/{key_id}").json()["last_used_at"] is None
    assert alice("GET", "/me").json()["name"] == "alice"
    assert api.get(f"/keys/{key_id}").json()["last_used_at"] is not None
    forged = [f"{key_id}.{'A' * 43}", f"{key_id}.", key_id, f"key-none.{secret}", f"{alice.key}x", f"\0.{secret}"]
    for key in forged:
        assert api.get("/me", headers={b"Authorization": b"Bearer " + key.encode()}).status_code in (400, 401), key
    first, again = api.delete(f"/keys/{key_id}"), api.delete(f"/keys/{key_id}")
    assert first.json() == again.json()
    assert first.json()["revoked_at"] is not None
    assert alice("GET", "/me").status_code == 401
    assert introduce("alice")("GET", "/me").status_code == 200


@SQLITE
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"user": "../x"}, "user"),
        ({"user": "A b"}, "user"),
        ({"user": "a" * 41}, "user"),
        ({"scope": "root"}, "scope"),
        ({"name": "a\nb"}, "name"),
        ({"quota": 1}, "quota"),
    ],
)
def test_a_key_that_cannot_be_is_refused_by_field(api: TestClient, change: dict[str, Any], field: str) -> None:
    refused = api.post("/keys", json={"user": "alice", **change})
    assert (refused.status_code, refused.json()["field"]) == (422, field)
    assert api.get("/keys").json()["items"] == []
    for nothing in (b"{", b"\xff", b""):
        refused = api.post("/keys", content=nothing, headers={"Content-Type": "application/json"})
        assert (refused.status_code, refused.json()["field"]) == (422, "body")


def test_quotas_hold_under_concurrency_and_are_named(api: TestClient, introduce: Introduce) -> None:
    alice = introduce("alice")
    job = submitted(alice)
    spec = {"model": job["model"], "dataset": job["dataset"], "budget": {"ratio": 0.5}, "limits": {"max_trials": 40}}
    assert api.patch("/users/alice", json={"max_jobs": 4}).json()["max_jobs"] == 4
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: alice("POST", "/jobs", json=spec), range(6)))
    assert sorted(answer.status_code for answer in answers) == [202] * 3 + [403] * 3
    full = next(answer for answer in answers if answer.status_code == 403).json()
    assert full["title"] == "Quota used up"
    assert full["detail"] == "You have 4 jobs that have not ended, of 4 allowed; wait for one or cancel it."
    alice("POST", f"/jobs/{job['id']}/cancel")
    planned = alice("GET", "/me").json()["usage"]["trials"]
    api.patch("/users/alice", json={"max_trials": planned + 10})
    many = alice("POST", "/jobs", json=spec)
    assert (many.status_code, "lower limits.max_trials" in many.json()["detail"]) == (403, True)
    api.patch("/users/alice", json={"max_trials": None})
    assert alice("POST", "/jobs", json=spec).status_code == 202
    used = alice("GET", "/me").json()["usage"]
    assert (used["jobs"], used["bytes"]) == (4, len(b"model" + b"data" + b"arrays of data"))
    api.patch("/users/alice", json={"max_bytes": used["bytes"] + 3})
    refused = alice("POST", "/models", content=b"four")
    assert (refused.status_code, "take 23 of 26 allowed" in refused.json()["detail"]) == (403, True)
    announced = {"kind": "model", "size": 4, "sha256": hashlib.sha256(b"four").hexdigest()}
    assert alice("POST", "/uploads", json=announced).json()["detail"] == refused.json()["detail"]
    assert alice("POST", "/models", content=b"one").status_code == 201
    assert alice("POST", "/models", content=b"model").status_code == 200, "what is there already takes no more"
    assert api.post("/models", content=b"of the administrator").status_code == 201
    needed = alice("DELETE", f"/models/{job['model']}")
    assert (needed.status_code, "is needed by 5 jobs; delete those first." in needed.json()["detail"]) == (409, True)
    (one,) = (model for model in alice("GET", "/models").json()["items"] if model["id"] != job["model"])
    assert [alice("DELETE", f"/models/{one['id']}").status_code for _ in range(2)] == [204, 404]
    assert alice("POST", "/models", content=b"two").status_code == 201, "there is room again"


def test_what_jobs_leave_counts_too(api: TestClient, context: Context, introduce: Introduce) -> None:
    alice = introduce("alice")
    job = submitted(alice)
    before = alice("GET", "/me").json()["usage"]["bytes"]
    with context.database.write() as session:
        session.add(Checkpoint(job_id=job["id"], trial=0, format="pt2", sha256="a" * 64, size=1000))
    used = alice("GET", "/me").json()["usage"]["bytes"]
    assert used == before + 1000
    api.patch("/users/alice", json={"max_bytes": used})
    spec = {"model": job["model"], "dataset": job["dataset"], "budget": {"ratio": 0.5}}
    refused = alice("POST", "/jobs", json=spec)
    assert (refused.status_code, refused.json()["title"]) == (403, "Quota used up")
    assert refused.json()["detail"].startswith(
        f"A job leaves files, and your models, data sets and checkpoints take {used:,} of"
    )
    api.patch("/users/alice", json={"max_bytes": used + 1})
    assert alice("POST", "/jobs", json=spec).status_code == 202


@SQLITE
def test_a_repetition_is_answered_though_the_quota_is_used_up(api: TestClient, introduce: Introduce) -> None:
    alice = introduce("alice")
    job = submitted(alice)
    api.patch("/users/alice", json={"max_jobs": 2})
    spec = {"model": job["model"], "dataset": job["dataset"], "budget": {"ratio": 0.5}}
    first, again = (alice("POST", "/jobs", json=spec, headers={"Idempotency-Key": "k"}) for _ in range(2))
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["id"] == again.json()["id"]


@SQLITE
def test_what_was_done_is_on_record(api: TestClient, introduce: Introduce) -> None:
    alice, reader = introduce("alice"), introduce("bob", "read")
    job = submitted(alice)
    reader("POST", f"/jobs/{job['id']}/cancel")
    done = alice("POST", f"/jobs/{job['id']}/cancel", headers={"X-Request-ID": "mine-1"})
    assert done.headers["x-request-id"] == "mine-1"
    entries = api.get("/audit").json()["items"]
    assert [(e["user"], e["method"], e["path"], e["status"], e["made"]) for e in entries[2:]] == [
        ("alice", "POST", "/models", 201, None),
        ("alice", "POST", "/datasets", 201, None),
        ("alice", "POST", "/jobs", 202, f"/jobs/{job['id']}"),
        ("bob", "POST", f"/jobs/{job['id']}/cancel", 403, None),
        ("alice", "POST", f"/jobs/{job['id']}/cancel", 202, None),
    ]
    assert entries[0]["user"] == "admin"
    assert entries[-1]["request_id"] == "mine-1"
    assert entries[-1]["key_id"] == alice.key.partition(".")[0]
    assert api.get("/audit", params={"limit": 2}).json()["next"] == str(entries[1]["id"])


@SQLITE
def test_who_calls_too_fast_is_told_when_to_come_again(api: TestClient, introduce: Introduce) -> None:
    alice, bob = introduce("alice"), introduce("bob")
    moment = 0.0
    limits = api.app.state.limits = RateLimits(0.2, clock=lambda: moment)  # type: ignore[attr-defined]
    assert [alice("GET", "/me").status_code for _ in range(3)] == [200, 200, 429]
    slow = alice("GET", "/me")
    assert (slow.status_code, slow.headers["retry-after"]) == (429, "5")
    assert bob("GET", "/me").status_code == 200
    assert api.get("/me").status_code == 200, "the administrator is not held back"
    moment = 5.0
    assert alice("GET", "/me").status_code == 200
    for _ in range(500):
        limits.check_refused("testclient")
    guess = Person(api, "key-1.guess")("GET", "/me")
    assert (guess.status_code, guess.headers["retry-after"]) == (429, "1")
    assert bob("GET", "/me").status_code == 200


def test_buckets_that_are_full_again_take_no_memory() -> None:
    moment = 0.0
    limits = RateLimits(1.0, clock=lambda: moment)
    for number in range(10_000):
        limits.check_user(f"user-{number}")
    moment = 100.0
    limits.check_user("one-more")
    assert len(limits._users._levels) == 1
    for _ in range(9):
        limits.check_user("one-more")
    with pytest.raises(TooManyRequests, match="the next one is answered in 1 s"):
        limits.check_user("one-more")


@SQLITE
def test_the_command_line_manages_keys_and_quotas(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    token = api.headers["Authorization"][7:]
    monkeypatch.setattr("service.client.Client", lambda: Client("http://testserver", token, transport=api._transport))

    def secateur(*arguments: str) -> Result:
        with capture_logs():  # of the service, which is in this process too
            return CliRunner().invoke(app, arguments, env={"COLUMNS": "100"})

    made = secateur("keys", "create", "--user", "alice", "--scope", "read")
    assert (made.exit_code, "shown this once" in made.stderr) == (0, True)
    alice = Person(api, made.stdout.strip())
    assert alice("GET", "/me").json()["scope"] == "read"
    listed = json.loads(secateur("keys", "list", "--json").stdout)
    assert [(key["user"], key["last_used_at"] is None) for key in listed] == [("alice", False)]
    assert "alice" in secateur("keys", "list").stdout
    quotas = json.loads(secateur("users", "set", "alice", "--max-jobs", "3", "--max-bytes", "none", "--json").stdout)
    assert (quotas["max_jobs"], quotas["max_trials"], quotas["max_bytes"]) == (3, 10_000, None)
    assert "0 of 3" in secateur("users", "list").stdout
    wrong = secateur("users", "set", "alice", "--max-jobs", "-1")
    assert (wrong.exit_code, wrong.stderr) == (1, "secateur: --max-jobs '-1' is no limit; give a whole number, or none.\n")
    assert secateur("keys", "revoke", listed[0]["id"]).stdout == f"{listed[0]['id']} of alice is revoked\n"
    assert alice("GET", "/me").status_code == 401
    assert "revoked" in secateur("keys", "list").stdout
    done = secateur("audit").stdout
    assert "DELETE" in done
    assert "PATCH" in done
    assert len(json.loads(secateur("audit", "--after", "1", "--json").stdout)) == 2
    assert secateur("keys", "revoke", "key-none").exit_code == 1
    assert secateur("models").stdout == "Nothing was uploaded yet.\n"
    uploaded = [api.post(f"/{kind}", content=b"bytes", params={"name": "mine"}).json()["id"] for kind in ("models", "datasets")]
    for kind, upload in zip(("models", "datasets"), uploaded, strict=True):
        assert "mine" in secateur(kind).stdout
        assert secateur("delete", upload).stdout == f"{upload} is deleted\n"
        assert json.loads(secateur(kind, "--json").stdout) == []
