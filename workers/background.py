"""Work in a thread whose reports are taken one by one: how a trial that trains tells Tune about each epoch."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

T = TypeVar("T")


class Background(Generic[T]):
    """Starts ``work``, which is given a function to report lines with.

    Args:
        work: runs in a thread of its own; what it returns or raises is kept for ``result``.
    """

    def __init__(self, work: Callable[[Callable[[str], None]], T]) -> None:
        self._reports: SimpleQueue[str | None] = SimpleQueue()
        self._results: list[T] = []
        self._errors: list[BaseException] = []
        Thread(target=self._run, args=(work,), daemon=True).start()

    def report(self) -> str | None:
        """The next line, waited for; ``None`` once the work is over."""
        return self._reports.get()

    def result(self) -> T:
        """What the work returned, or raises what it raised; to be asked after the last report."""
        if self._errors:
            raise self._errors[0]
        return self._results[0]

    def _run(self, work: Callable[[Callable[[str], None]], T]) -> None:
        try:
            self._results.append(work(self._reports.put))
        except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
            self._errors.append(error)
        finally:
            self._reports.put(None)
