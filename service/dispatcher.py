"""Hands queued jobs to Ray, one process each, and starts another where a job's process is lost.

It keeps nothing in memory that matters: each round starts from the rows and from what Ray says, so it can be killed at
any moment and go on. A ``starting`` job that Ray does not know and that no process has claimed was not submitted yet; any other
job whose process Ray does not know, knows to have ended without a result, or that has not been heard of for longer than its
lease, has lost it: its next attempt goes on from what is on record.

Several services may share a database. Those that use the same Ray look after the same attempts, and whatever one of them does,
the others find done; an attempt on another Ray is left alone until its lease is over.
"""

from __future__ import annotations

import asyncio
import shlex
import socket
import sys
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

import structlog
from sqlalchemy import make_url

from pruners.errors import SecateurError
from service.database import Database
from service.database.tables import Attempt, Job, utc_now
from service.heartbeat import BEAT_SECONDS, LEASE_SECONDS
from service.jobs.folders import clear_folders
from service.jobs.repository import JobRepository
from service.jobs.states import UNWANTED, State
from service.ray_jobs import ALIVE, RayJob, RayJobs, RayRefused
from service.settings import Settings

if TYPE_CHECKING:
    from service.cluster import EmbeddedCluster

POLL_SECONDS = 1.0  # a person watching sees a change within it; a round costs Ray a few milliseconds per live job

FIRST_WORD_SECONDS = 60.0  # from the beginning of an attempt to its process's claim: Ray takes 5 to 20 s to start one

RETRY_SECONDS = 5.0  # between attempts to reach Ray; starting a head node is hard work for a small machine

log = structlog.get_logger()


class Ray(Protocol):
    """Where the jobs run.

    Attributes:
        name: the same for all dispatchers that use this cluster, and no other's.
        dashboard: where people find its dashboard, once that is known.
    """

    name: str
    dashboard: str | None

    async def connect(self) -> RayJobs:
        """A client, Ray being started if it is ours to start; raises ``SecateurError`` if it cannot be."""

    async def close(self, live_jobs: bool) -> None:
        """The service ends."""

    def command(self, job: Job) -> str:
        """The shell command that runs a job's present attempt."""

    def environment(self) -> Mapping[str, str]:
        """Variables for its process."""

    def tidy(self, database: Database) -> None:
        """Deletes what ended jobs left on the disk, where that is ours."""


class RemoteRay:
    """A cluster that somebody else runs: its nodes have Secateur installed and its ``SECATEUR_*`` settings set."""

    def __init__(self, url: str, token: str | None, dashboard: str | None = None) -> None:
        self.name = self._url = url
        self.dashboard: str | None = dashboard or url
        self._token = token

    async def connect(self) -> RayJobs:
        return RayJobs(self._url, self._token)

    async def close(self, live_jobs: bool) -> None:
        """It goes on."""

    def command(self, job: Job) -> str:
        return _command("python", job)

    def environment(self) -> Mapping[str, str]:
        return {}

    def tidy(self, database: Database) -> None:
        """Its disks are not ours: ``secateur gc``, run there, does it."""


class LocalRay:
    """A head node of our own on this machine, which outlives the API while a job needs it."""

    def __init__(self, settings: Settings) -> None:
        self.name = f"{socket.gethostname()}:{settings.data_dir}"
        self.dashboard = settings.ray_dashboard
        self._settings = settings
        self._cluster: EmbeddedCluster | None = None
        self._starting: asyncio.Future[RayJobs] | None = None

    async def connect(self) -> RayJobs:
        self._starting = asyncio.ensure_future(asyncio.to_thread(self._start))
        return await asyncio.shield(self._starting)  # a start that is under way is not abandoned half-way

    async def close(self, live_jobs: bool) -> None:
        if self._starting is not None:
            await asyncio.gather(self._starting, return_exceptions=True)
        if live_jobs:
            log.info("ray_left_running", reason="a job is live; the next start finds it again")
        elif self._cluster is not None:
            from service.cluster import IDLE_STOP_SECONDS

            await asyncio.to_thread(self._cluster.stop, IDLE_STOP_SECONDS)

    def command(self, job: Job) -> str:
        return _command(sys.executable, job)

    def environment(self) -> Mapping[str, str]:
        """Where this service keeps its things. A database password is no part of it, since Ray shows these variables:
        such a URL comes from SECATEUR_DATABASE_URL, which the head node and its jobs inherit."""
        settings = self._settings
        variables = {
            "SECATEUR_DATA_DIR": str(settings.data_dir),
            "SECATEUR_STORE": settings.store_at,
        }
        if make_url(settings.database).password is None:
            variables["SECATEUR_DATABASE_URL"] = settings.database
        return variables

    def tidy(self, database: Database) -> None:
        clear_folders(database, self._settings.data_dir)

    def _start(self) -> RayJobs:
        from service.cluster import EmbeddedCluster

        self._cluster = EmbeddedCluster(self._settings.data_dir)
        cluster = self._cluster.ensure()
        self.dashboard = self._settings.ray_dashboard or cluster.jobs_url
        return RayJobs(cluster.jobs_url, cluster.token)


def make_ray(settings: Settings) -> Ray:
    """The cluster that the settings name, or one of our own."""
    if settings.ray_address is None:
        return LocalRay(settings)
    token = settings.ray_auth_token
    secret = None if token is None else token.get_secret_value()
    return RemoteRay(settings.ray_address, secret, settings.ray_dashboard)


