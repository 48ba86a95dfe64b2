"""A job's progress where one looks: a live bar on a terminal or in a notebook, a line per change elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from html import escape
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from service.client.line import run
from service.client.progress import Display, follow
from service.texts import best_text, heading, reason_text

if TYPE_CHECKING:
    from service.client.client import Client

_SPEED_SECONDS = 600.0  # the stretch of time over which the remaining time is estimated; rich's 30 s may hold no trial

Json = dict[str, Any]


def watch(client: Client, job_id: str, console: Console | None = None) -> Json:
    """Shows a job's progress until it ends and returns its JSON then."""
    return run(follow(client._connection, job_id, display(console)))


def display(console: Console | None = None) -> Display:
    """What suits the place."""
    shell = _notebook()
    if shell is not None and console is None:
        return Notebook(shell)
    console = console or Console(highlight=False, markup=False)
    return Bar(console) if console.is_terminal else Lines(console)


class _News:
    """What of a job is worth a line of its own, once: its name and budget, what it says, a better network."""

    def __init__(self, with_best: bool) -> None:
        self._with_best = with_best
        self._said: set[str] = set()

    def of(self, job: Json) -> Iterator[str]:
        lines = [heading(job), job["progress"].get("message") or ""]
        if self._with_best:
            lines.append(f"best: {best_text(job)}")
        for line in lines:
            if line and line not in self._said:
                self._said.add(line)
                yield line


class Bar:
    """On a terminal: a bar at the bottom, news above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._news = _News(with_best=True)
        columns = (
            TextColumn("{task.fields[state]:<9}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("trials"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=console, speed_estimate_period=_SPEED_SECONDS, expand=True)
        self._task: TaskID | None = None
        self._reason: str | None = None

    def show(self, job: Json) -> None:
        counts = job["progress"]
        if self._task is None:
            self._progress.start()
            # What finished before says nothing of the speed now, hence it is no update.
            self._task = self._progress.add_task("", completed=counts["finished"], total=None, state=job["state"])
        for line in self._news.of(job):
            self._console.print(line)
        self._progress.update(self._task, completed=counts["finished"], total=counts["planned"] or None, state=job["state"])
        self._reason = reason_text(job)

    def close(self) -> None:
        self._progress.stop()
        if self._reason:
            self._console.print(self._reason, soft_wrap=True)


class Lines:
    """In a file, or a terminal without a cursor: a line whenever something has changed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._news = _News(with_best=False)
        self._shown = ""
        self._reason: str | None = None

    def show(self, job: Json) -> None:
        counts = job["progress"]
        for line in self._news.of(job):
            self._console.print(line, soft_wrap=True)
        line = f"{job['state']:<10} {counts['finished']}/{counts['planned']} trials, best: {best_text(job)}"
        if line != self._shown:
            self._shown = line
            self._console.print(line, soft_wrap=True)
        self._reason = reason_text(job)

    def close(self) -> None:
        if self._reason:
            self._console.print(self._reason, soft_wrap=True)


class Notebook:
    """In a notebook: one output that is replaced, without any widgets.

    Args:
        show: IPython's ``display``.
        clock: seconds.
    """

    def __init__(self, show: Callable[..., Any], clock: Callable[[], float] = time.monotonic) -> None:
        self._show = show
        self._clock = clock
        self._handle: Any = None
        self._began = 0.0
        self._before = 0

    def show(self, job: Json) -> None:
        first = self._handle is None
        if first:
            self._began, self._before = self._clock(), job["progress"]["finished"]
        data = {"text/html": self._html(job), "text/plain": self._line(job)}
        if first:
            self._handle = self._show(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)

    def close(self) -> None:
        """The last state stays."""

    def _line(self, job: Json) -> str:
        counts = job["progress"]
        line = f"{heading(job)}: {job['state']}, {counts['finished']} of {counts['planned']} trials{self._times(job)}"
        return ". ".join(part for part in (line, f"best: {best_text(job)}", reason_text(job)) if part)

    def _html(self, job: Json) -> str:
        counts = job["progress"]
        bar = f'<progress value="{counts["finished"]}" max="{counts["planned"] or 1}" style="width: 24em"></progress>'
        count = f"{counts['finished']} of {counts['planned']} trials{self._times(job)}"
        below = [f"best: {best_text(job)}", counts.get("message") or "", reason_text(job) or ""]
        lines = [f"<b>{escape(heading(job))}</b>", f"{escape(job['state'])} {bar} {count}", *map(escape, filter(None, below))]
        return f"<div>{'<br>'.join(lines)}</div>"

    def _times(self, job: Json) -> str:
        """How long it has been watched, and how long it will be, if the trials that are left take as long as those seen."""
        counts, seconds = job["progress"], self._clock() - self._began
        seen, left = counts["finished"] - self._before, counts["planned"] - counts["finished"]
        ahead = f", ETA {_clock_text(seconds / seen * left)}" if seen > 0 and left > 0 else ""
        return f", {_clock_text(seconds)}{ahead}"


def _clock_text(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def _notebook() -> Callable[..., Any] | None:
    """IPython's ``display``, where a notebook shows what it is given."""
    found = sys.modules.get("IPython")
    shell = found and found.get_ipython()
    if shell is None or not hasattr(shell, "kernel"):  # IPython on a terminal has none
        return None
    from IPython.display import display as show  # type: ignore[import-not-found]

    shown: Callable[..., Any] = show
    return shown
