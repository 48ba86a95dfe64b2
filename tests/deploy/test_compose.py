"""The rules that Dockerfile and docker-compose.yml keep, read from the files themselves."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if str(service["image"]).startswith("secateur:")]
RAY = [name for name in OURS if name.startswith("ray-")]
DOCKERFILE = (ROOT / "Dockerfile").read_text().splitlines()

every_service = pytest.mark.parametrize("name", SERVICES)


def instructions(word: str) -> list[str]:
    return [line.split(maxsplit=1)[1] for line in DOCKERFILE if line.startswith(f"{word} ")]


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def test_the_parts_are_there() -> None:
    assert SERVICES.keys() >= {"db", "migrate", "ray-head", "ray-worker", "api"}
    assert {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service} == {
        "ray-worker-gpu": ["gpu"],
        "minio": ["minio"],
    }
    assert set(OURS) == {"migrate", "api", "ray-head", "ray-worker", "ray-worker-gpu"}
    assert len({str(SERVICES[name]["image"]) for name in OURS}) == 1
    assert [name for name, service in SERVICES.items() if "build" in service] == ["migrate"], "one image, built once"


def test_only_the_api_and_the_dashboard_are_published_and_on_loopback_unless_told_otherwise() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {
        "api": ["${API_BIND:-127.0.0.1}:${API_PORT:-8000}:8000"],
        "ray-head": ["127.0.0.1:${DASHBOARD_PORT:-8265}:8265"],
    }
    assert not any("network_mode" in service or "privileged" in service for service in SERVICES.values())


@every_service
def test_no_secret_is_written_down_or_has_a_default(name: str) -> None:
    for variable, value in SERVICES[name].get("environment", {}).items():
        for part in re.findall(r"\$\{([A-Z_]+)([^}]*)\}", str(value)):
            if re.search("TOKEN|PASSWORD|SECRET|ACCESS_KEY", part[0]):
                assert part[1].startswith(":?"), f"{name}: {variable}"
        if re.search("TOKEN|PASSWORD|SECRET|ACCESS_KEY", variable):
            assert str(value).startswith("${"), f"{name}: {variable}"
        assert not re.search(r"://[^@$]*:[^@$]+@", str(value)), f"{name}: {variable}"


@every_service
def test_root_is_read_only_and_what_a_service_may_use_is_bounded(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    limits = service["deploy"]["resources"]["limits"]
    assert limits["memory"]
    assert limits["pids"]
    assert not any(str(volume).startswith((".", "/var/run", "~")) for volume in service.get("volumes", []))


@every_service
def test_what_a_service_has_to_write_is_where_it_may(name: str) -> None:
    """In what tmpfs and volumes cover; our own image has its HOME and its TMPDIR there."""
    service = SERVICES[name]
    writable = [place.partition(":")[0] for place in service["tmpfs"]]
    writable += [volume.split(":")[1] for volume in service.get("volumes", [])]
    environment = service["environment"]
    asked = [environment[variable] for variable in ("HOME", "TMPDIR", "PGDATA") if variable in environment]
    if name in OURS:
        asked.append(
            next(word.removeprefix("HOME=") for line in DOCKERFILE for word in line.split() if word.startswith("HOME="))
        )
    assert asked
    assert set(asked) <= set(writable)
    assert "user" not in service or "volumes" not in service, "a new volume belongs to the image's own user"


@every_service
def test_what_ends_starts_again_and_what_serves_says_how_it_is(name: str) -> None:
    service = SERVICES[name]
    if name == "migrate":
        assert service["restart"] == "on-failure"
        return
    assert service["restart"] == "unless-stopped"
    check = service["healthcheck"]
    assert check["test"][0] == "CMD", "no shell between"
    assert seconds(check["interval"]) <= 30


def test_nobody_waits_for_what_never_comes() -> None:
    for service in SERVICES.values():
        for needed, how in service.get("depends_on", {}).items():
            ends = SERVICES[needed]["restart"] == "on-failure"
            assert how["condition"] == ("service_completed_successfully" if ends else "service_healthy")
            assert set(SERVICES[needed]["networks"]) & set(service["networks"])


def test_our_images_are_fixed_and_others_too() -> None:
    bases = {line.split()[0] for line in instructions("FROM")} - set(re.findall(r"AS (\w+)", "\n".join(DOCKERFILE)))
    assert bases == {"docker.io/library/python:3.11-slim-bookworm"}
    assert SERVICES["db"]["image"] == "docker.io/library/postgres:17-bookworm"
    assert not any(str(service["image"]).endswith(":latest") or ":" not in service["image"] for service in SERVICES.values())


def test_our_image_runs_as_nobody_in_particular() -> None:
    assert instructions("USER") == ["10001:10001"]
    last = max(number for number, line in enumerate(DOCKERFILE) if line.startswith("FROM "))
    assert any(line.startswith("USER ") for line in DOCKERFILE[last:])
    assert not any("user" in SERVICES[name] for name in OURS)
    assert not any("sudo" in line for line in DOCKERFILE)


def test_orphans_of_a_container_have_a_parent() -> None:
    assert instructions("ENTRYPOINT") == ['["tini", "-g", "--"]']
    assert not any("entrypoint" in SERVICES[name] for name in OURS)


def test_code_comes_into_the_image_last() -> None:
    """So that a change of the code installs nothing again; and nothing but what .dockerignore names can get in."""
    copies = instructions("COPY")
    code = [number for number, what in enumerate(copies) if what.split()[0] in ("service", "workers", "searchers", "pruners")]
    assert len(code) == 4
    assert next(number for number, what in enumerate(copies) if "requirements.txt" in what) < min(code)
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    assert "*" in ignored
    assert not any(line.startswith("!.") for line in ignored)


@pytest.mark.parametrize("name", RAY)
def test_every_ray_node_asks_for_the_token(name: str) -> None:
    service = SERVICES[name]
    assert service["environment"]["RAY_AUTH_MODE"] == "token"
    assert service["environment"]["RAY_AUTH_TOKEN"].startswith("${RAY_AUTH_TOKEN:?")
    cpus = next(word for word in service["command"] if word.startswith("--num-cpus="))
    if name == "ray-head":
        assert cpus == "--num-cpus=0", "trials run on workers"
    else:
        assert service["deploy"]["resources"]["limits"]["cpus"] in cpus
        assert "data" not in service["networks"], "what runs trials reaches no database"
        assert not any("DATABASE" in variable or "AWS" in variable for variable in service["environment"])
        assert "volumes" not in service


def test_the_database_is_on_a_network_without_a_way_out() -> None:
    assert COMPOSE["networks"]["data"] == {"internal": True}
    assert SERVICES["db"]["networks"] == SERVICES["minio"]["networks"] == ["data"]
    assert {name for name, service in SERVICES.items() if "data" in service["networks"]} == {
        *("db", "migrate", "api", "ray-head", "minio")
    }


def test_the_api_and_the_jobs_see_one_database_and_one_store() -> None:
    api, head = SERVICES["api"], SERVICES["ray-head"]
    for variable in ("SECATEUR_DATABASE_URL", "SECATEUR_STORE", "SECATEUR_MAX_RUNNING_JOBS", "AWS_ENDPOINT_URL"):
        assert api["environment"][variable] == head["environment"][variable]
    assert "store:/data" in api["volumes"]
    assert "store:/data" in head["volumes"]


def test_env_has_every_secret_at_random_for_its_owner_alone(tmp_path: Path) -> None:
    def make() -> subprocess.CompletedProcess[str]:
        command = ["make", "-f", str(ROOT / "Makefile"), "env", f"PYTHON={sys.executable}"]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, env={"PATH": os.environ["PATH"]}, check=False
        )

    assert make().returncode == 0
    file = tmp_path / ".env"
    first = dict(line.split("=", 1) for line in file.read_text().splitlines())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    asked = set(re.findall(r"\$\{([A-Z_]+):\?", (ROOT / "docker-compose.yml").read_text()))
    assert first.keys() == asked
    assert all(len(value) == 64 for name, value in first.items() if name != "AWS_ACCESS_KEY_ID")
    refused = make()
    assert refused.returncode != 0
    assert "is there already" in refused.stdout
    assert dict(line.split("=", 1) for line in file.read_text().splitlines()) == first
    file.unlink()
    assert make().returncode == 0
    assert not set(first.values()) & {line.split("=", 1)[1] for line in file.read_text().splitlines()} - {"secateur"}
