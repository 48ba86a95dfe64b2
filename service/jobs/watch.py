"""One watch over the events table for all who listen to jobs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import structlog
from sqlalchemy import func, select
from starlette.concurrency import run_in_threadpool

from service.database import Database, DatabaseAway
from service.database.tables import Event

LOOK_SECONDS = 0.5  # between two looks for new events: as soon as a person notices, and cheap, one query for all streams

log = structlog.get_logger()


class Watch:
    """Looks which of the jobs that somebody listens to have news.

    Args:
        database: as the service sees it: who may listen is settled by then.
        leaving: whether the service is about to end, and streams with it.
    """

    def __init__(self, database: Database, leaving: Callable[[], bool] = lambda: False) -> None:
        self.leaving = leaving
        self._database = database
        self._listeners: Counter[str] = Counter()
        self._latest: Mapping[str, int] = {}
        self._looked = asyncio.Condition()

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            if self._listeners:
                try:
                    self._latest = await run_in_threadpool(self._look, list(self._listeners))
                except DatabaseAway as error:
                    log.warning("events_not_seen", reason=str(error))
                except Exception:  # the watch must outlive whatever it meets: listeners look for themselves meanwhile
                    log.exception("watch_failed")
            async with self._looked:
                self._looked.notify_all()
            await asyncio.sleep(LOOK_SECONDS)

    @contextmanager
    def listening(self, job_id: str) -> Iterator[None]:
        """Within it, the job's events are looked for."""
        self._listeners[job_id] += 1
        try:
            yield
        finally:
            self._listeners[job_id] -= 1
            self._listeners += Counter()  # drops those that nobody listens to

    async def news(self, job_id: str, after: int) -> None:
        """Returns once the job has an event behind that one, or the service is about to end."""
        async with self._looked:
            await self._looked.wait_for(lambda: self.leaving() or self._latest.get(job_id, 0) > after)

    def _look(self, jobs: list[str]) -> Mapping[str, int]:
        latest = select(Event.job_id, func.max(Event.id)).where(Event.job_id.in_(jobs)).group_by(Event.job_id)
        with self._database.read() as session:
            return dict(session.execute(latest).all())
