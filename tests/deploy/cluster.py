"""The cluster of docker-compose.yml under everything that may happen to it: ``sudo make cluster``.

    python -m tests.deploy.cluster --compose "docker compose" --engine docker --s3

Under a project name and secrets of its own, with the image that is there (``docker compose build``): health checks, of
services that work and of those that hang; what can be reached; a job on two workers; another one while a worker, the head,
the API in the middle of an upload, and the database are killed; and whether all is still there after ``down`` and ``up``. The
engine runs on this machine, whose processes are killed and stopped by their ids, which takes root.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import yaml

from pruners.errors import SecateurError
from service.client import Client
from service.texts import ENDED
from tests.chaos.run import outcome, submit
from tests.digits import digits

ROOT = Path(__file__).parents[2]
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
PROJECT = "secateur-check"
WORKERS = 2
WAIT_SECONDS = 900.0  # for anything that is to come to pass; a crowded machine takes minutes to start a Ray
POLL_SECONDS = 2.0
PART_BYTES = 2**25  # the client's
_SIZES = {"train": 15_000, "test": 1_000}  # images of the upload: 49 MB


class Cluster:
    """Its containers, and ways to disturb them.

    Attributes:
        api: its address.
        dashboard: Ray's, likewise.
        ports: of the two.
        token: the API's.
        bearer: the same as headers.
    """

    def __init__(self, compose: str, engine: str, s3: bool) -> None:
        self._compose = [*shlex.split(compose), "-p", PROJECT, *(["--profile", "minio"] if s3 else [])]
        self._engine = engine
        ports = [_free_port() for _ in range(2)]
        self.api, self.dashboard = (f"http://127.0.0.1:{port}" for port in ports)
        self.ports = set(ports)
        self.token = secrets.token_hex(32)
        self.bearer = {"Authorization": f"Bearer {self.token}"}
        self._environment = {
            **{name: secrets.token_hex(32) for name in ("POSTGRES_PASSWORD", "RAY_AUTH_TOKEN", "AWS_SECRET_ACCESS_KEY")},
            **{"SECATEUR_TOKEN": self.token, "AWS_ACCESS_KEY_ID": "secateur"},
            **{"API_PORT": str(ports[0]), "DASHBOARD_PORT": str(ports[1])},
            **({"SECATEUR_STORE": "s3://secateur"} if s3 else {}),
        }

    def compose(self, *arguments: str) -> None:
        subprocess.run([*self._compose, *arguments], check=True, cwd=ROOT, env=os.environ | self._environment)

    def up(self) -> None:
        self.compose("up", "-d", "--scale", f"ray-worker={WORKERS}")

    def down(self, *options: str) -> None:
        for worker in self.containers("ray-worker"):
            self.engine(
                "rm", "--force", worker
            )  # podman-compose knows one of them only, and nothing goes while another is there
        self.compose("down", *options)

    def engine(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run([self._engine, *arguments], check=check, capture_output=True, text=True)

    def containers(self, service: str) -> list[str]:
        """Ids of those that run."""
        labels = (f"com.docker.compose.project={PROJECT}", f"com.docker.compose.service={service}")
        filters = itertools.chain.from_iterable(("--filter", f"label={label}") for label in labels)
        return self.engine("ps", "--quiet", "--no-trunc", *filters).stdout.split()

    def process(self, container: str) -> int:
        """The container's first process, by this machine's count."""
        return int(self.engine("inspect", "--format", "{{.State.Pid}}", container).stdout)

    def addresses(self, container: str) -> list[str]:
        shown = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
        return self.engine("inspect", "--format", shown, container).stdout.split()

    def kill(self, service: str) -> None:
        """As a crash does it, for which the engine starts the container again; waits until it has."""
        container = self.containers(service)[0]
        before = self.process(container)
        os.kill(before, signal.SIGKILL)

        def again() -> bool:
            return container in self.containers(service) and self.process(container) not in (0, before)

        wait_for(f"{service} runs again", again)

    def healthy(self, service: str, container: str) -> bool:
        """What the health check of docker-compose.yml says, run where the engine runs it."""
        return self.engine("exec", container, *SERVICES[service]["healthcheck"]["test"][1:], check=False).returncode == 0

    @contextmanager
    def hanging(self, container: str) -> Iterator[None]:
        """All of its processes are stopped for a while."""
        space = os.readlink(f"/proc/{self.process(container)}/ns/pid")
        members = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if os.readlink(process / "ns/pid") == space:
                    members.append(int(process.name))
        _signal(members, signal.SIGSTOP)
        try:
            yield
        finally:
            _signal(members, signal.SIGCONT)

    def ready(self) -> None:
        """Waits until the API, its database, its store and its Ray are."""
        wait_for("the API is ready", lambda: httpx2.get(f"{self.api}/readyz", timeout=30).is_success)


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs the cluster of docker-compose.yml and disturbs it.")
    parser.add_argument("--compose", default="docker compose", help="the command")
    parser.add_argument("--engine", default="docker", help="the command of what runs the containers")
    parser.add_argument("--s3", action="store_true", help="the store is the profile minio's")
    parser.add_argument("--trials", type=int, default=400, help="of the job that is disturbed")
    parsed = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("Processes of containers are killed by root alone.")
    cluster = Cluster(parsed.compose, parsed.engine, parsed.s3)
    with tempfile.TemporaryDirectory(prefix="secateur-") as folder:
        try:
            return checked(cluster, Path(folder), parsed.trials)
        finally:
            cluster.down("-v")


def checked(cluster: Cluster, folder: Path, trials: int) -> int:
    """0 if all holds."""
    files = digits(folder)
    cluster.up()
    cluster.ready()
    with Client(cluster.api, cluster.token) as client:
        found = {
            "health checks": health(cluster),
            "reached": reached(cluster),
            "job": undisturbed(client, files, folder),
        }
        job = submit(client, files, {"searcher": {"name": "random"}}, trials)
        found["faults"] = disturbed(cluster, client, job, folder, trials)
        before = shown(client, folder)
        cluster.down()
        cluster.up()
        cluster.ready()
        after = shown(client, folder)
    found["after down and up"] = before == after
    say(f"after down and up {len(after)} jobs, the same checkpoints: {before == after}")
    say(", ".join(f"{name}: {'holds' if holds else 'FAILS'}" for name, holds in found.items()))
    return 0 if all(found.values()) else 1


def health(cluster: Cluster) -> bool:
    """Each check says yes, and no once all processes of its container are stopped."""
    holds = True
    for service in SERVICES:
        for container in cluster.containers(service) if "healthcheck" in SERVICES[service] else []:
            wait_for(f"{service} is healthy", partial(cluster.healthy, service, container))
            with cluster.hanging(container):
                hangs = cluster.healthy(service, container)
            wait_for(f"{service} is healthy again", partial(cluster.healthy, service, container))
            say(f"health of {service}: yes; while it hangs {'yes' if hangs else 'no'}; afterwards yes")
            holds &= not hangs
    return holds


def reached(cluster: Cluster) -> bool:
    """The engine publishes the API's port and the dashboard's, a scan finds both on loopback alone, and both ask for a token.

    What containers listen to on the networks between them, which the engine's own machine can reach too, is printed.
    """
    published = set()
    for service in SERVICES:
        for container in cluster.containers(service):
            published |= {line.split()[-1] for line in cluster.engine("port", container).stdout.splitlines()}
            for address in cluster.addresses(container):
                say(f"{service} listens between containers, at {address}: {sorted(scan(address))}")
    loopback, outward = (scan(address) & cluster.ports for address in ("127.0.0.1", _own_address()))
    say(f"published: {sorted(published)}; a scan finds {sorted(loopback)} on loopback, {sorted(outward)} on {_own_address()}")
    places = (f"{cluster.dashboard}/api/jobs/", f"{cluster.dashboard}/nodes?view=summary", f"{cluster.api}/jobs")
    refused = [httpx2.get(place, timeout=30).status_code for place in places]
    say(f"without a token, dashboard and API: {refused}")
    here = published == {f"127.0.0.1:{port}" for port in cluster.ports}
    return here and loopback == cluster.ports and not outward and set(refused) == {401}


def undisturbed(client: Client, files: tuple[Path, Path], folder: Path) -> bool:
    """A job with trials on every worker, whose checkpoint can be pulled."""
    job = submit(client, files, {"searcher": {"name": "random"}}, 60)
    wait_for("the first job has ended", lambda: client.job(job)["state"] in ENDED)
    nodes = by_node(client, job)
    state, size = client.job(job)["state"], client.download(job, "pt2", folder / "first.pt2").stat().st_size
    say(f"a job: {state}, trials on {dict(nodes)}, a checkpoint of {size} bytes")
    return state == "succeeded" and len(nodes) == WORKERS


def disturbed(cluster: Cluster, client: Client, job: str, folder: Path, trials: int) -> bool:
    """A running job after four faults; each comes once some more trials have ended."""
    upload = Upload(cluster, folder)
    faults: dict[str, Callable[[], None]] = {
        "ray-worker": partial(cluster.kill, "ray-worker"),
        "ray-head": partial(cluster.kill, "ray-head"),
        "api, in the middle of an upload": upload.broken,
        "db": partial(cluster.kill, "db"),
    }
    for number, (name, fault) in enumerate(faults.items(), 1):
        share = trials * number // (len(faults) + 2)
        wait_for(f"{share} trials", partial(has_finished, client, job, share))
        say(f"killed after {share} trials: {name}")
        fault()
    wait_for("the disturbed job has ended", lambda: client.job(job)["state"] in ENDED)
    found = outcome(client, job)
    once = sorted(found["told"]) == list(range(trials)) and set(found["told"].values()) == {1}
    lost = sum(len(trial["losses"]) for trial in client.trials(job))
    whole = upload.ended(client)
    say(f"{found['state']}, {lost} losses, attempts {client.job(job)['links']['ray']}, trials on {dict(by_node(client, job))}")
    say(f"every trial told once: {once}; the upload has its sha256: {whole}")
    return found["state"] == "succeeded" and once and whole


class Upload:
    """A data set of two parts; the API dies in the middle of the second."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster, self._file = cluster, folder / "large.npz"
        draw = np.random.default_rng(0)
        arrays = {f"x_{name}": draw.integers(0, 256, (size, 3, 32, 32), dtype=np.uint8) for name, size in _SIZES.items()}
        labels = {f"y_{name}": np.arange(size) % 10 for name, size in _SIZES.items()}
        np.savez(self._file, allow_pickle=False, **arrays, **labels)
        self._bytes = self._file.read_bytes()

    def broken(self) -> None:
        size = len(self._bytes)
        digest = hashlib.sha256(self._bytes).hexdigest()
        announced = {"kind": "dataset", "size": size, "sha256": digest, "name": self._file.name}
        with httpx2.Client(base_url=self._cluster.api, headers=self._cluster.bearer, timeout=120) as line:
            begun = line.post("/uploads", json=announced).raise_for_status().json()
            place, offset = f"/uploads/{begun['id']}", PART_BYTES
            line.patch(place, content=self._bytes[:offset], headers={"Upload-Offset": "0"}).raise_for_status()

            def half() -> Iterator[bytes]:
                middle = (offset + size) // 2
                yield self._bytes[offset:middle]
                self._cluster.kill("api")
                yield self._bytes[middle:]

            with suppress(httpx2.TransportError):
                line.patch(place, content=half(), headers={"Upload-Offset": str(offset), "Content-Length": str(size - offset)})
        self._cluster.ready()
        there = httpx2.get(f"{self._cluster.api}{place}", headers=self._cluster.bearer, timeout=30).json()["offset"]
        say(f"of {size} bytes {there} are there after the API died")

    def ended(self, client: Client) -> bool:
        """The client goes on where the server has it, which holds the whole to its sha256 in the end."""
        return bool(client.upload_dataset(self._file)["size"] == len(self._bytes))


