"""Creating jobs: what is accepted, what is refused and how that is said."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from pruners.cost import ENGINE
from service.app import create_app
from service.context import Context
from service.database.tables import Dataset, Model
from tests.service.doubles import TOKEN, FakeInspect, FakeRay, group, make_settings, model_inspection


def changed(job: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of the job with one field set."""
    copy: dict[str, Any] = json.loads(json.dumps(job))
    *parents, last = path.split(".")
    place = copy
    for parent in parents:
        place = place.setdefault(parent, {})
    place[last] = value
    return copy


def test_a_job_is_queued_and_shown(api: TestClient, job_json: dict[str, Any]) -> None:
    made = api.post("/jobs", json={**job_json, "name": "half"})
    assert made.status_code == 202
    job = made.json()
    assert made.headers["location"] == f"/jobs/{job['id']}" == job["links"]["self"]
    assert api.get(made.headers["location"]).json() == job
    assert api.get("/jobs").json() == {"items": [job], "next": None}
    assert (job["name"], job["state"], job["reason"]) == ("half", "queued", None)
    assert job["spec"]["budget"] == {"metric": "macs", "ratio": 0.5, "max": None}
    assert job["progress"]["planned"] > 0
    assert (job["best"], job["baseline"], job["pareto"]) == (None, None, [])
    events = api.get(f"/jobs/{job['id']}/events").json()["items"]
    assert [(event["type"], event["data"]["state"]) for event in events] == [("state", "queued")]


