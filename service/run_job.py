"""One attempt at one job: the process that Ray runs, ``python -m service.run_job JOB --attempt N``.

It puts the workers and the database together. Its exit code is 0 if the job succeeded and 1 if not; why is in the job's
row, and a trace, where there is one, in the Ray job's log.
"""

from __future__ import annotations

import argparse
import errno
import os
import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import structlog

from pruners.errors import JobFailed, SecateurError
from service.database import Database, DatabaseAway
from service.database.tables import Dataset, Job, Model
from service.heartbeat import beating
from service.jobs.log import DatabaseLog, NotWanted, patiently
from service.jobs.states import IllegalMove
from service.logs import configure_logging
from service.settings import Settings
from service.store import Store, StoreAway, open_store
from workers.log import JobLog
from workers.spec import JobSpec

Work = Callable[[JobSpec, Path, Path, Path, Path, JobLog], None]
"""``workers.job.run_job``: specification, model, arrays of the data, an empty folder, one that all attempts share, log."""

log = structlog.get_logger()


NOT_WANTED = 3
"""Exit code of a process that was ended since its job does not want it any more."""


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m service.run_job", description="Runs one attempt at a job.")
    parser.add_argument("job")
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--name", default="", help="The job's, for people who look at this process.")
    parsed = parser.parse_args(arguments)
    configure_logging()
    structlog.contextvars.bind_contextvars(job=parsed.job, name=parsed.name, attempt=parsed.attempt)
    settings = Settings.load()
    database = Database(settings.database)
    try:
        work, store = _run_job, open_store(settings)
        return attempt(parsed.job, parsed.attempt, database, store, settings.data_dir, work, _leave)
    finally:
        database.close()


def attempt(
    job_id: str,
    number: int,
    database: Database,
    store: Store,
    data_dir: Path,
    work: Work,
    leave: Callable[[], None],
) -> int:
    """Does the job and writes its end; returns the exit code.

    Args:
        job_id: the job's.
        number: the attempt's.
        database: holds the job.
        store: holds its files.
        data_dir: where the job has a folder while it lasts.
        work: ``workers.job.run_job``.
        leave: ends this process, called from another thread, when the job does not want it any more.
    """
    job_log = DatabaseLog(database, store, job_id, number)
    folder = data_dir / "jobs" / job_id
    try:
        job_log.claim(socket.gethostname(), os.getpid())
        with beating(job_log, leave):
            _work(job_id, number, database, store, folder, work, job_log)
    except (NotWanted, IllegalMove) as error:
        log.warning("not_wanted", reason=str(error))
    except (DatabaseAway, StoreAway) as error:  # for too long; the job goes on in another attempt
        log.error("away", reason=str(error))
    except Exception as error:
        if not isinstance(error, SecateurError):
            log.exception("job_crashed")
        _fail(job_log, folder, _reason(error))
    else:
        shutil.rmtree(folder, ignore_errors=True)
        return 0
    return 1


def _reason(error: Exception) -> str:
    """For the job's owner, in a sentence."""
    if isinstance(error, SecateurError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "The disk of the job's files is full; free some space and submit the job again."
    return f"The job met an error of the service's own ({type(error).__name__}); its Ray log has the details."


def _run_job(spec: JobSpec, model: Path, data: Path, workdir: Path, networks: Path, job_log: JobLog) -> None:
    from workers.job import run_job  # takes seconds to import, in which the attempt is claimed already

    run_job(spec, model, data, workdir, networks, job_log)


def _leave() -> None:
    """At once, whatever the main thread is at. Ray ends the trials of a process that is gone."""
    os._exit(NOT_WANTED)


def _work(job_id: str, number: int, database: Database, store: Store, folder: Path, work: Work, job_log: DatabaseLog) -> None:
    def read() -> tuple[JobSpec, str, str | None]:
        with database.read() as session:
            job = session.get_one(Job, job_id)
            model, dataset = session.get_one(Model, job.model_id), session.get_one(Dataset, job.dataset_id)
            return JobSpec.model_validate(job.spec), model.sha256, dataset.inspection.get("arrays")

    spec, model, dataset = patiently(read)
    if dataset is None:
        raise JobFailed("The data set was taken in by an earlier version of Secateur; upload the same file again.")
    for left in folder.glob("attempt-*"):  # by attempts that were killed; this one is the only one that may write
        shutil.rmtree(left, ignore_errors=True)
    own = folder / f"attempt-{number}"
    own.mkdir(parents=True, exist_ok=True)
    try:
        files = {sha256: patiently(partial(store.verified, sha256), (StoreAway,)) for sha256 in (model, dataset)}
        work(spec, files[model], files[dataset], own, folder / "networks", job_log)
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
