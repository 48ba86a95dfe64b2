"""A job followed to its end."""

from __future__ import annotations

from typing import Any, Protocol
from urllib.parse import quote

from service.client.connection import Connection, ServerUnreachable
from service.texts import ENDED

POLL_SECONDS = 1.0  # trials take about as long at the least, and one request costs the server milliseconds
_OUTAGE_POLLS = 40  # in a row without an answer, each 3.5 s of retries: a server may restart within two minutes


class Display(Protocol):
    """Shows a job's progress."""

    def show(self, job: dict[str, Any]) -> None:
        """The job as it is now."""

    def close(self) -> None:
        """There is no more to show."""


async def follow(connection: Connection, job_id: str, display: Display | None) -> dict[str, Any]:
    """Shows a job again and again until it has ended, and returns its JSON then. Outlives a restart of the server."""
    silent = 0
    job: dict[str, Any] | None = None
    try:
        while True:
            try:
                job = await connection.json("GET", f"/jobs/{quote(job_id, safe='')}")
                silent = 0
            except ServerUnreachable:
                silent += 1
                if job is None or silent >= _OUTAGE_POLLS:
                    raise
            if display is not None and not silent:
                display.show(job)
            if job["state"] in ENDED:
                return job
            await connection.line.pause(POLL_SECONDS)
    finally:
        if display is not None:
            display.close()
