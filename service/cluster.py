"""The Ray of a server that was given none: a head node on this machine, started as a child and found again later.

The head leads its own session, so it outlives the API process that started it, and with it every running job. What a
later process needs to find it lies in the data folder:

    ray.json    where it listens and its process group; written whole or not at all
    ray.token   the secret without which it answers nobody
    ray.alive   a lock that the head holds as long as it lives: unlike a process id it cannot be mistaken for another's
    ray.lock    held while one process starts or stops a head, so that two never do
    ray.log     what the head printed

Every port is free when chosen and on loopback, so other Rays on the machine are neither met nor disturbed. Ray is only
started here, never imported.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx2
import structlog

from pruners.errors import SecateurError

log = structlog.get_logger(__name__)

START_SECONDS = 120.0  # a head takes 5 to 25 s on an idle machine; loaded ones need several times that
CONTROL_SECONDS = 30.0  # of these for its control process to take connections, which it does after two
STOP_SECONDS = 10.0  # Ray's processes were gone 3 s after SIGTERM with two tasks running
IDLE_STOP_SECONDS = 1.5  # with none, there is nothing to lose, and a service that ends is to be gone within 5 s
_ANSWER_SECONDS = 10.0  # for one request to a dashboard on a loaded machine
_POLL_SECONDS = 0.2
_REPORT_SECONDS = 10.0  # between two lines that say the start is still going on

OBJECT_STORE_BYTES = 2**30
"""What trials share without copying: a job's data set. CIFAR-10's training images take 614 MB as float32; more spills to
disk. Ray's own choice would be 30 % of the machine's memory, which the trials' networks need."""


@dataclass(frozen=True)
class Cluster:
    """A Ray that answers.

    Attributes:
        jobs_url: of the dashboard and its Jobs API, ``http://127.0.0.1:PORT``.
        gcs_address: ``127.0.0.1:PORT``; Ray hands it to the jobs it runs as ``RAY_ADDRESS``.
        token: to be sent as ``Authorization: Bearer TOKEN``.
        token_path: the file that holds it, readable by its owner alone.
    """

    jobs_url: str
    gcs_address: str
    token: str
    token_path: Path


@dataclass(frozen=True)
class _Head:
    """What ray.json holds: the leader of the head's process group, its addresses, its folder of logs and sockets."""

    pid: int
    jobs_url: str
    agent_url: str
    gcs_address: str
    folder: str