def test_a_budget_of_bytes_is_planned_in_bytes(api: TestClient, job_json: dict[str, Any]) -> None:
    dense = 4 * (9 * 16 + 9 * 256 + 160)
    budget = {"metric": "size_bytes", "max": dense // 3}
    plan = api.post("/jobs", params={"dry_run": True}, json={**job_json, "budget": budget}).json()
    assert (plan["metric"], plan["dense"], plan["limit"]) == ("size_bytes", dense, dense // 3)


@pytest.mark.parametrize("budget", [{"ratio": 0.5}, {"ratio": 1e-9}, {"max": 0.25}, {"max": 1e300}])
def test_a_budget_of_milliseconds_is_taken_before_anything_is_timed(
    api: TestClient, job_json: dict[str, Any], budget: dict[str, Any]
) -> None:
    asked = {**job_json, "budget": {"metric": "latency_ms", **budget}}
    plan = api.post("/jobs", params={"dry_run": True}, json=asked).json()
    assert (plan["metric"], plan["dense"], plan["limit"], plan["least"]) == ("latency_ms", None, None, None)
    assert plan["groups"] == api.post("/jobs", params={"dry_run": True}, json=job_json).json()["groups"]
    made = api.post("/jobs", json=asked)
    assert made.status_code == 202
    assert made.json()["spec"]["budget"] == {"metric": "latency_ms", "ratio": None, "max": None, **budget}


def test_a_model_inspected_by_older_rules_is_inspected_again(
    api: TestClient, job_json: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.uploads.ENGINE", ENGINE + 1)
    stale = api.post("/jobs", json=job_json)
    assert stale.status_code == 422
    assert stale.json()["detail"] == "model was inspected by another version of Secateur; upload the same file again."
    monkeypatch.setattr("tests.service.doubles.ENGINE", ENGINE + 1)
    again = api.post("/models", content=b"model")
    assert (again.status_code, again.json()["id"]) == (200, job_json["model"])
    assert api.post("/jobs", json=job_json).status_code == 202


def test_a_dry_run_plans_and_makes_nothing(api: TestClient, job_json: dict[str, Any]) -> None:
    planned = api.post("/jobs", params={"dry_run": True}, json=job_json)
    assert planned.status_code == 200
    plan = planned.json()
    dense = 576 * 16 + 576 * 256 + 160
    assert (plan["metric"], plan["dense"], plan["limit"], plan["least"]) == ("macs", dense, dense // 2, 576 * 2 + 10)
    assert 0 < plan["planned_trials"] <= 200
    assert [g["kept_because"] for g in plan["groups"]] == [None, None, "is an output of the network"]
    assert api.get("/jobs").json()["items"] == []


def test_a_form_uploads_and_queues_at_once(api: TestClient) -> None:
    files = {"model": ("m.pt2", b"model"), "data": ("../d.npz", b"data")}
    made = api.post("/jobs", files=files, data={"job": json.dumps({"budget": {"ratio": 0.5}})})
    assert made.status_code == 202, made.text
    assert made.json()["model"] == api.post("/models", content=b"model").json()["id"]
    assert made.json()["dataset"] == api.post("/datasets", content=b"data").json()["id"]


def test_a_form_takes_the_json_as_a_file_too(api: TestClient) -> None:
    files: dict[str, Any] = {"model": b"model", "data": b"data", "job": ("job.json", b'{"budget": {"max": 50000}}')}
    assert api.post("/jobs", files=files).status_code == 202


@pytest.mark.parametrize(
    ("files", "job", "field"),
    [
        ({"data": b"data"}, '{"budget": {"ratio": 0.5}}', "model"),
        ({"model": b"model"}, '{"budget": {"ratio": 0.5}}', "data"),
        ({"model": b"model", "data": b"data"}, "", "budget"),
        ({"model": b"model", "data": b"data"}, "{", "job"),
        ({"model": b"model", "data": b"data"}, '{"model": "m", "budget": {"ratio": 0.5}}', "job.model"),
        ({"model": b"model", "data": b"data", "more": b"x"}, '{"budget": {"ratio": 0.5}}', "more"),
        ({"model": b"bad", "data": b"data"}, '{"budget": {"ratio": 0.5}}', "model"),
    ],
)
def test_a_form_that_is_incomplete_names_the_part(api: TestClient, files: dict[str, bytes], job: str, field: str) -> None:
    refused = api.post("/jobs", files=files, data={"job": job} if job else {})
    assert refused.status_code == 422, refused.text
    assert refused.json()["field"] == field


@pytest.mark.parametrize(
    ("path", "value", "detail"),
    [
        ("budget.ratio", 1.5, "budget.ratio 1.5 should be less than 1."),
        ("budget.ratio", 0, "budget.ratio 0 should be greater than 0."),
        ("budget.ratio", "half", "budget.ratio 'half' should be a valid number, unable to parse"),
        ("budget.ratio", 0.001, "budget.ratio 0.001 is out of reach: the smallest reachable is 0.0"),
        (
            "budget.metric",
            "latency",
            "budget.metric 'latency' should be 'macs', 'params', 'size_bytes', 'latency_ms' or 'sparsity'.",
        ),
        ("budget", {"ratio": 0.5, "max": 5}, "give either ratio or max."),
        ("budget", {"max": 0.5}, "budget {'max': 0.5} is not usable: max counts macs; give a whole number."),
        ("budget", {"metric": "latency_ms", "max": -1}, "budget.max"),
        ("budget", {"max": 10**9}, "budget.max 1000000000 prunes nothing"),
        ("bugdet", {}, "bugdet {} is not a known field; budget is."),
        ("budget", [{"raito": 0.5}], "budget.0.raito 0.5 is not a known field; budget.ratio is."),
        ("max_trials", 9, "max_trials 9 is not a known field; limits.max_trials is."),
        ("resources.gpu", 1, "resources.gpu 1 is not a known field; resources.gpus is."),
        ("metric", "macs", "metric 'macs' is not a known field; task.metric and budget.metric are."),
        ("patiance", 1, "patiance 1 is not a known field; recovery.recipe.patience is."),
        ("limits.max_trials", 0, "limits.max_trials 0 should be greater than or equal to 1."),
        ("limits.max_trials", 1, "limits.max_trials 1 "),
        ("seed", -1, "seed -1 should be greater than or equal to 0."),
        ("searcher.name", "magic", "searcher.name 'magic' is unknown; use one of "),
        ("searcher.params", {"heat": 3}, "searcher.params.heat 3 is not a known field"),
        ("searcher.params", {"decay": 3}, "searcher.params.decay 3 should be less than or equal to 1."),
        ("pruner.name", "l7", "pruner.name 'l7' is unknown; use one of agp, apoz, l1, level, slim."),
        ("pruner.name", "agp", "searcher.name 'netadapt' cannot run agp, a schedule that trains; use searcher fixed"),
        ("pruner.name", "level", "budget.metric 'macs' is not lowered by level, which leaves zeros in place; use sparsity"),
        ("budget.metric", "sparsity", "budget.metric 'sparsity' cannot be met by l1, which removes channels; use pruner level"),
        ("pruner.params", {"p": 1}, "pruner.params.p 1 is not a parameter of l1; it takes none."),
        ("pruner", {"name": "apoz", "params": {"images": 0}}, "pruner.params.images 0 is not usable"),
        ("pruner", {"name": "apoz", "params": {"images": "all"}}, "pruner.params.images 'all' is not usable"),
        ("pruner.config_list", [], "pruner.config_list [] is not usable: list should have at least 1 item"),
        ("pruner.config_list", [{}], "name layers by op_types or op_names."),
        (
            "pruner.config_list",
            [{"op_types": ["Conv9d"]}],
            "pruner.config_list.0.op_types 'Conv9d' is no layer type of this model; use default, Conv2d, Linear.",
        ),
        ("pruner.config_list", [{"op_names": ["convX"]}], "pruner.config_list.0.op_names 'convX' is no layer of this"),
        ("pruner.config_list", [{"op_names": ["fc"]}], "cannot be pruned (is an output of the network); leave it out."),
        ("pruner.config_list", [{"op_names": ["conv2"]}], "select all of conv2, shortcut."),
        ("pruner.config_list", [{"op_types": ["Linear"]}], "pruner.config_list selects no prunable layer"),
        ("name", "a\u0000b", "name 'a\\x00b' is not usable: use letters"),
        ("model", "model-none", "There is no model 'model-none'; GET /models lists those there are."),
        ("dataset", "../x", "There is no dataset '../x'; GET /datasets lists those there are."),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    api: TestClient, job_json: dict[str, Any], path: str, value: Any, detail: str
) -> None:
    refused = api.post("/jobs", json=changed({"searcher": {"name": "netadapt"}, **job_json}, path, value))
    assert refused.status_code in (404, 422), refused.text
    problem = refused.json()
    assert refused.headers["content-type"] == "application/problem+json"
    assert detail in problem["detail"]
    assert problem["detail"].endswith(".")
    assert "\n" not in problem["detail"]
    assert "Traceback" not in refused.text
    assert api.get("/jobs").json()["items"] == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"budget": {"ratio": NaN}}',
        b'{"resources": {"gpus": 1e999}}',
        b"[" * 100_000,
        b'{"seed": ' + b"9" * 5000 + b"}",
    ],
)
def test_a_body_that_is_no_json_object_is_refused(api: TestClient, body: bytes) -> None:
    refused = api.post("/jobs", content=body, headers={"Content-Type": "application/json"})
    assert refused.status_code == 422, refused.text
    assert refused.json()["field"] == "body"


def test_a_body_of_another_kind_or_size_is_refused(api: TestClient) -> None:
    text = api.post("/jobs", content=b"{}", headers={"Content-Type": "text/yaml"})
    large = api.post("/jobs", content=b" " * (2**20 + 1), headers={"Content-Type": "application/json"})
    boundless = api.post("/jobs", content=b"x", headers={"Content-Type": "multipart/form-data"})
    assert (text.status_code, large.status_code, boundless.status_code) == (415, 413, 422)


@pytest.mark.parametrize(
    ("model", "data", "detail"),
    [
        ({}, {"shape": [8, 8, 1]}, "save x.transpose(0, 3, 1, 2)."),
        ({}, {"shape": [3, 8, 8]}, "holds inputs of shape [3, 8, 8], but the model takes [1, 8, 8]; make the arrays"),
        ({}, {"labels": [0, 10]}, "has the label 10, but the model's 10 outputs stand for labels 0 to 9; renumber"),
        ({}, {"labels": [-1, 9]}, "has the label -1, "),
        ({"outputs": [{"shape": [None, 4, 4]}]}, {}, "the model returns [batch, 4, 4]; use task.type regression"),
        ({"inputs": model_inspection()["inputs"] * 2}, {}, "model takes 2 inputs"),
        (
            {"groups": [group("c", 16, frozen="is used twice"), group("d", 16, frozen="likewise")]},
            {},
            "every group of this model is frozen",
        ),
    ],
)
def test_a_model_and_data_that_do_not_fit_are_refused(
    api: TestClient, model: dict[str, Any], data: dict[str, Any], detail: str
) -> None:
    model_id = api.post("/models", content=json.dumps(model).encode()).json()["id"]
    dataset_id = api.post("/datasets", content=json.dumps(data).encode()).json()["id"]
    refused = api.post("/jobs", json={"model": model_id, "dataset": dataset_id, "budget": {"ratio": 0.5}})
    assert refused.status_code == 422
    assert detail in refused.json()["detail"]


def test_a_free_size_of_the_model_fits_any_image(api: TestClient) -> None:
    inspection = {"inputs": [{"shape": [None, 1, None, None], "dtype": "float32"}]}
    model = api.post("/models", content=json.dumps(inspection).encode()).json()["id"]
    dataset = api.post("/datasets", content=b'{"shape": [1, 28, 28]}').json()["id"]
    assert api.post("/jobs", json={"model": model, "dataset": dataset, "budget": {"ratio": 0.5}}).status_code == 202


def test_later_rules_win_and_a_group_needs_all_of_its_layers(api: TestClient, job_json: dict[str, Any]) -> None:
    rules = [{"op_types": ["default"]}, {"op_names": ["shortcut"], "exclude": True}]
    plan = api.post("/jobs", params={"dry_run": True}, json=changed(job_json, "pruner", {"config_list": rules})).json()
    kept = {g["name"]: g["kept_because"] for g in plan["groups"]}
    assert kept["conv1"] is None
    assert kept["conv2"] == "pruner.config_list does not select all of its layers"
    assert plan["least"] == 576 + 576 * 16 + 160


def test_one_key_makes_one_job(api: TestClient, job_json: dict[str, Any]) -> None:
    headers = {"Idempotency-Key": "k-1"}
    first = api.post("/jobs", json=job_json, headers=headers)
    reordered = dict(reversed(job_json.items()))
    again = api.post("/jobs", json=reordered, headers=headers)
    assert first.json() == again.json()
    other = api.post("/jobs", json={**job_json, "seed": 1}, headers=headers)
    assert other.status_code == 422
    assert first.json()["id"] in other.json()["detail"]
    assert len(api.get("/jobs").json()["items"]) == 1


def test_one_key_makes_one_job_under_concurrency(api: TestClient, job_json: dict[str, Any]) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: api.post("/jobs", json=job_json, headers={"Idempotency-Key": "k"}), range(24)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(api.get("/jobs").json()["items"]) == 1


@pytest.mark.parametrize(
    ("field", "value", "task", "detail"),
    [
        ("augment", ["flips"], {}, "recovery.recipe.augment ['flips'] is for images [channels, height, width], but the inputs"),
        ("label_smoothing", 0.1, {"type": "label_free"}, "recovery.recipe.label_smoothing 0.1 is for the labels of a classif"),
        ("optimizer", "lion", {}, "recovery.recipe.optimizer 'lion' should be 'sgd' or 'adamw'"),
        ("momentum", 0.9, {}, "recovery.recipe.momentum 0.9 is not a known field"),
    ],
)
def test_a_training_that_does_not_fit_is_refused(
    api: TestClient, job_json: dict[str, Any], field: str, value: object, task: dict[str, str], detail: str
) -> None:
    if field == "augment":
        context: Context = api.app.state.context  # type: ignore[attr-defined]
        with context.database.write() as session:
            for row in session.scalars(select(Dataset)):
                row.inspection = {**row.inspection, "shape": [12]}
            for model in session.scalars(select(Model)):
                model.inspection = {**model.inspection, "inputs": [{"shape": [None, 12], "dtype": "float32"}]}
    refused = api.post("/jobs", json={**job_json, "recovery": {"recipe": {field: value}}, **({"task": task} if task else {})})
    assert refused.status_code == 422
    assert refused.json()["detail"].startswith(detail)


def test_a_key_that_is_none_is_refused(api: TestClient, job_json: dict[str, Any]) -> None:
    refused = api.post("/jobs", json=job_json, headers={"Idempotency-Key": "x" * 256})
    assert refused.status_code == 422
    assert refused.json()["field"] == "Idempotency-Key"


def test_cancelling_a_queued_job_twice_is_the_same_as_once(api: TestClient, job_json: dict[str, Any]) -> None:
    job = api.post("/jobs", json=job_json).json()["id"]
    first, second = api.post(f"/jobs/{job}/cancel"), api.post(f"/jobs/{job}/cancel")
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json() == second.json()
    assert first.json()["state"] == "cancelled"
    assert first.json()["finished_at"] is not None


def test_what_is_not_there_yet(api: TestClient, job_json: dict[str, Any]) -> None:
    job = api.post("/jobs", json=job_json).json()["id"]
    assert api.get(f"/jobs/{job}/checkpoints").json() == {"items": [], "next": None}
    early = api.get(f"/jobs/{job}/checkpoint")
    assert early.status_code == 409
    assert "is queued" in early.json()["detail"]
    assert api.get(f"/jobs/{job}/trials").json() == {"items": [], "next": None}
    assert api.get(f"/jobs/{job}/trials/0").status_code == 404
    assert api.get(f"/jobs/{job}/checkpoint", params={"format": "pickle"}).status_code == 422


def test_a_pruner_that_sees_nothing_of_a_selected_group_is_refused_before_the_job_exists(api: TestClient) -> None:
    bare = group("conv2", 16, unscored_by=["slim"])
    groups = json.dumps({"groups": [group("conv1", 16), bare, group("fc", 10, frozen="is an output of the network")]})
    ids = {"model": api.post("/models", content=groups.encode()).json()["id"]}
    ids["dataset"] = api.post("/datasets", content=b"data").json()["id"]
    slim = {**ids, "budget": {"ratio": 0.5}, "pruner": {"name": "slim"}}
    refused = api.post("/jobs", json=slim)
    assert (refused.status_code, refused.json()["field"]) == (422, "pruner.name")
    assert "'slim' sees nothing of the channels of conv2, " in refused.json()["detail"]
    assert api.post("/jobs", json={**slim, "pruner": {"name": "l1"}}).status_code == 202
    rules = [{"op_types": ["default"]}, {"op_names": ["conv2"], "exclude": True}]
    assert api.post("/jobs", json={**slim, "pruner": {"name": "slim", "config_list": rules}}).status_code == 202


def test_a_budget_of_sparsity_is_planned_weight_by_weight(api: TestClient, job_json: dict[str, Any]) -> None:
    level = {**job_json, "budget": {"metric": "sparsity", "ratio": 0.8}, "searcher": {"name": "fixed"}}
    level["pruner"] = {"name": "level", "config_list": [{"op_types": ["Conv2d"]}]}
    plan = api.post("/jobs", params={"dry_run": True}, json=level).json()
    weights = 144 + 2304 + 160
    assert (plan["metric"], plan["dense"], plan["limit"]) == ("sparsity", weights, weights - 8 * weights // 10)
    assert plan["planned_trials"] == 1
    assert [(g["name"], g["width"], g["least"]) for g in plan["groups"]] == [
        ("conv1", 144, 1),
        ("conv2", 2304, 1),
        ("fc", 160, 160),
    ]
    for field, value, detail in (
        (
            "searcher.name",
            "netadapt",
            "searcher.name 'netadapt' does not go with level, which cuts every layer alike",
        ),
        ("recovery.final_epochs", 2, "recovery.final_epochs 2 would train zeros away that level made; use 0"),
        ("budget.ratio", 0.99, "budget.ratio 0.99 is out of reach: at most 2,446 of 2,608 weights can go; ask for less."),
    ):
        refused = api.post("/jobs", json=changed(level, field, value))
        assert (refused.status_code, refused.json()["field"]) == (422, field)
        assert detail in refused.json()["detail"]
    assert api.post("/jobs", json=level).status_code == 202


TASKS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, str]]] = {
    "by default": ({}, {}, {"name": "top1", "title": "top-1 accuracy", "better": "higher"}),
    "cross-entropy": (
        {"metric": "cross_entropy"},
        {},
        {"name": "cross_entropy", "title": "cross-entropy", "better": "lower"},
    ),
    "without labels": (
        {"type": "label_free"},
        {"targets": None, "labels": None, "classes": None},
        {"name": "agreement", "title": "agreement", "better": "higher"},
    ),
    "values": (
        {"type": "regression", "metric": "mae"},
        {"targets": {"shape": [10], "dtype": "float32"}, "labels": None, "classes": None},
        {"name": "mae", "title": "MAE", "better": "lower"},
    ),
}


