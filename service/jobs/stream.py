"""A job's events as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from starlette.concurrency import run_in_threadpool

from service.database import DatabaseAway
from service.jobs.repository import JobRepository
from service.jobs.states import ENDS
from service.jobs.views import event_view
from service.jobs.watch import Watch
from service.pages import LARGEST_PAGE
from service.problems import NotFound

KEEP_ALIVE_SECONDS = 15.0  # proxies close what says nothing for a minute
RETRY_MILLISECONDS = 2000  # until a browser comes again


async def stream(jobs: JobRepository, watch: Watch, job_id: str, after: int, key_id: str | None) -> AsyncIterator[str]:
    """The job's events behind ``after`` as they come, until it and they have ended, the service ends, or the key goes."""
    yield f"retry: {RETRY_MILLISECONDS}\n\n"
    with watch.listening(job_id, key_id):
        while not watch.over(key_id):
            try:
                ended = await run_in_threadpool(_has_ended, jobs, job_id)  # first: what it says last is read behind this
                events, _ = await run_in_threadpool(jobs.events, job_id, LARGEST_PAGE, str(after))
            except (DatabaseAway, NotFound):  # the listener comes again, and is told why if it lasts
                return
            for event in events:
                after = event.id
                yield f"id: {event.id}\nevent: {event.type}\ndata: {json.dumps(event_view(event).model_dump(mode='json'))}\n\n"
            if events:
                continue
            if ended:
                return
            try:
                await asyncio.wait_for(watch.news(job_id, after, key_id), KEEP_ALIVE_SECONDS)
            except TimeoutError:
                yield ": nothing new\n\n"


def _has_ended(jobs: JobRepository, job_id: str) -> bool:
    return jobs.get(job_id).state in ENDS
