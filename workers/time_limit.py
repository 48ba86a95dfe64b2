"""A limit on how long code of somebody else's may run, in whatever thread it does."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

TOOK_TOO_LONG = 124  # exit status of a process that had to be ended, as of the command ``timeout``


class TimeLimitReached(Exception):
    """Raised in the midst of what took too long."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises ``TimeLimitReached`` in the block once it has run for so long.

    That is between two steps of Python. Where none comes, or the code catches what is raised, the process ends after as long
    again: whoever waits for it hears that it is gone, and nobody waits for ever.
    """
    thread = ctypes.c_ulong(threading.get_ident())
    over, turn = threading.Event(), threading.Lock()

    def watch() -> None:
        if over.wait(seconds):
            return
        with turn:
            if not over.is_set():
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(TimeLimitReached))
        if not over.wait(seconds):
            os._exit(TOOK_TOO_LONG)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        with turn:
            over.set()
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, None)  # one that was to be raised and is too late
        watcher.join()