@pytest.mark.parametrize("kind", ["sqlite"])
@pytest.mark.parametrize(("task", "data", "metric"), TASKS.values(), ids=TASKS)
def test_a_job_says_what_its_figures_are(
    api: TestClient, task: dict[str, Any], data: dict[str, Any], metric: dict[str, str]
) -> None:
    model = api.post("/models", content=b"model").json()["id"]
    dataset = api.post("/datasets", content=json.dumps(data).encode()).json()
    assert dataset["classes"] == data.get("classes", 10)
    asked = {"model": model, "dataset": dataset["id"], "budget": {"ratio": 0.5}, "task": task}
    assert api.post("/jobs", json=asked, params={"dry_run": True}).json()["task"]["metric"] == metric["name"]
    job = api.post("/jobs", json=asked).json()
    assert job["metric"] == metric
    assert job["spec"]["task"] == {"type": task.get("type", "classification"), "metric": metric["name"], "code": None}


@pytest.mark.parametrize("kind", ["sqlite"])
def test_data_of_an_earlier_version_are_shown_and_have_to_be_uploaded_again(api: TestClient, job_json: dict[str, Any]) -> None:
    context: Context = api.app.state.context  # type: ignore[attr-defined]
    with context.database.write() as session:
        row = session.get_one(Dataset, job_json["dataset"])
        row.inspection = {name: row.inspection[name] for name in ("splits", "shape", "dtype", "classes", "labels")}
    assert api.get(f"/datasets/{job_json['dataset']}").json()["format"] is None
    refused = api.post("/jobs", json=job_json)
    assert refused.json()["detail"] == "dataset was inspected by another version of Secateur; upload the same file again."
    assert api.post("/datasets", content=b"data").json()["format"] == "npz"
    assert api.post("/jobs", json=job_json).status_code == 202