class EmbeddedCluster:
    """The head that belongs to one data folder.

    Args:
        data_dir: where its files lie; created if missing.
    """

    def __init__(self, data_dir: Path) -> None:
        self._dir = data_dir.resolve()
        self._record_path = self._dir / "ray.json"
        self._token_path = self._dir / "ray.token"
        self._log_path = self._dir / "ray.log"

    def ensure(self) -> Cluster:
        """The living head, or a new one, once its Jobs API takes jobs.

        Raises:
            SecateurError: the head died or did not answer within 120 s; says what it printed last.
        """
        with self._exclusively():
            head = self._head()
            if head is None or not self._alive(head):
                self._stop()
                head = self._start()
            self._wait(head)
            return self._cluster(head)

    def running(self) -> Cluster | None:
        """The living head if it answers now, else ``None``."""
        head = self._head()
        if head is None or not self._alive(head) or not self._answers(head):
            return None
        return self._cluster(head)

    def stop(self, patience: float = STOP_SECONDS) -> None:
        """Ends the head and every job on it, by force once ``patience`` is over; does nothing where none is alive."""
        if self._dir.exists():
            with self._exclusively():
                self._stop(patience)

    def _start(self) -> _Head:
        """Starts a head and records it at once, so that it is found again even if this process dies now."""
        # Not in the data folder: the path of a Unix socket ends at 104 characters on macOS and 108 on Linux, and Ray adds
        # over 60 of its own. Ray opens its folder to everybody, hence one more level that stays ours.
        folder = Path(tempfile.mkdtemp(prefix="secateur-", dir="/tmp"))
        gcs, jobs, agent, client = _free_ports(4)
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--log-color=false"),
            *("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1"),
            *(f"--port={gcs}", f"--dashboard-port={jobs}"),
            *(f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}"),
            *("--min-worker-port=0", "--max-worker-port=0"),  # 0: whatever is free, not 10002 to 19999
            *(f"--object-store-memory={OBJECT_STORE_BYTES}", f"--temp-dir={folder / 'ray'}"),
        ]
        pid = self._spawn(command)
        urls = f"http://127.0.0.1:{jobs}", f"http://127.0.0.1:{agent}"
        head = _Head(pid, *urls, gcs_address=f"127.0.0.1:{gcs}", folder=str(folder))
        self._write_record(head)
        log.info("ray.starting", pid=pid, jobs_url=head.jobs_url, log=str(self._log_path))
        return head

    def _spawn(self, command: list[str]) -> int:
        """Starts ``command`` in a session of its own, holding ``ray.alive``, printing to ``ray.log``; its process id."""
        with (
            open(self._dir / "ray.alive", "w") as alive,
            open(self._log_path, "w") as output,
            open(os.devnull) as nothing,
        ):
            fcntl.flock(alive, fcntl.LOCK_EX)
            os.set_inheritable(alive.fileno(), True)
            redirect = [(os.POSIX_SPAWN_DUP2, *pair) for pair in ((nothing.fileno(), 0), (output.fileno(), 1), (1, 2))]
            return os.posix_spawn(command[0], command, self._environment(), file_actions=redirect, setsid=True)

    def _environment(self) -> dict[str, str]:
        """This process's environment, which jobs inherit, with the settings of our own Ray and of no other."""
        others = {"RAY_ADDRESS", "RAY_AUTH_TOKEN"}
        return {name: value for name, value in os.environ.items() if name not in others} | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self._token_path),
            # Ray 2.60 replaces 127.0.0.1 by the machine's public address, and then listens on all of them, unless told
            # that this system has no clusters of several nodes.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_raylet_start_wait_time_s": f"{START_SECONDS:.0f}",
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # by default running tasks keep a stopped head alive for 30 s
        }

    def _wait(self, head: _Head) -> None:
        """Returns when the head takes jobs; stops it and raises if that does not come to pass."""
        started = reported = time.monotonic()
        begun: set[str] = set()
        while not self._answers(head):
            now = time.monotonic()
            found = {"gcs": _listens(head.gcs_address), "raylet": _has_raylet(head.folder)}
            living = {name for name, lives in found.items() if lives}
            # `ray start` itself would wait for a minute and more for one of its processes that died under it.
            dead = begun - living or ("gcs" not in living and now - started > CONTROL_SECONDS)
            if dead or not self._alive(head):
                self._stop()
                raise SecateurError(f"The local Ray ended while starting: {self._last_line()}")
            begun |= living
            if now - started > START_SECONDS:
                self._stop()
                raise SecateurError(f"The local Ray did not start in {START_SECONDS:.0f} s: {self._last_line()}")
            if now - reported > _REPORT_SECONDS:
                reported = now
                log.info("ray.waiting", seconds=round(now - started), latest=self._last_line())
            time.sleep(_POLL_SECONDS)
        log.info("ray.ready", pid=head.pid, jobs_url=head.jobs_url, seconds=round(time.monotonic() - started, 1))

    def _answers(self, head: _Head) -> bool:
        """Whether the dashboard knows our token and the agent, to which it passes jobs on, is up too."""
        version, agent = f"{head.jobs_url}/api/version", f"{head.agent_url}/api/local_raylet_healthz"
        headers = {"Authorization": f"Bearer {self._token()}"}
        try:
            # A proxy named in the environment must not see loopback requests.
            with httpx2.Client(headers=headers, timeout=_ANSWER_SECONDS, trust_env=False) as client:
                return client.get(version).is_success and client.get(agent).is_success
        except httpx2.TransportError:
            return False

    def _stop(self, patience: float = STOP_SECONDS) -> None:
        """Ends the recorded head, if any, and clears away what it leaves."""
        head = self._head()
        if head is None:
            return
        if self._alive(head):
            _signal_group(head.pid, signal.SIGTERM)
            if not _within(patience, lambda: not self._alive(head)):
                _signal_group(head.pid, signal.SIGKILL)
                _within(STOP_SECONDS, lambda: not self._alive(head))
            log.info("ray.stopped", pid=head.pid)
        shutil.rmtree(head.folder, ignore_errors=True)
        self._record_path.unlink(missing_ok=True)

    def _alive(self, head: _Head) -> bool:
        """Whether a head holds ``ray.alive``; one that was our child and died is reaped on the way."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(head.pid, os.WNOHANG)
        try:
            with open(self._dir / "ray.alive") as alive:
                fcntl.flock(alive, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    @contextlib.contextmanager
    def _exclusively(self) -> Iterator[None]:
        """Waits until no other process starts or stops this folder's head."""
        self._dir.mkdir(parents=True, exist_ok=True)
        with open(self._dir / "ray.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _head(self) -> _Head | None:
        try:
            return _Head(**json.loads(self._record_path.read_text()))
        except FileNotFoundError:
            return None

    def _write_record(self, head: _Head) -> None:
        partial = self._record_path.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        _write_private(partial, json.dumps(asdict(head), indent=2))
        partial.replace(self._record_path)

    def _token(self) -> str:
        """The folder's token, made on first use."""
        with contextlib.suppress(FileExistsError):
            _write_private(self._token_path, secrets.token_hex(32))  # 256 bits, as Ray's own generator
        return self._token_path.read_text()

    def _cluster(self, head: _Head) -> Cluster:
        return Cluster(head.jobs_url, head.gcs_address, self._token(), self._token_path)

    def _last_line(self) -> str:
        lines = [line for line in self._log_path.read_text(errors="replace").splitlines() if line.strip()]
        return f"{lines[-1].strip()} ({self._log_path})" if lines else f"it printed nothing ({self._log_path})"


def _free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [taken.getsockname()[1] for taken in sockets]


def _listens(address: str) -> bool:
    """Whether somebody takes connections at ``HOST:PORT`` of this machine."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()
    except OSError:
        return False
    return True


def _has_raylet(folder: str) -> bool:
    """Whether a raylet listens on its socket below a head's folder, as Linux tells; elsewhere it is never seen."""
    try:
        sockets = Path("/proc/net/unix").read_text()
    except OSError:
        return False
    return any(f" {folder}/" in line and line.endswith("/sockets/raylet") for line in sockets.splitlines())


def _write_private(path: Path, text: str) -> None:
    """Writes a new file that its owner alone may read; ``FileExistsError`` if there is one."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _signal_group(leader: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, number)


def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True
