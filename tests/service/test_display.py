"""What a notebook shows while a job runs; terminals and files are in ``test_client.py``."""

from __future__ import annotations

import sys
import types
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest

from service.client import Client, Job, progress
from service.client.display import Bar, Lines, Notebook, display
from tests.service.fake_server import TOKEN, FakeServer, job_json, running


class Shown:
    """IPython's ``display`` and the handle that it returns."""

    def __init__(self) -> None:
        self.states: list[dict[str, str]] = []

    def __call__(self, data: dict[str, str], *, raw: bool, display_id: bool) -> Shown:
        assert (raw, display_id) == (True, True)
        self.states.append(data)
        return self

    def update(self, data: dict[str, str], *, raw: bool) -> None:
        assert raw
        self.states.append(data)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with running() as fake:
        yield fake


def notebook(monkeypatch: pytest.MonkeyPatch, shell: Any) -> Shown:
    """IPython as a kernel has it, as far as it is asked for."""
    shown = Shown()
    module = types.ModuleType("IPython")
    module.get_ipython = lambda: shell  # type: ignore[attr-defined]
    displays = types.ModuleType("IPython.display")
    displays.display = shown  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", module)
    monkeypatch.setitem(sys.modules, "IPython.display", displays)
    return shown


def test_a_notebook_has_one_output_that_is_replaced(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "POLL_SECONDS", 0)
    shown = notebook(monkeypatch, types.SimpleNamespace(kernel=object()))
    server.polls = deque([job_json("queued"), job_json("running", 3), job_json("succeeded", 10, name="<b>net</b>")])
    with Client(server.url, TOKEN) as client:
        Job(client, "job-1").wait()
    html = [state["text/html"] for state in shown.states]
    assert all(f'<progress value="{finished}" max="10"' in page for finished, page in zip((0, 3, 10), html, strict=True))
    assert "none yet" in html[0]
    assert "best: top-1 accuracy 0.9700, 49.9 % of macs" in html[-1]
    assert "&lt;b&gt;net&lt;/b&gt;" in html[-1], "a name is no markup"
    assert shown.states[-1]["text/plain"].startswith("<b>net</b> (job-1), macs ≤ 50 %: succeeded, 10 of 10 trials")
    assert capsys.readouterr().out == ""


def test_the_time_left_is_that_of_the_trials_seen() -> None:
    shown, moments = Shown(), iter([100.0, 100.0, 100.0, 130.0, 130.0])
    looking = Notebook(shown, lambda: next(moments))
    looking.show(job_json("running", 2))
    looking.show(job_json("running", 5, reason="Something <odd>."))
    assert "2 of 10 trials, 0:00:00<br>" in shown.states[0]["text/html"]
    assert "5 of 10 trials, 0:00:30, ETA 0:00:50<br>" in shown.states[1]["text/html"]
    assert "running: Something &lt;odd&gt;." in shown.states[1]["text/html"]


def test_ipython_on_a_terminal_is_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook(monkeypatch, types.SimpleNamespace())
    assert isinstance(display(), Bar | Lines)
    notebook(monkeypatch, None)
    assert isinstance(display(), Bar | Lines)
