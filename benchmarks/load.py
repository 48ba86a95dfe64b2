"""What one service bears while a job runs beside it: ``make bench-load``.

start   seconds from the command to the first answer, and of ``secateur --help``
calls   GET /jobs/{id} with a user's key, so many a second whatever becomes of them; each call's time counts from the moment
        when it was due, so that a slow answer does not hide those that had to wait for it
memory  of the API's process, resident, over many calls made as fast as a few connections go
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvloop

from benchmarks.scratch import scratch
from service.client import Client
from service.demo.tour import serving
from tests.digits import digits

CONNECTIONS = 16  # kept open, as a page or a proxy does
SAMPLES = 10  # of memory
MIB = 2**20
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rate", type=int, default=200, help="calls a second")
    parser.add_argument("--seconds", type=int, default=60, help="of such calls")
    parser.add_argument("--calls", type=int, default=100_000, help="while memory is looked at")
    parsed = parser.parse_args()
    show(load_before=os.getloadavg())
    with scratch("secateur-load-") as folder:
        show(first_answer_s=[first_answer(folder / f"start-{number}") for number in range(3)])
        show(help_s=[seconds_of([sys.executable, "-m", "service.cli", "--help"]) for _ in range(5)])
        with serving(folder / "data", requests_per_second="100000") as admin:
            key = admin.create_key("alice")["key"]
            with Client(admin.url, key) as client:
                job = running_job(client, digits(folder))
                api = ApiProcess(admin.url)
                target = Target(admin.url, key, f"/jobs/{job}")
                show(calls=uvloop.run(at_a_rate(target, api, parsed.rate, parsed.seconds)))
                for _ in range(SAMPLES):
                    show(memory=uvloop.run(many(target, api, parsed.calls // SAMPLES)))
                ended = client.job(job)
                show(trials=ended["progress"]["finished"], state=ended["state"], load_after=os.getloadavg())


def show(**figures: Any) -> None:
    """One line of JSON."""
    print(json.dumps(figures), flush=True)


def first_answer(data_dir: Path) -> float:
    """Seconds from the command to the first answer of a service on an empty folder."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    command = [sys.executable, "-m", "service.cli", "serve", "--port", str(port), "--data-dir", str(data_dir)]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
                    line.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    if line.recv(12) == b"HTTP/1.1 200":
                        break
            except OSError:
                time.sleep(0.01)
        seconds = time.perf_counter() - began
        process.send_signal(signal.SIGINT)
        process.wait()
    return round(seconds, 3)


def seconds_of(command: Sequence[str]) -> float:
    """How long a command takes."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return round(time.perf_counter() - began, 3)


def running_job(client: Client, files: tuple[Path, Path]) -> str:
    """A job with some finished trials, and more to come than this takes."""
    uploads = {"model": client.upload_model(files[0])["id"], "dataset": client.upload_dataset(files[1])["id"]}
    spec = {"budget": {"ratio": 0.5}, "searcher": {"name": "random"}, "limits": {"max_trials": 9000}}
    job: str = client.create_job({**uploads, **spec})["id"]
    while client.job(job)["progress"]["finished"] < 10:
        time.sleep(0.5)
    return job


class ApiProcess:
    """The process that answers at an address."""

    def __init__(self, url: str) -> None:
        port = f"--port\0{urlsplit(url).port}\0".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # a process that has ended meanwhile
                if port in (folder / "cmdline").read_bytes():
                    self._folder = folder

    def mib(self) -> float:
        """Its resident memory."""
        found = re.search(r"VmRSS:\s+(\d+) kB", (self._folder / "status").read_text())
        assert found
        return round(int(found[1]) * 1024 / MIB, 1)

    def cpu_seconds(self) -> float:
        """What it has used of processors."""
        fields = (self._folder / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


class Target:
    """``GET`` of a path, as bytes: a client like httpx takes as much of a processor as the service."""

    def __init__(self, url: str, key: str, path: str) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname, parts.port
        head = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {key}\r\n\r\n"
        self.request = head.encode()

    @asynccontextmanager
    async def line(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            yield reader, writer
        finally:
            writer.close()

    async def call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        """The status of an answer."""
        writer.write(self.request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        assert length
        await reader.readexactly(int(length[1]))
        return int(head[9:12])


async def at_a_rate(target: Target, api: ApiProcess, rate: int, seconds: int) -> dict[str, Any]:
    """Calls at a rate: how long they took from when they were due, and how many failed."""
    due: asyncio.Queue[float | None] = asyncio.Queue()
    milliseconds: list[float] = []
    errors = 0

    async def caller() -> None:
        nonlocal errors
        async with target.line() as (reader, writer):
            while (moment := await due.get()) is not None:
                errors += await target.call(reader, writer) != 200
                milliseconds.append(1000 * (time.perf_counter() - moment))

    callers = [asyncio.create_task(caller()) for _ in range(CONNECTIONS)]
    used, own, began = api.cpu_seconds(), time.process_time(), time.perf_counter()
    for number in range(rate * seconds):
        moment = began + number / rate
        await asyncio.sleep(max(0.0, moment - time.perf_counter()))
        due.put_nowait(moment)
    for _ in callers:
        due.put_nowait(None)
    await asyncio.gather(*callers)
    percentiles = statistics.quantiles(milliseconds, n=1000)
    return {
        "rate": rate,
        "calls": len(milliseconds),
        "errors": errors,
        **{f"p{share}_ms": round(percentiles[int(share * 10) - 1], 1) for share in (50, 90, 99, 99.9)},
        "most_ms": round(max(milliseconds), 1),
        "cpu_ms_a_call": round(1000 * (api.cpu_seconds() - used) / len(milliseconds), 2),
        "own_cpu_ms_a_call": round(1000 * (time.process_time() - own) / len(milliseconds), 2),
    }


async def many(target: Target, api: ApiProcess, calls: int) -> dict[str, Any]:
    """Calls as fast as they go; memory afterwards."""
    left, errors = calls, 0

    async def caller() -> None:
        nonlocal left, errors
        async with target.line() as (reader, writer):
            while left > 0:
                left -= 1
                errors += await target.call(reader, writer) != 200

    before, used, began = api.mib(), api.cpu_seconds(), time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CONNECTIONS)))
    rate = calls / (time.perf_counter() - began)
    return {
        "calls": calls,
        "errors": errors,
        "mib_before": before,
        "mib_after": api.mib(),
        "calls_a_second": round(rate),
        "cpu_ms_a_call": round(1000 * (api.cpu_seconds() - used) / calls, 2),
    }


if __name__ == "__main__":
    main()
