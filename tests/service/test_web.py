"""Signing in, and what a session may do: pages show whom what the API shows them, and change nothing without a proof."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from searchers.base import Outcome, Proposal
from service.context import Context
from service.database.tables import Trial, utc_now
from service.sessions import COOKIE
from tests.service.doubles import TOKEN
from tests.service.test_report import Page
from tests.service.test_warm_start import log_of, plan_of
from workers.log import Worker

SignIn = Callable[[str], TestClient]


@pytest.fixture
def kind() -> str:
    """What the pages ask of the database is asked of every kind of it by the API's own tests."""
    return "sqlite"


@pytest.fixture
def sign_in(api: TestClient) -> SignIn:
    """A browser of its own that signed in with that key."""

    def signed_in(key: str) -> TestClient:
        browser = TestClient(api.app, headers={"Authorization": ""}, follow_redirects=False)
        del browser.headers["authorization"]
        response = login(browser, key)
        assert response.status_code == 303
        assert response.headers["location"] == "/ui/jobs"
        return browser

    return signed_in


@pytest.fixture
def nobody(api: TestClient) -> TestClient:
    return TestClient(api.app, follow_redirects=False)


def login(browser: TestClient, key: str, **changes: str) -> Any:
    csrf = token_in(browser.get("/ui/login").text, "input")
    return browser.post("/ui/login", data={"key": key, "csrf": csrf, "next": "/ui/jobs", **changes})


def token_in(page: str, kind: str = "meta") -> str:
    found = re.search(rf'name="csrf" {"value" if kind == "input" else "content"}="([0-9a-f]+)"', page)
    assert found is not None
    return found[1]


def key_of(api: TestClient, user: str, scope: str = "submit") -> dict[str, Any]:
    made: dict[str, Any] = api.post("/keys", json={"user": user, "scope": scope}).json()
    return made


def test_the_way_in_and_out(sign_in: SignIn, nobody: TestClient) -> None:
    assert nobody.get("/").headers["location"] == "/ui/jobs"
    assert nobody.get("/ui/jobs").headers["location"] == "/ui/login?next=/ui/jobs"
    browser = sign_in(TOKEN)
    page = browser.get("/ui/jobs")
    assert page.status_code == 200
    assert TOKEN not in page.text + str(browser.cookies), "the key itself stays where it was typed"
    assert browser.post("/ui/logout", data={"csrf": token_in(page.text)}).headers["location"] == "/ui/login"
    assert browser.get("/ui/jobs").status_code == 303


def test_the_cookie_is_out_of_reach_of_scripts_and_of_other_sites(nobody: TestClient) -> None:
    cookie = login(nobody, TOKEN).headers["set-cookie"]
    assert cookie.startswith(COOKIE)
    for attribute in ("HttpOnly", "SameSite=strict", "Path=/"):
        assert attribute in cookie


def test_a_wrong_key_is_told_so_and_a_forged_cookie_is_nobodys(nobody: TestClient, sign_in: SignIn) -> None:
    refused = login(nobody, "key-1.wrong")
    assert refused.status_code == 401
    assert "none of this server" in refused.text
    cookie = sign_in(TOKEN).cookies[COOKIE]
    end = str(int(cookie.split(".")[1]) + 1)
    for forged in (cookie[:-1] + ("0" if cookie[-1] != "0" else "1"), cookie.replace(cookie.split(".")[1], end), "...", "é"):
        assert nobody.get("/jobs", headers={"cookie": f"{COOKIE}={forged}".encode()}).status_code == 401


