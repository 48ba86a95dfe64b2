"""One watch for all who listen to jobs: over the events, and over the keys that they came with."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

import structlog
from sqlalchemy import func, select
from starlette.concurrency import run_in_threadpool

from service.database import Database, DatabaseAway
from service.database.tables import ApiKey, Event

LOOK_SECONDS = 0.5  # between two looks for new events: as soon as a person notices, and cheap, one query for all streams

log = structlog.get_logger()


class Watch:
    """Looks which of the jobs that somebody listens to have news, and who may not listen any more.

    Args:
        database: as the service sees it: who may listen is settled by then.
        leaving: whether the service is about to end, and streams with it.
    """

    def __init__(self, database: Database, leaving: Callable[[], bool] = lambda: False) -> None:
        self.leaving = leaving
        self._database = database
        self._listeners: Counter[str] = Counter()
        self._keys: Counter[str] = Counter()
        self._latest: Mapping[str, int] = {}
        self._revoked: Collection[str] = ()
        self._looked = asyncio.Condition()

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            if self._listeners:
                try:
                    found = await run_in_threadpool(self._look, list(self._listeners), list(self._keys))
                    self._latest, self._revoked = found
                except DatabaseAway as error:
                    log.warning("events_not_seen", reason=str(error))
                except Exception:  # the watch must outlive whatever it meets: listeners look for themselves meanwhile
                    log.exception("watch_failed")
            async with self._looked:
                self._looked.notify_all()
            await asyncio.sleep(LOOK_SECONDS)

    @contextmanager
    def listening(self, job_id: str, key_id: str | None) -> Iterator[None]:
        """Within it, the job's events are looked for, and whether that API key is revoked."""
        self._listeners[job_id] += 1
        if key_id is not None:
            self._keys[key_id] += 1
        try:
            yield
        finally:
            self._listeners[job_id] -= 1
            if key_id is not None:
                self._keys[key_id] -= 1
            self._listeners += Counter()  # drops those that nobody listens to
            self._keys += Counter()

    def over(self, key_id: str | None) -> bool:
        """Whether a stream is to end: the service does, or the key that it was asked for with is revoked."""
        return self.leaving() or key_id in self._revoked

    async def news(self, job_id: str, after: int, key_id: str | None) -> None:
        """Returns once the job has an event behind that one, or the stream is to end."""
        async with self._looked:
            await self._looked.wait_for(lambda: self.over(key_id) or self._latest.get(job_id, 0) > after)

    def _look(self, jobs: list[str], keys: list[str]) -> tuple[Mapping[str, int], Collection[str]]:
        latest = select(Event.job_id, func.max(Event.id)).where(Event.job_id.in_(jobs)).group_by(Event.job_id)
        revoked = select(ApiKey.id).where(ApiKey.id.in_(keys), ApiKey.revoked_at.is_not(None))
        with self._database.read() as session:
            return dict(session.execute(latest).all()), set(session.scalars(revoked))
