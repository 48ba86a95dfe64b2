"""A server that speaks the REST contract over real sockets, with scripted answers: no database, no Ray."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "the-token"
CHECKPOINT = bytes(range(256)) * 1000

SPEC = {"budget": {"metric": "macs", "ratio": 0.5, "max": None}, "searcher": {"name": "netadapt", "params": {}}}
BASELINE = {
    "trial": None,
    "metric": 0.98,
    "macs": 1_000_000,
    "params": 50_000,
    "size_bytes": 210_000,
    "latency_ms": 1.5,
    "budget_ratio": 1.0,
}
BEST = {**BASELINE, "trial": 7, "metric": 0.97, "macs": 499_000, "params": 21_000, "latency_ms": 0.9, "budget_ratio": 0.499}


def job_json(state: str, finished: int = 0, reason: str | None = None, job_id: str = "job-1", **changes: Any) -> dict[str, Any]:
    """A job as GET /jobs/{id} shows it."""
    done = state == "succeeded"
    progress = {"planned": 10, "finished": finished, "succeeded": finished, "failed": 0, "running": 0}
    best = {"best_score": -0.25 if finished else None, "best_metric": 0.91 if finished else None}
    return {
        "id": job_id,
        "name": "digits [half]",  # brackets: rich must not take them for markup
        "state": state,
        "reason": reason,
        "metric": {"name": "top1", "title": "top-1 accuracy", "better": "higher"},
        "progress": {**progress, **best},
        "baseline": BASELINE if done else None,
        "best": BEST if done else None,
        "spec": SPEC,
        **changes,
    }


def trial_json(number: int) -> dict[str, Any]:
    """A finished trial."""
    outcome = {"score": -0.5, "metric": 0.9, "macs": 500_000, "params": 30_000, "latency_ms": None, "error": None}
    return {
        "number": number,
        "state": "succeeded",
        "note": "round 1: layer1.0.conv1",
        "proposal": {"widths": {"conv1": 8}, "sparsity": {"conv1": 0.5}},
        "outcome": outcome,
        "started_at": "2026-01-31T12:00:00Z",
        "finished_at": "2026-01-31T12:00:01Z",
        "evaluate_seconds": 0.75,
        "worker": {"node": "n", "pid": 1},
        "attempts": 1,
    }


@dataclass
class FakeServer:
    """What it was sent and what it answers.

    Attributes:
        polls: successive answers to GET /jobs/{id}; the last one stays.
        faults: answers given before anything else, one per request: ``(status, headers)``.
        cuts: the checkpoint's body breaks off after so many bytes, one number per request.
    """

    url: str = ""
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    polls: deque[dict[str, Any]] = field(default_factory=lambda: deque([job_json("queued")]))
    faults: deque[tuple[int, dict[str, str]]] = field(default_factory=deque)
    cuts: deque[int] = field(default_factory=deque)
    trials: list[dict[str, Any]] = field(default_factory=lambda: [trial_json(number) for number in range(5)])
    checkpoint: bytes = CHECKPOINT
    etag: str = hashlib.sha256(CHECKPOINT).hexdigest()
    refusal: str = ""
    keys: dict[str, str] = field(default_factory=dict)

    def sent(self, method: str, path: str) -> list[tuple[dict[str, str], bytes]]:
        """Headers (in lower case) and bodies of the requests to a path."""
        return [(headers, body) for m, p, headers, body in self.requests if (m, urlsplit(p).path) == (method, path)]


@contextmanager
def running() -> Iterator[FakeServer]:
    """The server, on a free port."""
    fake = FakeServer()
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"fake": fake}))
    http.daemon_threads = True
    fake.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


_BECOMES = {"cancel": "cancelling", "stop": "stopping", "pause": "pausing", "resume": "queued"}


class _Handler(BaseHTTPRequestHandler):
    fake: FakeServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._handle(self._get)

    def do_POST(self) -> None:
        self._handle(self._post)

    def do_DELETE(self) -> None:
        self._handle(lambda path, _: self._send(204 if path == "/jobs/job-1" else 404, b"", {}))

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""

    def _handle(self, answer: Callable[[str, dict[str, str]], None]) -> None:
        body = self._body()
        self.fake.requests.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        self._sent_body = body
        if self.fake.faults:
            status, headers = self.fake.faults.popleft()
            self._send(status, b"try later", headers)
        elif self.headers.get("authorization") != f"Bearer {TOKEN}":
            self._problem(401, "The token is not this server's; use the one that 'secateur serve' saved.")
        elif self.fake.refusal:
            self._problem(422, self.fake.refusal)
        else:
            url = urlsplit(self.path)
            answer(url.path, {name: values[0] for name, values in parse_qs(url.query).items()})

    def _get(self, path: str, query: dict[str, str]) -> None:
        if path == "/jobs":
            self._json(200, {"items": [self.fake.polls[0]], "next": None})
        elif path == "/jobs/job-1":
            # Taken before it is sent: whoever has the answer may look at what is left.
            self._json(200, self.fake.polls.popleft() if len(self.fake.polls) > 1 else self.fake.polls[0])
        elif path == "/jobs/job-1/trials":
            after = int(query.get("after", -1))
            rows = [trial for trial in self.fake.trials if trial["number"] > after][:2]  # pages of two
            more = rows and rows[-1]["number"] < self.fake.trials[-1]["number"]
            self._json(200, {"items": rows, "next": str(rows[-1]["number"]) if more else None})
        elif path == "/jobs/job-1/checkpoint":
            self._file()
        elif path in ("/searchers", "/pruners"):
            params = {"properties": {"steps": {"type": "integer", "default": 3, "description": "How many."}}}
            item = {"name": "l1", "description": "Sums.", "reference": "Li et al., " + "Pruning Filters " * 8, "params": params}
            self._json(200, {"items": [item], "next": None})
        else:
            self._problem(404, f"There is nothing at {path}; /docs lists the calls.")

    def _post(self, path: str, query: dict[str, str]) -> None:
        if path in ("/models", "/datasets"):
            digest = hashlib.sha256(self._sent_body).hexdigest()
            self._json(201, {"id": f"{path[1:-1]}-{digest[:8]}", "name": query.get("name"), "sha256": digest})
        elif path == "/jobs" and query.get("dry_run") == "true":
            self._json(
                200,
                {
                    "metric": "macs",
                    "dense": 1000,
                    "limit": 500,
                    "least": 10,
                    "planned_trials": 9,
                    "given_trials": 2,
                    "groups": [],
                },
            )
        elif path == "/jobs":
            made = self.fake.keys.setdefault(self.headers["idempotency-key"], f"job-{len(self.fake.keys) + 1}")
            self._json(202, job_json("queued", job_id=made))
        elif path.removeprefix("/jobs/job-1/") in _BECOMES:
            self._json(202, job_json(_BECOMES[path.removeprefix("/jobs/job-1/")]))
        else:
            self._problem(404, f"There is no job {path!r}.")

    def _file(self) -> None:
        etag = f'"{self.fake.etag}"'
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", ""))
        start = int(wanted[1]) if wanted and self.headers.get("if-range") == etag else 0
        if start >= len(self.fake.checkpoint):
            self._send(416, b"", {"Content-Range": f"bytes */{len(self.fake.checkpoint)}"})
            return
        content = self.fake.checkpoint[start:]
        self.send_response(206 if start else 200)
        self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.fake.cuts:
            content = content[: self.fake.cuts.popleft()]
            self.close_connection = True
        self.wfile.write(content)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def _json(self, status: int, document: Any) -> None:
        self._send(status, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def _problem(self, status: int, detail: str) -> None:
        self._send(
            status, json.dumps({"status": status, "detail": detail}).encode(), {"Content-Type": "application/problem+json"}
        )

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
