"""The embedded Ray: found again, private, and gone without a trace when stopped. Starts a real head."""

from __future__ import annotations

import os
import stat
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from pruners.errors import SecateurError
from service import cluster as module
from service.cluster import Cluster, EmbeddedCluster


@pytest.fixture
def ray(tmp_path: Path) -> Iterator[EmbeddedCluster]:
    embedded = EmbeddedCluster(tmp_path / "data")
    yield embedded
    embedded.stop()


def test_a_head_runs_jobs_is_found_again_and_stops_without_a_trace(
    ray: EmbeddedCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.1.2.3:6379")  # another cluster, which this one must not turn to
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another's")
    again = EmbeddedCluster(tmp_path / "data")
    with ThreadPoolExecutor() as threads:  # two at once start one head
        cluster, other = threads.map(EmbeddedCluster.ensure, (ray, again))
    assert cluster == other
    assert again.running() == cluster
    assert again.ensure() == cluster

    assert httpx2.get(f"{cluster.jobs_url}/api/version").status_code == 401
    assert httpx2.get(f"{cluster.jobs_url}/api/version", headers={"Authorization": "Bearer x"}).status_code == 403
    for name in ("ray.json", "ray.token"):
        assert stat.S_IMODE((tmp_path / "data" / name).stat().st_mode) == 0o600
    assert cluster.token == cluster.token_path.read_text()

    state, output = run_job(
        cluster,
        tmp_path,
        """
        import service  # the project's own packages are there
        import ray
        ray.init(logging_level="ERROR")
        @ray.remote
        def add(a, b):
            return a + b
        print("sum", ray.get(add.remote(19, 23)), ray.get_runtime_context().gcs_address)
        """,
    )
    assert state == "SUCCEEDED", output
    assert f"sum 42 {cluster.gcs_address}" in output
    if sys.platform == "linux":
        assert {address for address, _ in listening(cluster)} == {"127.0.0.1"}

    again.stop()
    assert ray.running() is None
    assert not (tmp_path / "data" / "ray.json").exists()
    assert eventually(lambda: not processes(cluster), seconds=30)  # workers notice within seconds that Ray is gone


def test_a_head_that_dies_while_starting_is_reported_by_what_it_printed_last(
    ray: EmbeddedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OBJECT_STORE_BYTES", -1)  # Ray refuses it
    with pytest.raises(SecateurError, match=r"local Ray ended while starting: .*-1.*ray\.log"):
        ray.ensure()
    assert ray.running() is None


def test_a_head_that_never_answers_is_given_up_and_stopped(
    ray: EmbeddedCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = tmp_path / "silent"
    silent.write_text(f"#!{sys.executable}\nimport time\nprint('thinking', flush=True)\ntime.sleep(600)\n")
    silent.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(silent))
    monkeypatch.setattr(module, "START_SECONDS", 2.0)
    with pytest.raises(SecateurError, match=r"did not start in 2 s: .*ray\.log"):
        ray.ensure()
    assert not (tmp_path / "data" / "ray.json").exists()


DYING_HEAD = """
import pathlib, socket, sys, time
options = dict(word.split("=", 1) for word in sys.argv if "=" in word)
with socket.create_server(("127.0.0.1", int(options["--port"]))) as control:
    control.accept()
    if PART == "raylet":
        path = pathlib.Path(options["--temp-dir"], "session_1", "sockets", "raylet")
        path.parent.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as raylet:
            raylet.bind(str(path))
            raylet.listen()
            for _ in range(2):  # looks later it has been seen
                control.accept()
        print("it is gone", flush=True)
        time.sleep(600)
print("it is gone", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("part", ["gcs", "raylet"])
def test_a_head_of_which_a_process_dies_while_it_starts_is_given_up_at_once(
    ray: EmbeddedCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """As ``ray start`` does, this one goes on, though what it started has taken connections and is gone."""
    if part == "raylet" and not Path("/proc/net/unix").exists():
        pytest.skip("tells of sockets on Linux alone")
    head = tmp_path / "head"
    head.write_text(f"#!{sys.executable}\nPART = {part!r}\n{DYING_HEAD}")
    head.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(head))
    with pytest.raises(SecateurError, match=r"ended while starting: it is gone"):
        ray.ensure()
    assert not (tmp_path / "data" / "ray.json").exists()


def test_stop_without_a_head_does_nothing(tmp_path: Path) -> None:
    EmbeddedCluster(tmp_path / "data").stop()
    assert EmbeddedCluster(tmp_path / "data").running() is None
    assert not (tmp_path / "data").exists()


def test_a_record_whose_head_is_gone_is_not_believed(ray: EmbeddedCluster, tmp_path: Path) -> None:
    """Its process id may long be another's: that process must be left alone."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ray.json").write_text(
        f'{{"pid": {os.getpid()}, "jobs_url": "http://127.0.0.1:9", "agent_url": "http://127.0.0.1:9",'
        f' "gcs_address": "127.0.0.1:9", "folder": "{tmp_path / "old"}"}}'
    )
    assert ray.running() is None
    ray.stop()
    assert not (tmp_path / "data" / "ray.json").exists()


def run_job(cluster: Cluster, folder: Path, source: str) -> tuple[str, str]:
    """Runs a script through the Jobs API, as the dispatcher does; its final state and what it printed."""
    script = folder / "job.py"
    script.write_text(textwrap.dedent(source))
    headers = {"Authorization": f"Bearer {cluster.token}"}
    with httpx2.Client(base_url=cluster.jobs_url, headers=headers, timeout=30) as client:
        body = {"entrypoint": f"{sys.executable} {script}", "submission_id": "test-1"}
        client.post("/api/jobs/", json=body).raise_for_status()

        def state() -> str:
            return str(client.get("/api/jobs/test-1").raise_for_status().json()["status"])

        assert eventually(lambda: state() in {"SUCCEEDED", "FAILED", "STOPPED"}, seconds=120)
        return state(), client.get("/api/jobs/test-1/logs").json()["logs"]


def processes(cluster: Cluster) -> list[int]:
    """Every process that was started with this cluster's token (Linux; elsewhere none is found)."""
    mark = f"RAY_AUTH_TOKEN_PATH={cluster.token_path}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:  # it ended meanwhile, or is another user's
            continue
    return found


def listening(cluster: Cluster) -> set[tuple[str, int]]:
    """The addresses on which the cluster's processes accept connections."""
    inodes = set()
    for pid in processes(cluster):
        for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                inodes.add(os.readlink(descriptor))
            except OSError:
                continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:  # 0A: listening
                address, port = fields[1].split(":")
                word = bytes.fromhex(address[-8:])[::-1]  # the IPv4 part, little-endian; IPv4-mapped under tcp6
                found.add((".".join(map(str, word)), int(port, 16)))
    return found


def eventually(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