def test_a_session_ends_by_itself(sign_in: SignIn, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    browser = sign_in(TOKEN)
    later = time.time() + 13 * 3600
    monkeypatch.setattr("service.sessions.time.time", lambda: later)
    assert browser.get("/jobs").status_code == 401


def test_next_leads_to_no_other_site(nobody: TestClient) -> None:
    for elsewhere in ("https://example.org", "//example.org", "/ui/\\example.org", "/ui/../x?y"):
        assert login(nobody, TOKEN, next=elsewhere).headers["location"] == "/ui/jobs"


def test_nothing_is_changed_without_the_proof_of_a_page(sign_in: SignIn, api: TestClient, job_json: dict[str, Any]) -> None:
    job = api.post("/jobs", json=job_json).json()["id"]
    browser = sign_in(TOKEN)
    token = token_in(browser.get("/ui/jobs").text)
    assert browser.post(f"/jobs/{job}/cancel").status_code == 403
    assert browser.delete(f"/jobs/{job}", headers={"X-CSRF-Token": "0" * 64}).status_code == 403
    assert (
        browser.post(f"/ui/jobs/{job}/cancel", data={"csrf": token_in(sign_in(TOKEN).get("/ui/jobs").text)}).status_code == 403
    )
    assert api.get(f"/jobs/{job}").json()["state"] == "queued"
    assert browser.post(f"/ui/jobs/{job}/cancel", data={"csrf": token}).headers["location"] == f"/ui/jobs/{job}"
    assert api.get(f"/jobs/{job}").json()["state"] == "cancelled"
    assert browser.delete(f"/jobs/{job}", headers={"X-CSRF-Token": token}).status_code == 204
    assert login(TestClient(api.app), TOKEN, csrf="0" * 64).status_code == 403, "nor may others sign one in"


def test_others_jobs_are_not_there_and_a_reader_only_looks(sign_in: SignIn, api: TestClient, job_json: dict[str, Any]) -> None:
    job = api.post("/jobs", json={**job_json, "name": "the administrator's"}).json()["id"]
    alice = sign_in(key_of(api, "alice")["key"])
    assert "the administrator" not in alice.get("/ui/jobs").text
    assert "the administrator" not in alice.get("/ui/cluster").text
    both = f"job={job}&job=job-1"
    own = [f"/ui/jobs/{job}{part}" for part in ("", "/points", "/plans", "/trials/0", "/delete")]
    for path in (*own, f"/ui/compare?{both}", f"/ui/compare/points?{both}", "/ui/x"):
        missing = alice.get(path)
        assert (missing.status_code, missing.headers["content-type"]) == (404, "text/html; charset=utf-8")
    own = {"Authorization": f"Bearer {key_of(api, 'alice')['key']}"}
    for upload, kind in ((b"model", "model"), (b"data", "dataset")):
        job_json[kind] = api.post(f"/{kind}s", content=upload, headers=own).json()["id"]
    job = api.post("/jobs", json=job_json, headers=own).json()["id"]
    assert 'id="do-cancel"' in alice.get(f"/ui/jobs/{job}").text
    reader = sign_in(key_of(api, "alice", "read")["key"])
    page = reader.get(f"/ui/jobs/{job}")
    assert page.status_code == 200
    assert 'id="do-cancel"' not in page.text
    refused = reader.post(f"/ui/jobs/{job}/cancel", data={"csrf": token_in(page.text)})
    assert refused.status_code == 403
    assert "scope submit" in refused.text


def test_a_worker_is_as_busy_as_its_trials_of_the_last_ten_minutes(
    sign_in: SignIn, api: TestClient, context: Context, job_json: dict[str, Any]
) -> None:
    job = api.post("/jobs", json=job_json).json()["id"]
    log = log_of(api, job)
    log.running(9)
    for number, (began, ended, seconds) in enumerate(((900, 700, 190.0), (200, 140, 50.0), (100, 70, 30.0))):
        log.asked(Proposal(number, (16, 8), "cut"), plan_of((16, 8)))
        log.started(number)
        log.told(number, Outcome(-0.1, 0.9), seconds, Worker("node-7", 70))
        with context.database.write() as session:
            trial = session.get_one(Trial, (job, number))
            trial.started_at, trial.finished_at = (utc_now() - timedelta(seconds=before) for before in (began, ended))
    shown = " ".join(" ".join(Page(sign_in(TOKEN).get("/ui/cluster").text).shown).split())
    ((share, trials),) = re.findall(r"node-7 70 (?:[\d.]+ % )?([\d.]+) % (\d+)", shown)
    assert float(share) == pytest.approx(100 * (50 + 30) / 200, abs=2), "of the 200 s since the first of these began"
    assert trials == "2", "one ended before that"


def test_a_revoked_key_ends_its_sessions(sign_in: SignIn, api: TestClient) -> None:
    key = key_of(api, "alice")
    browser = sign_in(key["key"])
    assert browser.get("/jobs").status_code == 200
    api.delete(f"/keys/{key['id']}")
    assert browser.get("/jobs").status_code == 401
    assert browser.get("/ui/jobs").status_code == 303


def test_every_page_runs_nothing_but_our_own_files(sign_in: SignIn, api: TestClient, job_json: dict[str, Any]) -> None:
    hostile = '<script>alert("1")</script>"\'><img src=x onerror=alert(1)>'
    job = api.post("/jobs", json={**job_json, "name": hostile}).json()["id"]
    browser = sign_in(TOKEN)
    for path in ("/ui/login", "/ui/jobs", f"/ui/jobs/{job}", f"/ui/jobs/{job}/cancel", "/ui/jobs/none"):
        page = browser.get(path)
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "unsafe" not in policy
        seen = Page(page.text)
        assert "style" not in seen.tags
        assert seen.handlers == []
        assert all(link.startswith(("/", "#", "http://ray.test")) for link in seen.linked), seen.linked
        assert seen.tags.count("script") == sum(link.startswith("/ui/static/") and link.endswith(".js") for link in seen.linked)
    assert hostile in "".join(Page(browser.get("/ui/jobs").text).shown)


def test_signing_in_is_on_record(sign_in: SignIn, context: Context, api: TestClient) -> None:
    sign_in(TOKEN)
    assert ("POST", "/ui/login", 303) in [(e["method"], e["path"], e["status"]) for e in api.get("/audit").json()["items"]]


def test_figures_of_plots_are_packed_and_pages_which_hold_a_secret_are_not(
    sign_in: SignIn, api: TestClient, job_json: dict[str, Any]
) -> None:
    job = api.post("/jobs", json=job_json).json()["id"]
    log = log_of(api, job)
    log.running(30)
    for number in range(30):
        log.asked(Proposal(number, (8, 8), "why"), plan_of((8, 8)))
        log.told(number, Outcome(-0.1 * number, 0.9 - 0.01 * number), 0.5, None)
    browser = sign_in(TOKEN)
    packed = browser.get(f"/ui/jobs/{job}/points")
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["vary"] == "Accept-Encoding"
    plain = browser.get(f"/ui/jobs/{job}/points", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert packed.json() == plain.json()
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"])
    for path in (f"/ui/jobs/{job}", "/ui/new", f"/jobs/{job}/trials"):
        assert "content-encoding" not in browser.get(path).headers