def shown(client: Client, folder: Path) -> dict[str, str]:
    """Every job's checkpoint, as its sha256."""
    found = {}
    for job in client.jobs():
        pulled = client.download(job["id"], "pt2", folder / "pulled.pt2")
        found[job["id"]] = hashlib.sha256(pulled.read_bytes()).hexdigest()
        pulled.unlink()
    return found


def scan(address: str) -> set[int]:
    """The ports of all 65,535 at which TCP is answered."""
    found = set()
    for port in range(1, 2**16):
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((address, port)) == 0:
                found.add(port)
    return found


def has_finished(client: Client, job: str, trials: int) -> bool:
    """Whether a job has that many trials behind it."""
    return bool(client.job(job)["progress"]["finished"] >= trials)


def by_node(client: Client, job: str) -> Counter[str]:
    """How many trials each node has finished."""
    return Counter(trial["worker"]["node"] for trial in client.trials(job) if trial["worker"])


def wait_for(what: str, come: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        with suppress(SecateurError, httpx2.TransportError, subprocess.CalledProcessError):
            if come():
                return
        time.sleep(POLL_SECONDS)
    raise TimeoutError(f"not within {WAIT_SECONDS:.0f} s: {what}")


def say(text: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


def _signal(processes: list[int], what: signal.Signals) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, what)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _own_address() -> str:
    """The one by which other machines reach this one; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


if __name__ == "__main__":
    sys.exit(main())
