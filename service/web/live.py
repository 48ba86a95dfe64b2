"""``/ui/jobs/stream``: that something happened to a job of the caller's, whichever; the list of jobs then asks what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from sqlalchemy import func, select
from starlette.concurrency import run_in_threadpool

from service.database import Database, DatabaseAway
from service.database.tables import Event, Job
from service.jobs.stream import KEEP_ALIVE_SECONDS, RETRY_MILLISECONDS
from service.jobs.watch import Watch

LOOK_SECONDS = 1.0  # a list need not be quicker; each look is one query over the newest events


async def news(database: Database, watch: Watch, key_id: str | None) -> AsyncIterator[str]:
    """A message whenever a job of the database's owner has new events, until the service ends or the key is revoked."""
    yield f"retry: {RETRY_MILLISECONDS}\n\n"
    quiet, seen = 0.0, -1
    with watch.listening("", key_id):
        while not watch.over(key_id):
            try:
                latest = await run_in_threadpool(_latest, database, seen)
            except DatabaseAway:  # the browser comes again
                return
            if latest > seen:
                if seen >= 0:
                    yield f"event: news\ndata: {latest}\n\n"
                seen, quiet = latest, 0.0
            elif quiet >= KEEP_ALIVE_SECONDS:
                yield ": nothing new\n\n"
                quiet = 0.0
            await asyncio.sleep(LOOK_SECONDS)
            quiet += LOOK_SECONDS


def _latest(database: Database, seen: int) -> int:
    """The id of the newest event of these jobs, if it is behind ``seen``; otherwise ``seen``."""
    behind = select(func.max(Event.id)).where(Event.id > seen, Event.job_id.in_(select(Job.id)))
    with database.read() as session:
        return session.scalars(behind).one() or max(seen, 0)
