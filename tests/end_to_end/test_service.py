"""The main job through the real house: ``secateur serve`` in its own process, its own Ray, its own database."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pruners.graph.modules import build_module
from pruners.graph.program import read_program
from service.client import Client
from service.client.connection import RequestRefused
from service.demo.tour import serving
from tests.digits import digits
from tests.exporting import count_macs, rewrite
from tests.pruners.test_program import Canary


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("service") / "data"


@pytest.fixture(scope="module")
def client(data_dir: Path) -> Iterator[Client]:
    with serving(data_dir) as client:
        yield client


@pytest.fixture(scope="module")
def job(client: Client, files: tuple[Path, Path]) -> dict[str, Any]:
    """A finished NetAdapt job and its uploads' ids."""
    from service.client.display import watch

    model, data = client.upload_model(files[0]), client.upload_dataset(files[1])
    spec = {
        "name": "digits-half",
        "model": model["id"],
        "dataset": data["id"],
        "budget": {"metric": "macs", "ratio": 0.5},
        "searcher": {"name": "netadapt", "params": {"rounds": 3}},
        "limits": {"max_trials": 40},
    }
    job = client.create_job(spec)
    return {**watch(client, job["id"]), "request": spec, "model": model, "data": data}


def test_the_job_succeeds_within_its_budget(job: dict[str, Any], client: Client) -> None:
    assert job["state"] == "succeeded", job["reason"]
    baseline, best = job["baseline"], job["best"]
    assert 0 < best["macs"] <= baseline["macs"] // 2
    assert best["params"] < baseline["params"]
    assert best["size_bytes"] < baseline["size_bytes"]
    assert best["latency_ms"] > 0
    trials = list(client.trials(job["id"]))
    assert [trial["number"] for trial in trials] == list(range(len(trials)))
    assert {trial["state"] for trial in trials} == {"succeeded"}
    assert {trial["note"].split(":")[0] for trial in trials} >= {"round 1 of 3", "round 2 of 3", "round 3 of 3"}
    fitting = [trial for trial in trials if trial["outcome"]["macs"] <= baseline["macs"] // 2]
    assert best["trial"] == max(fitting, key=lambda trial: trial["outcome"]["score"])["number"]
    assert all(trial["worker"]["pid"] > 0 and trial["evaluate_seconds"] > 0 for trial in trials)
    assert job["progress"]["planned"] == job["progress"]["finished"] == len(trials)


def test_a_job_is_paused_resumed_and_stopped(job: dict[str, Any], client: Client) -> None:
    """Over the real Ray: no process of it is left while it is paused, and what it had found is kept."""
    from service.client.display import watch

    spec = {**job["request"], "name": "paused", "searcher": {"name": "random"}, "limits": {"max_trials": 400}}
    made = client.create_job(spec)
    while client.job(made["id"])["progress"]["finished"] < 3:
        pass
    client.pause(made["id"])
    while (paused := client.job(made["id"]))["state"] == "pausing":
        pass
    assert paused["state"] == "paused"
    finished = [trial for trial in client.trials(made["id"]) if trial["state"] == "succeeded"]
    client.resume(made["id"])
    while client.job(made["id"])["progress"]["finished"] <= len(finished):
        pass
    client.stop(made["id"])
    ended = watch(client, made["id"])
    assert ended["state"] == "succeeded", ended["reason"]
    trials = list(client.trials(made["id"]))
    assert [trials[trial["number"]] for trial in finished] == finished
    assert len(finished) < len(trials) < 400
    within = [trial for trial in trials if trial["outcome"] and trial["outcome"]["macs"] <= job["baseline"]["macs"] // 2]
    assert ended["best"]["trial"] == max(within, key=lambda trial: trial["outcome"]["score"])["number"]


def test_the_checkpoint_opens_with_torch_alone(job: dict[str, Any], client: Client, tmp_path: Path) -> None:
    checkpoint = client.download(job["id"], "pt2", tmp_path / "best.pt2")
    network = build_module(read_program(checkpoint))
    assert count_macs(network, (1, 8, 8)) == job["best"]["macs"]
    assert sum(parameter.numel() for parameter in network.parameters()) == job["best"]["params"]
    code = (
        "import sys, torch; network = torch.export.load(sys.argv[1]).module();"
        "print(network(torch.ones(3, 1, 8, 8)).tolist(), sorted({'pruners', 'service'} & set(sys.modules)))"
    )
    command = [sys.executable, "-I", "-W", "ignore", "-c", code, str(checkpoint)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path).stdout
    assert printed.strip().endswith("[]"), "none of our packages"
    import torch

    there = torch.tensor(json.loads(printed.rsplit(" ", 1)[0]))
    torch.testing.assert_close(there, network(torch.ones(3, 1, 8, 8)), rtol=1e-5, atol=1e-5)  # the same network twice


def test_other_formats_hold_the_same_network(job: dict[str, Any], client: Client, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    weights = load_file(client.download(job["id"], "safetensors", tmp_path / "best.safetensors"))
    recipe = json.loads(client.download(job["id"], "recipe", tmp_path / "recipe.json").read_text())
    state = build_module(read_program(client.download(job["id"], "pt2", tmp_path / "best.pt2"))).state_dict()
    assert weights.keys() == state.keys()
    assert all((weights[name] == state[name]).all() for name in state)
    assert len(recipe["keep"]["blocks.0.conv1.weight"].get("0", range(16))) == len(weights["blocks.0.conv1.weight"])


def test_a_replay_of_the_card_makes_the_same_bytes(
    job: dict[str, Any], files: tuple[Path, Path], client: Client, tmp_path: Path
) -> None:
    """In another process, by the command line, from the card of a job whose network was cut in rounds."""
    card = client.download(job["id"], "card", tmp_path / "card.json")
    output = subprocess.run(_replaying(card, files, tmp_path / "again"), check=True, capture_output=True, text=True).stdout
    replayed = json.loads(output)
    kept = client.checkpoints(job["id"])[0]
    hashes = {file["format"]: file["sha256"] for file in kept["files"] if file["format"] != "card"}
    assert {form: file["sha256"] for form, file in replayed.items()} == hashes
    assert hashes.keys() == {"pt2", "safetensors", "recipe", "onnx"}


def _replaying(card: Path, files: tuple[Path, Path], folder: Path) -> list[str]:
    options = ["--model", str(files[0]), "--data", str(files[1]), "--output", str(folder), "--json"]
    return [sys.executable, "-m", "service.cli", "replay", str(card), *options]


def test_rays_dashboard_lists_the_job_and_the_trials_by_name(job: dict[str, Any], client: Client, data_dir: Path) -> None:
    url = json.loads((data_dir / "ray.json").read_text())["jobs_url"]
    header = {"Authorization": f"Bearer {(data_dir / 'ray.token').read_text()}"}
    listed = httpx2.get(f"{url}/api/jobs/", headers=header).json()
    assert [entry["metadata"]["name"] for entry in listed if entry["submission_id"] == f"{job['id']}-1"] == ["digits-half"]
    actors = httpx2.get(f"{url}/logical/actors", headers=header).json()["data"]["actors"].values()
    assert "PruningTrial" in {actor["actorClass"] for actor in actors}
    assert f"-m service.run_job {job['id']} --attempt 1 --name digits-half" in str(listed)
    assert client.job(job["id"])["links"]["ray"] == f"{url}/#/jobs/{job['id']}-1"
    assert httpx2.get(f"{url}/api/jobs/").status_code == 401


def test_an_upload_is_never_executed(client: Client, files: tuple[Path, Path], tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    hostile = rewrite(files[0], lambda members: members.update({"data/sample_inputs/model.pt": pickle.dumps(Canary(canary))}))
    client.upload_model(hostile)
    assert not canary.exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"budget": {"ratio": 0.0001}}, r"budget\.ratio 0\.0001 is out of reach: the smallest reachable is 0\.0"),
        ({"searcher": {"name": "magic"}}, r"searcher\.name 'magic' is unknown; use one of "),
        ({"pruner": {"name": "l9"}}, r"pruner\.name 'l9' is unknown; use one of "),
        ({"pruner": {"config_list": [{"op_names": ["conv9"]}]}}, "conv9"),
        ({"recovery": {"short_steps": -5}}, r"recovery\.short_steps -5"),
    ],
)
def test_bad_jobs_are_refused_before_any_trial(
    job: dict[str, Any], client: Client, change: dict[str, Any], sentence: str
) -> None:
    before = len(list(client.jobs()))
    spec = {"model": job["model"]["id"], "dataset": job["data"]["id"], "budget": {"ratio": 0.5}, **change}
    with pytest.raises(RequestRefused, match=sentence):
        client.create_job(spec)
    assert len(list(client.jobs())) == before