@pytest.mark.parametrize("kind", ["sqlite"])
def test_images_that_have_values_are_not_mirrored(api: TestClient) -> None:
    data = {"targets": {"shape": [10], "dtype": "float32"}, "labels": None, "classes": None}
    model = api.post("/models", content=b"model").json()["id"]
    dataset = api.post("/datasets", content=json.dumps(data).encode()).json()["id"]
    asked = {"model": model, "dataset": dataset, "budget": {"ratio": 0.5}, "task": {"type": "regression"}}
    refused = api.post("/jobs", json={**asked, "recovery": {"recipe": {"augment": ["flips"]}}})
    assert refused.json()["detail"].startswith("recovery.recipe.augment ['flips'] changes the images")
    assert api.post("/jobs", json=asked).status_code == 202


@pytest.mark.parametrize("allowed", [False, True])
def test_code_is_refused_unless_allowed_and_never_run_here(tmp_path: Path, allowed: bool) -> None:
    ray = FakeRay()
    ray.down = True
    app = create_app(make_settings(tmp_path / "data", allow_code=allowed), inspect=FakeInspect(), ray=ray)
    with TestClient(app, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        ids = {path: client.post(f"/{path}s", content=path.encode()).json()["id"] for path in ("model", "dataset")}
        canary = tmp_path / "canary"
        code = f"open({str(canary)!r}, 'w')\ndef metric(outputs, labels): return 0.5"
        asked = {**ids, "budget": {"ratio": 0.5}, "task": {"type": "custom", "metric": "custom_error", "code": code}}
        made = client.post("/jobs", json=asked)
        assert not canary.exists()
        if not allowed:
            assert made.json()["detail"].startswith("task.type 'custom' runs code of its sender's, which this server does not")
            return
        assert made.json()["metric"] == {"name": "custom_error", "title": "custom error", "better": "lower"}
        for wrong, detail in (
            ("def metric(", "task.code is no Python: "),
            ("metric = max", "task.code defines no function metric"),
        ):
            refused = client.post("/jobs", json={**asked, "task": {"type": "custom", "code": wrong}})
            assert refused.json()["detail"].startswith(detail)


def test_several_budgets_are_answered_as_they_were_sent(api: TestClient, job_json: dict[str, Any]) -> None:
    job_json["budget"] = [{"metric": "macs", "ratio": 0.5}, {"metric": "macs", "ratio": 0.7}]
    made = api.post("/jobs", json=job_json)
    assert made.status_code == 202
    assert [budget["ratio"] for budget in made.json()["spec"]["budget"]] == [0.5, 0.7]
