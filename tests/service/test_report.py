"""The report of a finished job: one file that needs nothing else, with the API's figures; hostile names do no harm."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from searchers.base import Outcome, Proposal
from service.context import Context
from service.report.charts import HEIGHT, WIDTH, Data, chart, short
from tests.service.test_warm_start import log_of, plan_of
from workers.log import Artefact, Finished, Measurement

HOSTILE = '<script>alert("1")</script> & \u202egnp.exe'
DENSE = Measurement(
    metric=0.95, macs=1000, params=100, size_bytes=4000, latency_ms=2.0, latency_spread_ms=0.1, budget_ratio=1.0
)
BEST = Measurement(metric=0.9375, macs=500, params=50, size_bytes=2000, latency_ms=1.5, latency_spread_ms=0.1, budget_ratio=0.5)


class Page(HTMLParser):
    """What a browser would load, run and show."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.linked: list[str] = []
        self.handlers: list[str] = []
        self.shown: list[str] = []
        self.circles = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.circles += tag == "circle"
        self.linked += [str(value) for name, value in attrs if name in ("src", "href", "srcset", "action")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.shown.append(data)


@pytest.fixture
def job(api: TestClient, context: Context, job_json: dict[str, Any], tmp_path: Any) -> str:
    """Dense, each of two groups alone at two widths, and two plans on the budget, one of which is the winner."""
    made: str = api.post("/jobs", json={**job_json, "name": "a job"}).json()["id"]
    log = log_of(api, made)
    log.running(9)
    plans = [(16, 16), (8, 16), (4, 16), (16, 8), (16, 4), (8, 8), (10, 6)]
    for number, widths in enumerate(plans):
        log.asked(Proposal(number, widths, f"note {number}"), plan_of(widths))
        log.told(number, Outcome(-0.1 * number, 0.9 - 0.01 * number), 0.5, None)
    log.finishing()
    log.progress("Fine-tuning: epoch 1 of 2, loss 0.5000.", epoch=1, epochs=2, loss=0.5)
    log.progress("Something else.")
    log.progress("Fine-tuning: epoch 2 of 2, loss 0.2500.", epoch=2, epochs=2, loss=0.25)
    (tmp_path / "best.pt2").write_bytes(b"network")
    log.succeeded(DENSE, [Finished(5, BEST, [Artefact("pt2", tmp_path / "best.pt2")])])
    return made


def test_it_holds_the_figures_and_needs_nothing_else(api: TestClient, job: str) -> None:
    response = api.get(f"/jobs/{job}/report")
    assert response.headers["content-type"].startswith("text/html")
    assert response.headers["etag"] == f'"{hashlib.sha256(response.content).hexdigest()}"'
    assert "default-src 'none'" in response.headers["content-security-policy"]
    page = Page(response.text)
    assert page.linked == []
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    text = " ".join(" ".join(page.shown).split())
    for figure in ("95.00 %", "93.75 %", "1,000", "500", "50.0 %", "2.000 ms", "1.500 ms", "75.0 %"):
        assert figure in text
    assert hashlib.sha256(b"network").hexdigest() in text
    assert f'torch.export.load("{job}.pt2")' in text
    assert "apply_recipe" in text
    assert "onnxruntime" not in text, "there is no such file"
    assert "note 5" in text
    for title in ("top-1 accuracy on the search inputs", "best so far", "Fine-tuning of the winner", "Sensitivity"):
        assert title in text
    assert "2 of 2 groups" in text
    assert "epoch 2: 0.2500" in text
    assert "Something else" not in text


def shown(api: TestClient, job: str) -> str:
    return " ".join(" ".join(Page(api.get(f"/jobs/{job}/report").text).shown).split())


def finish(
    api: TestClient, request: dict[str, Any], folder: Path, kept: Sequence[tuple[int, Measurement]], trained: int = 0
) -> str:
    """A job of three trials, at 67, 26 and 11 % of the MACs; so many of their networks were trained in the end."""
    made: str = api.post("/jobs", json=request).json()["id"]
    log = log_of(api, made)
    log.running(3)
    for number, widths in enumerate([(13, 13), (8, 8), (5, 5)]):
        log.asked(Proposal(number, widths, "note"), plan_of(widths))
        log.told(number, Outcome(-0.1 * number, 0.9 - 0.01 * number), 0.5, None)
    log.finishing()
    for _ in range(trained):
        for epoch in (1, 2):
            log.progress("Fine-tuning.", epoch=epoch, epochs=2, loss=1 / epoch)
    (folder / "kept.pt2").write_bytes(b"network")
    log.succeeded(DENSE, [Finished(n, figures, [Artefact("pt2", folder / "kept.pt2")]) for n, figures in kept])
    return made


def test_several_budgets_have_a_row_each_with_its_best_network(
    api: TestClient, job_json: dict[str, Any], tmp_path: Path
) -> None:
    kept = [
        (number, replace(BEST, metric=0.94 - 0.01 * number, budget_ratio=ratio)) for number, ratio in enumerate([0.8, 0.5, 0.3])
    ]
    budgets = [{"metric": "macs", "ratio": 0.8}, {"metric": "macs", "ratio": 0.6}]
    text = shown(api, finish(api, {**job_json, "budget": budgets}, tmp_path, kept, trained=2))
    assert "The budgets were 125,465; 94,099 MACs" in text, "0.8 and 0.6 of 156,832"
    assert text.count("best within 94.1k") == 2, "in the search and in fine-tuning, each with a line of its own"
    assert "Fine-tuning of the winners" in text
    for row in (
        "0 macs ≤ 80 % 94.00 % 1.00 points 80.0 %",
        "1 macs ≤ 60 % 93.00 % 2.00 points 50.0 %",
        "2 – 92.00 % 3.00 points",
    ):
        assert row in text
    assert "What it may have lost" not in text


def test_a_constraint_is_said_with_its_bound_and_what_confirmed_it(
    api: TestClient, job_json: dict[str, Any], tmp_path: Path
) -> None:
    kept = [
        (1, replace(BEST, metric=0.9525, max_drop=0.0084)),
        (0, replace(BEST, metric=0.95, budget_ratio=0.8, max_drop=0.0075)),
    ]
    request = {**job_json, "budget": {"metric": "macs"}, "constraint": {"max_metric_drop": 0.2}}
    text = shown(api, finish(api, request, tmp_path, kept))
    assert "allowed drop of top-1 accuracy 20.00 points" in text
    assert "test inputs −0.25 points most that it is, with 95 % confidence 0.84 points" in text
    assert "0 – 95.00 % 0.00 points 0.75 points 80.0 %" in text
    assert "smallest network was searched for" in text


def test_what_it_says_to_post_makes_the_same_job_again(api: TestClient, job: str) -> None:
    import json

    shown = "".join(Page(api.get(f"/jobs/{job}/report").text).shown)
    request = json.loads(shown[shown.rindex('{\n  "name"') : shown.rindex("}") + 1])
    again = api.post("/jobs", json=request).json()
    assert again["spec"] == api.get(f"/jobs/{job}").json()["spec"]


def test_hostile_names_are_shown_harmlessly(api: TestClient, job: str, context: Context) -> None:
    from service.database.tables import Job, Model

    with context.database.write() as session:
        row = session.get_one(Job, job)
        row.name = HOSTILE
        session.get_one(Model, row.model_id).name = HOSTILE
    text = api.get(f"/jobs/{job}/report").text
    page = Page(text)
    assert "script" not in page.tags
    assert page.handlers == []
    assert HOSTILE in "".join(page.shown)


def test_it_is_there_once_the_job_succeeded(api: TestClient, job_json: dict[str, Any]) -> None:
    queued = api.post("/jobs", json=job_json).json()["id"]
    refused = api.get(f"/jobs/{queued}/report")
    assert refused.status_code == 409
    assert refused.json()["detail"] == f"Job {queued} is queued and has no report; it has one once it succeeded."
    assert api.get("/jobs/job-none/report").status_code == 404


def test_a_plot_puts_points_where_they_belong() -> None:
    drawn = chart("t", "x", "y", [Data("s", "strong", [(0, 0), (10, 5), (20, 10)], ["a", "b", "c"], line=True)], [(5, "here")])
    assert drawn is not None
    (series,) = drawn.series
    first, middle, last = series.marks
    assert (middle.x, middle.y) == pytest.approx(((first.x + last.x) / 2, (first.y + last.y) / 2), abs=0.1)
    assert first.x < last.x
    assert first.y > last.y, "up is more"
    assert all(0 <= mark.x <= WIDTH and 0 <= mark.y <= HEIGHT for mark in series.marks)
    assert drawn.rules[0].at == pytest.approx((first.x + middle.x) / 2, abs=0.1)
    assert [tick.label for tick in drawn.x_ticks] == ["0", "5", "10", "15", "20"]
    assert re.fullmatch(r"M[\d.]+ [\d.]+(L[\d.]+ [\d.]+){2}", series.path)


def test_a_plot_of_nothing_is_none_and_one_of_a_single_point_is_one() -> None:
    assert chart("t", "x", "y", [Data("s", "strong", [])]) is None
    assert chart("t", "x", "y", [Data("s", "strong", [(3, 3)], ["a"])]) is not None


def test_a_few_low_points_do_not_flatten_the_others() -> None:
    points = [(float(i), 1 + i / 20) for i in range(20)] + [(20.0, -1000.0)]
    for depths, spread in [(False, 150), (True, 1)]:
        drawn = chart("t", "x", "y", [Data("s", "faint", points, [""] * 21)], depths=depths)
        assert drawn is not None
        heights = [mark.y for mark in drawn.series[0].marks]
        assert (heights[0] - heights[19] > spread) != depths
        assert max(heights) == heights[20] <= drawn.bottom


@pytest.mark.parametrize(
    ("value", "step", "text"),
    [
        (1_500_000, 500_000, "1.5M"),
        (40_000, 10_000, "40k"),
        (0.25, 0.05, "0.25"),
        (-3, 1, "−3"),
        (0.3333, 0, "0.33"),
        (12, 0, "12"),
    ],
)
def test_numbers_are_short_and_can_be_told_apart(value: float, step: float, text: str) -> None:
    assert short(value, step) == text