class Dispatcher:
    """The loop between the job rows and Ray.

    Args:
        database: holds the jobs.
        ray: runs them.
        max_running_jobs: of which at most this many at once.
        waited: told how long a job was queued before its first attempt.
        clock: seconds of this process, for tests to turn.

    Attributes:
        problem: why Ray cannot be used at the moment; ``None`` if it can.
    """

    def __init__(
        self,
        database: Database,
        ray: Ray,
        max_running_jobs: int,
        waited: Callable[[timedelta], None] = lambda wait: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._waited = waited
        self._clock = clock
        self.problem: str | None = "Ray is starting."
        self._database = database
        self._jobs = JobRepository(database)
        self._ray = ray
        self._most = max_running_jobs
        self._news = asyncio.Event()
        self._silent: dict[tuple[str, int], float] = {}  # attempts by job and number, and since when they look lost

    def dashboard(self, job: Job) -> str | None:
        """The page of Ray's dashboard about a job's present attempt; for whoever has Ray's token."""
        if self._ray.dashboard is None or job.attempt == 0:
            return None
        return f"{self._ray.dashboard}/#/jobs/{_submission(job)}"

    @property
    def home(self) -> str | None:
        """Ray's dashboard, once it is known where that is; for whoever has Ray's token."""
        return self._ray.dashboard

    def wake(self) -> None:
        """Makes the next round begin at once; to be called in the event loop."""
        self._news.set()

    async def run(self) -> None:
        """Rounds until cancelled; whatever goes wrong in one is said in ``problem`` and tried again."""
        while True:
            try:
                async with await self._ray.connect() as client:
                    await self._rounds(client)
            except SecateurError as error:
                if self.problem != str(error):
                    log.warning("ray_unavailable", reason=str(error))
                self.problem = str(error)
            except Exception:  # the loop must outlive a database that is away for a while
                self.problem = "The dispatcher met an error of its own; the server's log has it."
                log.exception("dispatcher_failed")
            await self._pause(RETRY_SECONDS)

    async def close(self) -> None:
        """Lets Ray go, once ``run`` was cancelled."""
        live = await asyncio.to_thread(self._jobs.live)
        await self._ray.close(live_jobs=bool(live))

    async def round(self, client: RayJobs) -> None:
        """Looks after every live job, then starts queued ones while there is room."""
        await client.check()
        self.problem = None
        live = await asyncio.to_thread(self._jobs.live)
        self._forget({(job.id, job.attempt) for job, _, _ in live})
        await asyncio.to_thread(self._ray.tidy, self._database)
        for job, attempt, silence in live:
            await self._look_after(client, job, attempt, silence.total_seconds())
        room = self._most - len(live)
        if room <= 0:
            return
        for waiting in await asyncio.to_thread(self._jobs.queued, room):
            job_or_none = await asyncio.to_thread(self._jobs.start, waiting.id, self._ray.name, self._most)
            if job_or_none is not None:
                if job_or_none.attempt == 1:
                    self._waited(utc_now() - job_or_none.created_at)
                await self._submit(client, job_or_none)

    async def _rounds(self, client: RayJobs) -> None:
        while True:
            await self.round(client)
            await self._pause(POLL_SECONDS)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), seconds)
        self._news.clear()

    async def _look_after(self, client: RayJobs, job: Job, attempt: Attempt, silence: float) -> None:
        over = self._lease_over(job, attempt, silence)
        if attempt.cluster != self._ray.name:  # another service's, as long as that one lives
            if over:
                await self._lost(client, job, "Neither its process nor the service that ran it was heard of any more.")
            return
        found = await client.find(_submission(job))
        if found is None and job.state == State.STARTING and attempt.process is None:
            await self._submit(client, job)
        elif found is None or found.status not in ALIVE:
            await self._lost(client, job, _why_gone(found))
        elif over:
            await client.stop(_submission(job))
            await self._lost(client, job, "Its process was not heard of any more.")
        elif job.state in UNWANTED:
            await client.stop(_submission(job))

    def _lease_over(self, job: Job, attempt: Attempt, silence: float) -> bool:
        """Whether an attempt was silent for longer than its lease, and still is some time after this was first seen.

        Behind an outage of the database every attempt looks silent until its next heartbeat.
        """
        key = (job.id, job.attempt)
        if silence <= (LEASE_SECONDS if attempt.process else FIRST_WORD_SECONDS):
            self._silent.pop(key, None)
            return False
        return self._clock() - self._silent.setdefault(key, self._clock()) > BEAT_SECONDS

    def _forget(self, live: Collection[tuple[str, int]]) -> None:
        self._silent = {key: since for key, since in self._silent.items() if key in live}

    async def _lost(self, client: RayJobs, job: Job, reason: str) -> None:
        log.warning("job_lost", job=job.id, attempt=job.attempt, reason=reason)
        again = await asyncio.to_thread(self._jobs.lost, job.id, job.attempt, reason, self._ray.name)
        if again is not None:
            await self._submit(client, again)

    async def _submit(self, client: RayJobs, job: Job) -> None:
        metadata = {"name": job.name, "job_id": job.id}
        try:
            await client.submit(_submission(job), self._ray.command(job), self._ray.environment(), metadata)
        except RayRefused as error:
            await asyncio.to_thread(self._jobs.refused, job.id, job.attempt, str(error))
        else:
            log.info("job_submitted", job=job.id, attempt=job.attempt)


def _submission(job: Job) -> str:
    return f"{job.id}-{job.attempt}"


def _command(python: str, job: Job) -> str:
    """With the job's name, since this is what the dashboard lists."""
    return shlex.join([python, "-m", "service.run_job", job.id, "--attempt", str(job.attempt), "--name", job.name])


def _why_gone(found: RayJob | None) -> str:
    if found is None:
        return "Ray no longer knows the job's process, so its cluster was lost."
    lines = found.message.partition(", last available logs")[0].strip().splitlines()  # a page of them follows
    said = lines[0][:300] if lines else f"it is {found.status.lower()}"
    return f"The job's process ended without a result; Ray says: {said}"
