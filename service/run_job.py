"""One attempt at one job: the process that Ray runs, ``python -m service.run_job JOB --attempt N``.

It puts the workers and the database together. Its exit code is 0 if the job succeeded and 1 if not; why is in the job's
row, and a trace, where there is one, in the Ray job's log.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from pruners.errors import SecateurError
from service.database import Database
from service.database.tables import Dataset, Model
from service.jobs.log import DatabaseLog, NotWanted
from service.jobs.repository import JobRepository
from service.jobs.states import IllegalMove
from service.logs import configure_logging
from service.settings import Settings
from service.store import Store
from workers.log import JobLog
from workers.spec import JobSpec

Work = Callable[[JobSpec, Path, Path, Path, Path, JobLog], None]
"""``workers.job.run_job``: specification, model, data, an empty folder, one that all attempts share, log."""

log = structlog.get_logger()


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    from workers.job import run_job

    parser = argparse.ArgumentParser(prog="python -m service.run_job", description="Runs one attempt at a job.")
    parser.add_argument("job")
    parser.add_argument("--attempt", type=int, required=True)
    parsed = parser.parse_args(arguments)
    configure_logging()
    structlog.contextvars.bind_contextvars(job=parsed.job, attempt=parsed.attempt)
    settings = Settings.load()
    database = Database(settings.database)
    try:
        return attempt(parsed.job, parsed.attempt, database, Store(settings.store_dir), settings.data_dir, run_job)
    finally:
        database.close()


def attempt(job_id: str, number: int, database: Database, store: Store, data_dir: Path, work: Work) -> int:
    """Does the job and writes its end; returns the exit code."""
    job_log = DatabaseLog(database, store, job_id, number)
    folder = data_dir / "jobs" / job_id
    try:
        _work(job_id, number, database, store, folder, work, job_log)
    except (NotWanted, IllegalMove) as error:
        log.warning("not_wanted", reason=str(error))
    except SecateurError as error:
        _fail(job_log, folder, str(error))
    except Exception as error:
        log.exception("job_crashed")
        reason = f"The job met an error of the service's own ({type(error).__name__}); its Ray log has the details."
        _fail(job_log, folder, reason)
    else:
        shutil.rmtree(folder, ignore_errors=True)
        return 0
    return 1


def _work(job_id: str, number: int, database: Database, store: Store, folder: Path, work: Work, job_log: DatabaseLog) -> None:
    job = JobRepository(database).get(job_id)
    with database.read() as session:
        model, dataset = session.get_one(Model, job.model_id), session.get_one(Dataset, job.dataset_id)
    own = folder / f"attempt-{number}"
    own.mkdir(parents=True, exist_ok=True)
    try:
        spec = JobSpec.model_validate(job.spec)
        work(spec, store.path(model.sha256), store.path(dataset.sha256), own, folder / "networks", job_log)
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _fail(job_log: DatabaseLog, folder: Path, reason: str) -> None:
    try:
        job_log.failed(reason)
        shutil.rmtree(folder, ignore_errors=True)  # unless the job goes on without this attempt
    except (NotWanted, IllegalMove) as error:
        log.warning("not_wanted", reason=str(error))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
