"""What Prometheus is told, and that it names nobody."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from service.context import Context
from service.jobs.states import State
from tests.service.test_control import come_to
from tests.service.test_control import job as job  # noqa: PLC0414 - a fixture


def figures(api: TestClient) -> dict[str | tuple[str, ...], float]:
    """Values by name, or by name and the labels' values."""
    answer = api.get("/metrics")
    assert answer.status_code == 200
    families = text_string_to_metric_families(answer.text)
    samples = [sample for family in families for sample in family.samples]
    return {(s.name, *s.labels.values()) if s.labels else s.name: s.value for s in samples}


def test_jobs_trials_and_workers_are_counted(api: TestClient, context: Context, job: str) -> None:
    waiting = figures(api)
    assert waiting["secateur_jobs", "queued"] == 1
    assert waiting["secateur_oldest_queued_seconds"] > 0
    assert (waiting["secateur_workers"], waiting["secateur_worker_busy_share"]) == (0, 0)
    come_to(context, job, State.RUNNING)
    running = figures(api)
    assert (running["secateur_jobs", "queued"], running["secateur_jobs", "running"]) == (0, 1)
    assert running["secateur_trials", "succeeded"] == running["secateur_evaluation_seconds_count"] == 1
    assert running["secateur_evaluation_seconds_sum"] == pytest.approx(0.1)
    assert (running["secateur_workers"], running["secateur_workers_busy"]) == (2, 0)


@pytest.mark.parametrize("kind", ["sqlite"])
def test_calls_are_counted_by_template_and_nobody_is_named(api: TestClient, job: str) -> None:
    for _ in range(3):
        api.get(f"/jobs/{job}")
    api.get("/jobs/job-none")
    api.get("/nothing/there")
    api.request("BREW", "/jobs")
    found = figures(api)
    assert found["secateur_http_requests_total", "GET", "/jobs/{job_id}", "200"] == 3
    assert found["secateur_http_requests_total", "GET", "/jobs/{job_id}", "404"] == 1
    assert found["secateur_http_requests_total", "GET", "none", "404"] == 1
    assert any(labels[1] == "other" for labels in found if isinstance(labels, tuple))
    assert found["secateur_http_request_seconds_count", "GET", "/jobs/{job_id}"] == 4
    text = api.get("/metrics").text
    assert job not in text
    assert "admin" not in text


@pytest.mark.parametrize("kind", ["sqlite"])
def test_from_elsewhere_a_key_is_needed(api: TestClient) -> None:
    key = api.post("/keys", json={"user": "prometheus", "scope": "read"}).json()["key"]
    assert api.get("/metrics", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    del api.headers["Authorization"]
    assert api.get("/metrics").status_code == 401
    here = TestClient(api.app, client=("127.0.0.1", 50000))
    assert here.get("/metrics").status_code == 200


@pytest.mark.parametrize("kind", ["sqlite"])
def test_grafana_shows_metrics_that_there_are(api: TestClient, kind: str) -> None:
    board = json.loads((Path(__file__).parents[2] / "deploy" / "monitoring" / "grafana.json").read_text())
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    asked = " ".join(target["expr"] for panel in panels for target in panel["targets"])
    there = set(re.findall(r"^# TYPE (\w+)", api.get("/metrics").text, re.MULTILINE))
    ours = {re.sub("_(bucket|count|sum)$", "", name) for name in re.findall(r"\b(?:secateur|process)_\w+", asked)}
    assert ours - there == set()
    assert {name for name in there if name.startswith("secateur_") and not name.endswith("_created")} - ours == set()
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in panels:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
