"""The sign of life of a job's process, and the end of one that is not wanted any more, in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import structlog

from service.database import DatabaseAway
from service.jobs.log import NotWanted

BEAT_SECONDS = 10.0
"""Between two signs of life. Each is a small write, and three of them may be missed before the lease is over."""

LEASE_SECONDS = 30.0
"""That an attempt is its process's after the last sign of life; then the job may be given to another."""

LOOK_SECONDS = 1.0  # between two looks at whether the process is wanted: a cancelled one is gone within 5 s

log = structlog.get_logger()


class Claimed(Protocol):
    """What ``service.jobs.log.DatabaseLog`` offers here."""

    def beat(self) -> None:
        """Writes a sign of life."""

    def check_wanted(self) -> None:
        """Raises ``NotWanted`` once the process is to end."""


@contextmanager
def beating(claimed: Claimed, end: Callable[[], None]) -> Iterator[None]:
    """Within it, signs of life are given; ``end`` is called, once, from the thread when the process is not wanted.

    A database that is away is waited for: whoever would take over needs it too.
    """
    over = threading.Event()

    def watch() -> None:
        last = time.monotonic()
        while not over.wait(LOOK_SECONDS):
            try:
                if time.monotonic() - last >= BEAT_SECONDS:
                    claimed.beat()
                    last = time.monotonic()
                claimed.check_wanted()
            except NotWanted as error:
                if not over.is_set():
                    log.warning("not_wanted", reason=str(error))
                    end()
                return
            except DatabaseAway as error:
                log.warning("no_heartbeat", reason=str(error))

    thread = threading.Thread(target=watch, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
