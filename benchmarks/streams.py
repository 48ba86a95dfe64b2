"""Many listeners to one job, who go away and come again, while its events are written: ``python -m benchmarks.streams``.

Each must have seen every event once and in order; those who do not are counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx2
from sqlalchemy import select

from service.database import Database
from service.database.tables import Event
from service.jobs.states import announce, locked
from tests.service.doubles import TOKEN
from tests.service.test_events import serving

PAUSE_SECONDS = 0.02  # between two events: fifty a second, as no search has them
PATIENCE = (20, 200)  # events after which a listener goes away, at random


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--listeners", type=int, default=500)
    parser.add_argument("--events", type=int, default=400)
    parsed = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="secateur-") as name:
        url = f"sqlite:///{name}/secateur.db"
        with serving(Path(name) / "data", url) as (_, client):
            ids = {"model": client.post("/models", content=b"model").json()["id"]}
            ids["dataset"] = client.post("/datasets", content=b"data").json()["id"]
            job = client.post("/jobs", json={**ids, "budget": {"ratio": 0.5}}).json()["id"]
            found = asyncio.run(listened(str(client.base_url), Database(url), job, parsed.listeners, parsed.events))
    print(json.dumps(found))


async def listened(url: str, database: Database, job: str, listeners: int, events: int) -> dict[str, float]:
    """How many connections there were, and how many listeners missed an event or saw one twice."""
    written: list[int] = []  # the last one's id, once it is known

    def over(seen: int) -> bool:
        return bool(written) and seen >= written[0]

    headers = {"Authorization": f"Bearer {TOKEN}"}
    many = httpx2.Limits(max_connections=listeners)
    began = time.perf_counter()
    async with httpx2.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=120, limits=many) as client:
        path = f"/jobs/{job}/events"
        running = [asyncio.create_task(listen(client, path, random.Random(seed), over)) for seed in range(listeners)]  # noqa: S311
        ids = await asyncio.to_thread(write, database, job, events)
        written.append(ids[-1])
        await asyncio.to_thread(write, database, job, 1)  # for whoever had seen all of them by then
        done = await asyncio.gather(*running)
    wrong = sum(list(ids) != seen[: len(ids)] for seen, _ in done)
    return {
        "listeners": listeners,
        "events": len(ids),
        "connections": sum(count for _, count in done),
        "wrong": wrong,
        "s": round(time.perf_counter() - began, 1),
    }


async def listen(
    client: httpx2.AsyncClient, path: str, chance: random.Random, over: Callable[[int], bool]
) -> tuple[list[int], int]:
    """The ids that one listener saw, and how often they connected."""
    seen: list[int] = []
    connections = 0
    while not (seen and over(seen[-1])):
        patience = len(seen) + chance.randint(*PATIENCE)
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": str(seen[-1])} if seen else {})
        connections += 1
        async with client.stream("GET", path, headers=headers) as stream:
            async for line in stream.aiter_lines():
                if line.startswith("id: "):
                    seen.append(int(line[4:]))
                if not line and seen and (over(seen[-1]) or len(seen) >= patience):  # an event ends with an empty line
                    break
    return seen, connections


def write(database: Database, job: str, events: int) -> Sequence[int]:
    """So many events, one after the other; the ids of all that the job has then."""
    for number in range(events):
        with database.write() as session:
            announce(session, locked(session, job), "progress", {"message": str(number)})
        time.sleep(PAUSE_SECONDS)
    with database.read() as session:
        return session.scalars(select(Event.id).where(Event.job_id == job).order_by(Event.id)).all()


if __name__ == "__main__":
    main()
