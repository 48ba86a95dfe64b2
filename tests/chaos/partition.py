"""Two Ray nodes on machines of their own, and the line between them cut for a minute: ``sudo make partition``.

    python -m tests.chaos.partition --seconds 60

The machines are network namespaces of Linux with a bridge between them, which takes root. The head's runs the service, the
job's process and one trial at a time; the worker's runs one trial at a time. What ends there is started again, as a supervisor
would. The line is cut once both have finished trials. The job must succeed with every trial told once, and both nodes must
have run some of its trials after the line was back.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pruners.errors import SecateurError
from service.client import Client
from service.client.progress import ENDED
from tests.chaos.run import outcome, submit
from tests.digits import digits

NODES = {"head": "10.203.7.1", "worker": "10.203.7.2"}
BRIDGE, BRIDGE_ADDRESS = "secateur-br", "10.203.7.254"
WAIT_SECONDS = 900.0  # for anything that is to come to pass; a crowded machine takes minutes to start a Ray
POLL_SECONDS = 2.0

# Ray is started again for as long as this shell lives, and ends with it.
_AGAIN = 'trap "kill 0" TERM; while true; do "$@" & wait $!; sleep 1; done'


def main() -> int:
    parser = argparse.ArgumentParser(description="Cuts the line between two Ray nodes while a job runs.")
    parser.add_argument("--seconds", type=float, default=60.0, help="for which the line is cut")
    parser.add_argument("--trials", type=int, default=1500)
    parsed = parser.parse_args()
    if os.geteuid() != 0 or shutil.which("ip") is None:
        sys.exit("Network namespaces take root and the command 'ip' (iproute2).")
    with tempfile.TemporaryDirectory(prefix="secateur-") as folder, network(), cluster(Path(folder)) as client:
        return watched(client, Path(folder), parsed.seconds, parsed.trials)


def watched(client: Client, folder: Path, seconds: float, trials: int) -> int:
    job = submit(client, digits(folder), {"searcher": {"name": "random"}}, trials)
    wait_for("both nodes have finished trials", lambda: all(by_node(client, job)[node] >= 3 for node in NODES))
    before = by_node(client, job)
    say(f"cut, after trials on {dict(before)}")
    line("down")
    time.sleep(seconds)
    during = by_node(client, job)
    line("up")
    say(f"back after {seconds:.0f} s, with trials on {dict(during)}")
    wait_for("the job has ended", lambda: client.job(job)["state"] in ENDED)
    found, after = outcome(client, job), by_node(client, job)
    lost = sum(len(trial["losses"]) for trial in client.trials(job))
    say(f"{found['state']}, trials on {dict(after)}, {lost} losses, attempt {client.job(job)['links']['ray'][-1]}")
    told_once = sorted(found["told"]) == list(range(trials)) and set(found["told"].values()) == {1}
    back = all(after[node] > during[node] for node in NODES)
    say(f"every trial told once: {told_once}; both nodes at work again: {back}")
    return 0 if found["state"] == "succeeded" and told_once and back else 1


@contextmanager
def network() -> Iterator[None]:
    """The namespaces, a line from each to the bridge, and the bridge's own address, by which this process reaches them."""
    ip("link", "add", BRIDGE, "type", "bridge")
    try:
        ip("addr", "add", f"{BRIDGE_ADDRESS}/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        for node, address in NODES.items():
            ip("netns", "add", space(node))
            ip("link", "add", wire(node), "type", "veth", "peer", "name", "eth0", "netns", space(node))
            ip("link", "set", wire(node), "master", BRIDGE, "up")
            ip("-n", space(node), "addr", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                ip("-n", space(node), "link", "set", device, "up")
        yield
    finally:
        for command in [("netns", "del", space(node)) for node in NODES] + [("link", "del", BRIDGE)]:
            subprocess.run(["ip", *command], check=False)


@contextmanager
def cluster(folder: Path) -> Iterator[Client]:
    """The service and both nodes."""
    token, rays = secrets.token_hex(32), secrets.token_hex(32)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SECATEUR_", "RAY_"))}
    clean["PATH"] = f"{Path(sys.executable).parent}:{clean['PATH']}"
    ray = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": rays, "RAY_USAGE_STATS_ENABLED": "0"}
    ours = {"SECATEUR_DATA_DIR": str(folder / "data")}
    head, worker = NODES["head"], NODES["worker"]
    one = ("--num-cpus=1", "--object-store-memory=200000000", "--log-color=false")
    start = ("ray", "start", "--block", *one)
    at_head = ("--head", f"--node-ip-address={head}", "--port=6379", f"--dashboard-host={head}", f"--temp-dir={folder / 'ray'}")
    url = f"http://{head}:8000"
    running = [
        begin("head", folder, clean | ray | ours, *start, *at_head),
        begin("worker", folder, clean | ray, *start, f"--address={head}:6379", f"--node-ip-address={worker}"),
        begin(
            *("head", folder, clean | ours | {"SECATEUR_TOKEN": token, "SECATEUR_RAY_AUTH_TOKEN": rays}),
            *("secateur", "serve", "--host", head, "--port", "8000", "--ray-address", f"http://{head}:8265"),
        ),
    ]
    try:
        with Client(url, token) as client:

            def serves() -> bool:
                next(client.jobs(), None)
                return True

            wait_for("the service answers", serves)
            yield client
    finally:
        for process in running:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def begin(node: str, folder: Path, environment: Mapping[str, str], *command: str) -> subprocess.Popen[bytes]:
    """Runs a command on a node, under that node's name, and again whenever it ends; its output goes to a file."""
    there = ["ip", "netns", "exec", space(node), "unshare", "--uts", "sh", "-c", f"hostname {node}; {_AGAIN}", "sh", *command]
    with (folder / f"{node}-{command[0]}.log").open("ab") as log:
        return subprocess.Popen(there, stdout=log, stderr=log, env=environment, start_new_session=True)


def by_node(client: Client, job: str) -> Counter[str]:
    """How many trials each node has finished."""
    return Counter(trial["worker"]["node"] for trial in client.trials(job) if trial["worker"])


def wait_for(what: str, come: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        with suppress(SecateurError):
            if come():
                return
        time.sleep(POLL_SECONDS)
    raise TimeoutError(f"not within {WAIT_SECONDS:.0f} s: {what}")


def line(state: str) -> None:
    """Cuts the worker's line, or mends it."""
    ip("link", "set", wire("worker"), state)


def space(node: str) -> str:
    return f"secateur-{node}"


def wire(node: str) -> str:
    return f"secateur-{node[:4]}"  # names of devices end at 15 characters


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def say(text: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
