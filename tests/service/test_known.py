"""Outcomes of other jobs stand in for evaluations that would find the same, and for no others."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from searchers.base import Outcome, Proposal, Training
from tests.service.test_warm_start import log_of, plan_of

HALF, FAILED, CUT_AGAIN, TRAINED = (8, 8), (4, 12), (6, 6), (5, 5)


@pytest.fixture
def earlier(api: TestClient, job_json: dict[str, Any]) -> dict[str, Any]:
    """A job with a bare cut that succeeded, one that failed, one of a trained network and one that trained."""
    log = log_of(api, api.post("/jobs", json=job_json).json()["id"])
    log.running(4)
    log.asked(Proposal(0, HALF), plan_of(HALF))
    log.asked(Proposal(1, FAILED), plan_of(FAILED))
    log.told(0, Outcome(-0.1 / 3, 0.9), 0.5, None)
    log.told(1, Outcome(None, error="It died."), 0.5, None)
    log.asked(Proposal(2, CUT_AGAIN, parent=0), plan_of(CUT_AGAIN))
    log.asked(Proposal(3, TRAINED, training=Training("admm")), plan_of(TRAINED))
    log.told(2, Outcome(-0.2, 0.8), 0.5, None)
    log.told(3, Outcome(-0.2, 0.8), 0.5, None)
    return job_json


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"budget": {"metric": "params", "ratio": 0.4}},
        {"searcher": {"name": "auto"}},
        {"recovery": {"final_epochs": 3}},
        {"limits": {"max_concurrent": 1}},
    ],
    ids=str,
)
def test_bare_cuts_that_succeeded_are_known_whatever_the_search(
    api: TestClient, earlier: dict[str, Any], changes: dict[str, Any]
) -> None:
    log = log_of(api, api.post("/jobs", json={**earlier, **changes}).json()["id"])
    assert log.known() == {HALF: Outcome(-0.1 / 3, 0.9)}, "to the last bit"


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"pruner": {"name": "apoz"}},
        {"recovery": {"batchnorm_images": 128}},
        {"recovery": {"least_squares": False}},
        {"resources": {"cpus": 2}},
        {"resources": {"precision": "bfloat16"}},
        {"searcher": {"name": "fixed", "params": {"ranking": "global"}}},
    ],
    ids=str,
)
def test_what_is_evaluated_otherwise_is_not(api: TestClient, earlier: dict[str, Any], changes: dict[str, Any]) -> None:
    response = api.post("/jobs", json={**earlier, **changes})
    assert response.status_code == 202, response.text
    assert log_of(api, response.json()["id"]).known() == {}


def test_other_data_or_another_model_are_not(api: TestClient, earlier: dict[str, Any]) -> None:
    other = api.post("/datasets", content=b"other data").json()["id"]
    assert log_of(api, api.post("/jobs", json={**earlier, "dataset": other}).json()["id"]).known() == {}
    other = api.post("/models", content=b"another model").json()["id"]
    assert log_of(api, api.post("/jobs", json={**earlier, "model": other}).json()["id"]).known() == {}


def test_a_job_does_not_know_its_own_trials_before_it_replays_them(api: TestClient, job_json: dict[str, Any]) -> None:
    log = log_of(api, api.post("/jobs", json=job_json).json()["id"])
    log.running(1)
    log.asked(Proposal(0, HALF), plan_of(HALF))
    log.told(0, Outcome(-0.1), 0.5, None)
    assert log.known() == {}
