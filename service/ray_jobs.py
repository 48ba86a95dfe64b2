"""Ray's Jobs API over HTTP: submit, look, stop. No Ray is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx2

from service.problems import Unavailable

_SECONDS = 60.0  # Ray looks for an agent for up to 30 s before it takes a job; a busy head answers after several

ALIVE = frozenset({"PENDING", "RUNNING"})
"""Ray's statuses of a job that has not ended."""


class RayUnavailable(Unavailable):
    """Ray does not answer, or not sensibly; jobs wait until it does."""


class RayRefused(Unavailable):
    """Ray will not take this job, now or later."""


@dataclass(frozen=True)
class RayJob:
    """A job as Ray sees it: ``PENDING``, ``RUNNING``, ``STOPPED``, ``SUCCEEDED`` or ``FAILED``, and why."""

    status: str
    message: str


class RayJobs:
    """A client of one cluster's Jobs API.

    Args:
        url: the dashboard's, ``http://127.0.0.1:8265``.
        token: Ray's, if it asks for one.
        transport: for tests.
    """

    def __init__(self, url: str, token: str | None, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx2.AsyncClient(base_url=url, headers=headers, timeout=_SECONDS, transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def check(self) -> None:
        """Raises ``RayUnavailable`` unless Ray answers."""
        await self._call("GET", "/api/version")

    async def submit(
        self, submission_id: str, entrypoint: str, environment: Mapping[str, str], metadata: Mapping[str, str]
    ) -> None:
        """Starts a job; one that Ray knows already is left as it is.

        Raises:
            RayRefused: Ray says that the request is wrong.
            RayUnavailable: it did not answer, or failed.
        """
        body = {
            "entrypoint": entrypoint,
            "submission_id": submission_id,
            "runtime_env": {"env_vars": dict(environment)} if environment else {},
            "metadata": dict(metadata),
        }
        response = await self._call("POST", "/api/jobs/", body, may_be=(400, 500))
        if response.is_success or await self.find(submission_id) is not None:
            return
        said = _last_line(response.text)
        if response.status_code == 400 or "status code 400" in response.text:  # the head wraps its agent's 400 in a 500
            raise RayRefused(f"Ray refused the job: {said}")
        raise RayUnavailable(f"Ray could not take the job: {said}")

    async def find(self, submission_id: str) -> RayJob | None:
        """How a job is; ``None`` if Ray does not know it."""
        response = await self._call("GET", f"/api/jobs/{submission_id}", may_be=(404,))
        if response.status_code == 404:
            return None
        found = response.json()
        return RayJob(status=found["status"], message=found.get("message") or "")

    async def stop(self, submission_id: str) -> None:
        """Asks a job's process to end; one that Ray does not know needs no end."""
        await self._call("POST", f"/api/jobs/{submission_id}/stop", may_be=(404,))

    async def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, may_be: tuple[int, ...] = ()
    ) -> httpx2.Response:
        try:
            response = await self._client.request(method, path, json=body)
        except httpx2.HTTPError as error:
            raise RayUnavailable(f"Ray does not answer at {self._client.base_url} ({type(error).__name__}).") from error
        if response.status_code in (401, 403):
            raise RayUnavailable(f"Ray at {self._client.base_url} refuses our token; set SECATEUR_RAY_AUTH_TOKEN.")
        if response.is_error and response.status_code not in may_be:
            raise RayUnavailable(f"Ray answered {response.status_code} to {method} {path}: {_last_line(response.text)}")
        return response


def _last_line(text: str) -> str:
    """Of a trace, the line that says what happened."""
    lines = text.strip().splitlines()
    return lines[-1][:300] if lines else "no reason given"
