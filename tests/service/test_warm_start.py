"""Jobs that start from the trials of an earlier one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from searchers.base import Done, Given, Outcome, Proposal
from service.context import Context
from service.database import Database
from service.database.tables import Job, Trial
from service.jobs.log import DatabaseLog
from service.jobs.repository import JobRepository
from service.jobs.states import State, locked, move
from tests.service.doubles import cost_model, model_inspection
from workers.log import Plan
from workers.plan import make_searcher, make_space
from workers.search import RecordedSearch
from workers.spec import SCORING, JobSpec

TRIED = [((16, 16), 0.0), ((8, 8), -0.3), ((4, 12), None), ((12, 4), -0.2)]


def database_of(api: TestClient) -> Database:
    context: Context = api.app.state.context  # type: ignore[attr-defined]
    return context.database


def plan_of(widths: tuple[int, ...]) -> Plan:
    cost = cost_model()
    macs, params, size = (cost(metric, widths) for metric in ("macs", "params", "size_bytes"))
    return Plan({"conv1": widths[0]}, {"conv1": 1 - widths[0] / 16}, macs, params, size)


def log_of(api: TestClient, job_id: str) -> DatabaseLog:
    """Of a fresh attempt."""
    context: Context = api.app.state.context  # type: ignore[attr-defined]
    job = JobRepository(context.database).start(job_id, "fake", most=9)
    assert job is not None
    return DatabaseLog(context.database, context.store, job_id, job.attempt)


@pytest.fixture
def earlier(api: TestClient, job_json: dict[str, Any]) -> str:
    """The id of a job that tried four plans, one of which failed, and is running."""
    job: str = api.post("/jobs", json=job_json).json()["id"]
    log = log_of(api, job)
    log.running(20)
    for number, (widths, score) in enumerate(TRIED):
        log.asked(Proposal(number, widths, f"round {number}"), plan_of(widths))
        log.told(number, Outcome(score, score and 1 + score, None if score is not None else "It died."), 0.1, None)
    return job


def warm(job_json: dict[str, Any], earlier: str, **changes: Any) -> dict[str, Any]:
    searcher = {"name": "netadapt", **changes.pop("searcher", {})}
    params = {**searcher.get("params", {}), "warm_start": earlier}
    return {**job_json, **changes, "searcher": {**searcher, "params": params}}


def test_the_earlier_jobs_successes_are_the_new_jobs_own(api: TestClient, job_json: dict[str, Any], earlier: str) -> None:
    plan = api.post("/jobs", params={"dry_run": True}, json=warm(job_json, earlier)).json()
    assert plan["given_trials"] == 3
    job = api.post("/jobs", json=warm(job_json, earlier)).json()
    assert job["spec"]["searcher"]["params"] == {"warm_start": earlier}
    progress = job["progress"]
    assert (progress["planned"], progress["finished"]) == (3 + plan["planned_trials"], 3)
    assert (progress["best_trial"], progress["best_score"]) == (2, -0.2)
    trials = api.get(f"/jobs/{job['id']}/trials").json()["items"]
    assert [trial["note"] for trial in trials] == [f"{earlier}, trial {n}: round {n}" for n in (0, 1, 3)]
    assert [trial["outcome"]["score"] for trial in trials] == [0.0, -0.3, -0.2]
    assert trials[1]["proposal"] == api.get(f"/jobs/{earlier}/trials/1").json()["proposal"]


def run(api: TestClient, job_id: str, stop_after: int = 1000) -> tuple[RecordedSearch, JobSpec]:
    """An attempt at a job, with a score by the widths."""
    log = log_of(api, job_id)
    spec = JobSpec.model_validate(JobRepository(database_of(api)).get(job_id).spec)
    searcher = make_searcher(make_space(model_inspection()["groups"], cost_model(), spec), spec)
    search = RecordedSearch(searcher, log, lambda proposal: plan_of(proposal.widths), spec.limits)
    log.running(search.planned_trials)
    for _ in range(stop_after):
        proposal = search.ask()
        if not isinstance(proposal, Proposal):
            assert isinstance(proposal, Done)
            break
        score = -float(sum(abs(a - b) for a, b in zip(proposal.widths, (16, 4), strict=True)))
        result = {"score": score, "metric": 0.5, "error": None, "evaluate_seconds": 0.1, "node": "n", "process": 1}
        search.tell(proposal.id, result)
    return search, spec


@pytest.mark.parametrize("name", ["netadapt", "uniform", "fixed", "random", "optuna"])
def test_a_second_attempt_is_given_the_same_whatever_becomes_of_the_earlier_job(
    api: TestClient, job_json: dict[str, Any], earlier: str, name: str
) -> None:
    body = warm(job_json, earlier, searcher={"name": name}, limits={"max_trials": 12})
    jobs = [api.post("/jobs", json=body).json()["id"] for _ in range(2)]
    whole, _ = run(api, jobs[0])
    run(api, jobs[1], stop_after=3)
    with database_of(api).write() as session:
        move(session, locked(session, jobs[1]), State.FAILED)
        session.execute(update(Job).where(Job.id == jobs[1]).values(state=State.QUEUED))
        session.execute(update(Trial).where(Trial.job_id == earlier).values(widths=[1, 1], score=7.0))
    resumed, spec = run(api, jobs[1])
    assert [proposal.widths for proposal in resumed.proposals.values()] == [p.widths for p in whole.proposals.values()]
    assert len(whole.proposals) <= 3 + spec.limits.max_trials
    assert len({proposal.widths for proposal in whole.proposals.values()}) == len(whole.proposals)
    best = whole.ranked(lambda widths: cost_model()("macs", widths) <= cost_model()("macs", (16, 16)) // 2)[0]
    assert whole.outcomes[best.id].score is not None
    assert whole.outcomes[best.id].score >= -0.2  # that of the best given plan, which by its own measure is the best there is


def test_what_was_given_is_given_on(api: TestClient, job_json: dict[str, Any], earlier: str) -> None:
    second = api.post("/jobs", json=warm(job_json, earlier)).json()["id"]
    third = api.post("/jobs", json=warm(job_json, second, budget={"metric": "params", "ratio": 0.4})).json()["id"]
    notes = [trial["note"] for trial in api.get(f"/jobs/{third}/trials").json()["items"]]
    assert notes == [f"{earlier}, trial {n}: round {n}" for n in (0, 1, 3)]
    record = log_of(api, third).record()
    assert [type(entry) for entry in record] == [Given] * 3


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"seed": 1}, "held out other images, by its seed 0, so that its scores do not compare; name another job"),
        ({"pruner": {"name": "apoz"}}, "has another pruner, l1 with {}, so that"),
        ({"pruner": {"round_to": 2}}, "searched other widths (pruner.config_list or round_to), so that"),
        ({"pruner": {"config_list": [{"op_types": ["Conv2d"]}]}}, "searched other widths"),
        ({"recovery": {"batchnorm_images": 64}}, "has another recovery (final_epochs and finalists may differ), so that"),
        (
            {"resources": {"precision": "bfloat16"}},
            "was scored in another precision, float32, so that its scores do not compare",
        ),
        ({"model": b'{"macs": 3}'}, "pruned another model, model-"),
        ({"dataset": b'{"classes": 9}'}, "was scored on another data set, dataset-"),
    ],
)
def test_an_earlier_job_whose_scores_do_not_compare_is_refused(
    api: TestClient, job_json: dict[str, Any], earlier: str, changes: dict[str, Any], detail: str
) -> None:
    for kind in ("model", "dataset"):
        if kind in changes:
            changes = {**changes, kind: api.post(f"/{kind}s", content=changes[kind]).json()["id"]}
    refused = api.post("/jobs", json=warm(job_json, earlier, **changes))
    assert refused.status_code == 422, refused.text
    problem = refused.json()
    assert problem["field"] == "searcher.params.warm_start"
    assert f"searcher.params.warm_start '{earlier}' {detail}" in problem["detail"]
    assert problem["detail"].endswith(".")


def test_scores_of_another_version_are_not_compared(api: TestClient, job_json: dict[str, Any], earlier: str) -> None:
    with database_of(api).write() as session:
        session.get_one(Job, earlier).scoring = SCORING - 1
    refused = api.post("/jobs", json=warm(job_json, earlier))
    assert refused.status_code == 422
    assert "was scored by another version of Secateur, so that its scores do not compare" in refused.json()["detail"]
    fresh = api.post("/jobs", json=job_json).json()["id"]
    assert log_of(api, fresh).known() == {}
    with database_of(api).write() as session:
        session.get_one(Job, earlier).scoring = SCORING
    assert len(log_of(api, api.post("/jobs", json={**job_json, "name": "again"}).json()["id"]).known()) == 3


def test_what_may_differ(api: TestClient, job_json: dict[str, Any], earlier: str) -> None:
    changes = {
        "budget": {"metric": "size_bytes", "ratio": 0.3},
        "recovery": {"final_epochs": 3, "least_squares": True},
        "limits": {"max_trials": 7, "max_concurrent": 1},
        "searcher": {"name": "uniform"},
    }
    assert api.post("/jobs", json=warm(job_json, earlier, **changes)).status_code == 202


def test_a_job_that_is_none_or_found_nothing_is_refused(api: TestClient, job_json: dict[str, Any]) -> None:
    fresh = api.post("/jobs", json=job_json).json()["id"]
    for name, detail in [
        ("job-none", "searcher.params.warm_start 'job-none' is no job; GET /jobs lists those there are."),
        (fresh, f"searcher.params.warm_start '{fresh}' has no trial that succeeded, and is queued; name another job"),
        (5, "searcher.params.warm_start 5 should be a valid string."),
    ]:
        refused = api.post("/jobs", json=warm(job_json, name))
        assert refused.status_code == 422, refused.text
        assert refused.json()["detail"].startswith(detail)


def test_trials_that_another_version_counted_otherwise_are_refused(
    api: TestClient, job_json: dict[str, Any], earlier: str
) -> None:
    with database_of(api).write() as session:
        session.execute(update(Trial).where(Trial.job_id == earlier, Trial.number == 1).values(macs=1))
    refused = api.post("/jobs", json=warm(job_json, earlier))
    assert refused.status_code == 422
    assert "was searched by another version of Secateur; run it again" in refused.json()["detail"]


def test_every_searcher_documents_it(api: TestClient) -> None:
    for searcher in api.get("/searchers").json()["items"]:
        assert json.dumps(searcher["params"]).count("warm_start") == 1
