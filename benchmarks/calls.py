"""What calls cost a service beside which nothing runs: ``python -m benchmarks.calls``.

Processor time of the API's own process, the kernel's part for its sockets and files included, so that a machine on which others
work changes it little. No Ray is needed: the job is rows alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path

from benchmarks.load import ApiProcess, Target, many
from service.client import Client
from service.client.connection import ServerUnreachable
from service.database import Database
from service.database.tables import Trial
from service.demo.tour import serving
from service.jobs.states import State
from tests.service.doubles import a_job

WARMING = 200  # calls before any that count: what is made once is made


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", type=int, default=4000)
    parser.add_argument("--trials", type=int, default=200, help="of the job that is asked for")
    parsed = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="secateur-calls-") as name,
        serving(Path(name) / "data", ray_address="http://127.0.0.1:9", requests_per_second="100000") as admin,
    ):
        while not answers(admin):
            time.sleep(0.2)
        key = admin.create_key("alice")["key"]
        job = rows(Path(name) / "data", "alice", parsed.trials)
        api = ApiProcess(admin.url)
        with Client(admin.url, key) as client:
            assert client.job(job)["progress"]["succeeded"] == parsed.trials
        for path in ("/livez", "/me", f"/jobs/{job}", "/jobs", f"/jobs/{job}/trials?limit=20", f"/jobs/{job}/events"):
            target = Target(admin.url, key, path)
            asyncio.run(many(target, api, WARMING))
            print(json.dumps({"path": path.replace(job, "{id}"), **asyncio.run(many(target, api, parsed.calls))}), flush=True)


def answers(client: Client) -> bool:
    """Whether the service has come up; a crowded machine takes longer over it than a client waits."""
    try:
        client.me()
    except ServerUnreachable:
        return False
    return True


def rows(data_dir: Path, owner: str, trials: int) -> str:
    """A paused job with so many trials, each better and dearer than the one before up to the budget; its id."""
    database = Database(f"sqlite:///{data_dir / 'secateur.db'}").of(owner)
    model, dataset, job = a_job(state=State.PAUSED, planned_trials=10_000, sequence=2 * trials)
    with database.write() as session:
        session.add_all([model, dataset])
        session.flush()
        session.add(job)
        session.flush()
        for number in range(trials):
            cost = 4000 * (number % 20 + 1)
            session.add(
                Trial(
                    job_id=job.id,
                    number=number,
                    state="succeeded",
                    note="random",
                    widths=[number % 16 + 1, 8],
                    plan={"widths": {"conv1": number % 16 + 1, "conv2": 8}, "sparsity": {"conv1": 0.5, "conv2": 0.5}},
                    macs=cost,
                    params=cost // 10,
                    size_bytes=cost // 2,
                    score=-1 + cost / 100_000,
                    metric=cost / 100_000,
                    asked_sequence=2 * number + 1,
                    told_sequence=2 * number + 2,
                )
            )
    database.close()
    return job.id


if __name__ == "__main__":
    main()
