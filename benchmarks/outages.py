"""What a running service does while something is away: ``python -m benchmarks.outages``.

api         killed for 0, 20 and 60 s while trials run: how many are there when it is back
control     cancel and pause: seconds until no process of the job is left; then everything is restarted and the job resumed
postgresql  stopped for 3 and 15 s in the middle of a job: seconds until trials go on, and how calls were answered meanwhile
"""

from __future__ import annotations

import json
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2

from service.texts import ENDED
from tests.chaos.run import SEARCHES, Service, serving, submit
from tests.digits import digits
from tests.postgres import Postgres, installed, postgres


def main() -> None:
    """The command line."""
    with tempfile.TemporaryDirectory(prefix="secateur-outages-") as name:
        folder = Path(name)
        files = digits(folder)
        with serving(folder) as service:
            for seconds in (0, 20, 60):
                show(api=without_api(service, files, seconds))
            show(control=controlled(service, files))
        if installed():
            with postgres(max_connections=30) as server:
                (folder / "postgresql").mkdir()
                url = {"SECATEUR_DATABASE_URL": server.url(server.database())}
                with serving(folder / "postgresql", url) as service:
                    show(postgresql=without_database(service, server, files))


def show(**figures: Any) -> None:
    """One line of JSON."""
    print(json.dumps(figures), flush=True)


def running(service: Service, files: tuple[Path, Path]) -> str:
    """A job with some finished trials and many to come."""
    job = submit(service.client, files, SEARCHES["random"], 1500)
    until(lambda: finished(service, job) >= 5)
    return job


def finished(service: Service, job: str) -> int:
    """Its trials so far."""
    return int(service.client.job(job)["progress"]["finished"])


def until(condition: Callable[[], object]) -> float:
    """Seconds until it holds."""
    began = time.monotonic()
    while not condition():
        time.sleep(0.1)
    return round(time.monotonic() - began, 1)


def processes(service: Service) -> list[int]:
    """Of jobs and trials."""
    return service.processes("job") + service.processes("worker")


def attempts(service: Service, job: str) -> int:
    """That were begun."""
    return sum(event["data"].get("state") == "starting" for event in service.client.events(job))


def without_api(service: Service, files: tuple[Path, Path], seconds: float) -> dict[str, Any]:
    """Trials before and behind an outage of the API; the job is cancelled then."""
    job = running(service, files)
    before = finished(service, job)
    service.api.kill()
    service.api.wait()
    time.sleep(seconds)
    service.restart()
    after, begun = finished(service, job), attempts(service, job)
    service.client.cancel(job)
    gone = until(lambda: not processes(service))
    until(lambda: service.client.job(job)["state"] in ENDED)
    return {"down s": seconds, "before": before, "after": after, "attempts": begun, "cancel: processes gone after s": gone}


def controlled(service: Service, files: tuple[Path, Path]) -> dict[str, Any]:
    """Pause, a restart of API and Ray, resume, stop."""
    job = running(service, files)
    service.client.pause(job)
    gone = until(lambda: not processes(service))
    until(lambda: service.client.job(job)["state"] == "paused")
    before = list(service.client.trials(job))
    service.api.send_signal(signal.SIGINT)
    service.api.wait()
    service.restart()
    service.client.resume(job)
    until(lambda: finished(service, job) > len(before) + 3)
    service.client.stop(job)
    until(lambda: service.client.job(job)["state"] in ENDED)
    ended, trials = service.client.job(job), list(service.client.trials(job))
    told = [trial for trial in before if trial["outcome"]]
    kept = [trials[trial["number"]] for trial in told] == told
    return {"pause: processes gone after s": gone, "kept": kept, "state": ended["state"], "reason": ended["reason"]}


def without_database(service: Service, server: Postgres, files: tuple[Path, Path]) -> list[dict[str, Any]]:
    """Outages of the database."""
    job, figures = running(service, files), []
    token = (service.data / "token").read_text().strip()
    with httpx2.Client(base_url=service.client.url, headers={"Authorization": f"Bearer {token}"}, timeout=60) as client:
        for seconds in (3, 15):
            before, answers = finished(service, job), set()
            server.stop()
            stopped = time.monotonic()
            while time.monotonic() - stopped < seconds:
                answers.add(client.get(f"/jobs/{job}").status_code)
                time.sleep(0.2)
            server.start()
            on = until(lambda before=before: finished(service, job) > before + 2)  # type: ignore[misc]
            figures.append({"down s": seconds, "trials go on after s": on, "answers": sorted(answers)})
    service.client.stop(job)
    until(lambda: service.client.job(job)["state"] in ENDED)
    return [*figures, {"state": service.client.job(job)["state"], "attempts": attempts(service, job)}]


if __name__ == "__main__":
    main()
