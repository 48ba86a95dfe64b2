"""The pages in a real browser: live, keyboard alone, hostile names, and plots that hold what the API returns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.database.tables import Job, Model
from tests.browser.chromium import PATH, browser, sign_in
from tests.browser.scenes import COST, WIDTHS, Search, Site, inspection, site
from tests.service.doubles import TOKEN

pytestmark = [
    pytest.mark.skipif(PATH is None, reason="no Chromium here (Debian: apt-get install chromium)"),
    # Playwright's loop ends with the process's last browser; what it leaves behind is not ours to close.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

AXE = Path(__file__).parent / "vendor" / "axe-core-4.14.1.min.js"
WEIGHT = 1_500_000  # bytes of a page and all that it loads, as they are sent


@pytest.fixture(scope="module")
def place() -> Iterator[Site]:
    with site() as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


@pytest.fixture
def page(place: Site, chromium: Any) -> Iterator[Any]:
    """Signed in, on the list of jobs; whatever a page complains of fails the test."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("dialog", lambda dialog: complaints.append(f"a dialog: {dialog.message}"))
    sign_in(opened, place.url, TOKEN)
    yield opened
    context.close()
    # Chromium itself notes a refused plan, which the form then shows.
    assert [each for each in complaints if "status of 422" not in each] == []


@pytest.fixture
def search(place: Site) -> Search:
    """A job that runs and has tried twelve plans, one of which failed."""
    found = place.search(place.job("watched"))
    for number in range(12):
        found.try_one(failed=number == 3)
    return found


def open_job(page: Any, place: Site, job_id: str, trials: int) -> None:
    page.goto(f"{place.url}/ui/jobs/{job_id}")
    page.wait_for_selector(f'#plots[data-drawn="{trials}"]')


def series(page: Any, plot: str) -> dict[str, list[Any]]:
    """By name, what a plot holds."""
    found: dict[str, list[Any]] = page.evaluate(
        """name => Object.fromEntries(echarts.getInstanceByDom(document.getElementById(name)).getOption().series
           .map(each => [each.name, each.data.map(point => point.value ?? point)]))""",
        plot,
    )
    return found


def test_every_plot_holds_the_numbers_that_the_api_returns(page: Any, place: Site, search: Search) -> None:
    open_job(page, place, search.job_id, 12)
    job = place.api.get(f"/jobs/{search.job_id}").json()
    trials = place.api.get(f"/jobs/{search.job_id}/trials").json()["items"]
    scored = [trial for trial in trials if trial["state"] == "succeeded"]
    pareto = series(page, "pareto")
    front = {point["trial"] for point in job["pareto"]}
    assert pareto["beaten by none"] == [[point["macs"], point["metric"]] for point in job["pareto"]]
    beaten = [[trial["outcome"]["macs"], trial["outcome"]["metric"]] for trial in scored if trial["number"] not in front]
    assert pareto["trial"] == beaten
    limit = page.evaluate(
        "() => echarts.getInstanceByDom(document.getElementById('pareto')).getOption().series[0].markLine.data[0].xAxis"
    )
    assert limit == place.api.get(f"/ui/jobs/{search.job_id}/points").json()["limit"]
    within = [(trial["number"], trial["outcome"]["score"]) for trial in scored if trial["outcome"]["macs"] <= limit]
    history = series(page, "history")
    assert history["trial"] == [list(each) for each in within]
    assert history["best so far"] == [[n, max(score for number, score in within if number <= n)] for n, _ in within]
    timeline = series(page, "timeline")
    assert (len(timeline["evaluated"]), len(timeline["failed"])) == (11, 1)
    assert page.locator("#layers tbody tr").count() == len(trials[0]["proposal"]["widths"])


def test_a_newcomer_gets_from_an_empty_page_to_a_downloaded_network_by_clicks(
    page: Any, place: Site, chromium: Any, tmp_path: Path
) -> None:
    page.get_by_role("button", name="Sign out").click()
    sign_in(page, place.url, place.key("newcomer"))
    assert "Nothing here yet" in page.locator("main").inner_text()
    page.get_by_role("link", name="Start the first one").click()
    (tmp_path / "tiny.pt2").write_bytes(json.dumps(inspection()).encode())
    (tmp_path / "images.npz").write_bytes(b"data of a newcomer")
    page.wait_for_selector("#plan[data-ready]")
    page.get_by_role("button", name="Start the job").click()
    assert "Choose a network" in page.locator("#refused").inner_text()
    page.locator("#model-file").set_input_files(tmp_path / "tiny.pt2")
    page.get_by_text("tiny is here.").wait_for()
    page.locator("#groups").get_by_text("no: is an output of the network").wait_for()
    page.locator("#dataset-file").set_input_files(tmp_path / "images.npz")
    page.get_by_text("reported by top1").wait_for()
    reachable = page.locator("#reachable").inner_text()
    assert f"{100 * COST('macs', [1] * len(WIDTHS)) / COST('macs', WIDTHS):.1f} % and more" in reachable
    page.locator("#searcher").select_option("netadapt")
    page.locator("#searcher-details summary").click()
    page.locator("#searcher\\.winners").fill("-7")
    page.get_by_text("searcher.params.winners -7").wait_for()
    page.locator("#searcher\\.winners").fill("")
    page.locator("#ratio").focus()
    for _ in range(10):
        page.keyboard.press("ArrowLeft")
    page.locator("#plan").get_by_text("7.609M of 19.02M").wait_for()
    page.get_by_label("Name", exact=True).fill("my first")
    page.get_by_role("button", name="Start the job").click()
    page.wait_for_url("**/ui/jobs/job-*")
    job = page.url.rpartition("/")[2]
    assert place.api.get(f"/jobs/{job}").json()["spec"]["budget"] == {"metric": "macs", "ratio": 0.4, "max": None}
    search = place.search(job)
    for _ in range(30):
        search.try_one()
    search.succeed(place.api.get(f"/jobs/{job}").json()["progress"]["best_trial"])
    with page.expect_download() as download:
        page.locator("#get-pt2").click()
    assert download.value.path().read_bytes() == b"the network of " + job.encode()


def test_news_is_seen_without_a_reload(page: Any, place: Site, search: Search) -> None:
    page.evaluate("window.stayed = true")
    page.locator(f"#row-{search.job_id} progress[value='12']").wait_for()
    search.try_one()
    page.locator(f"#row-{search.job_id} progress[value='13']").wait_for()
    assert page.evaluate("window.stayed") is True
    open_job(page, place, search.job_id, 13)
    page.evaluate("window.stayed = true")
    page.locator("#by-score").focus()
    search.try_one()
    page.wait_for_selector('#plots[data-drawn="14"]')
    page.locator("#trial-13").wait_for()
    assert page.evaluate("document.activeElement.id") == "by-score", "what was in focus stays in focus"
    best = place.api.get(f"/jobs/{search.job_id}").json()["progress"]["best_trial"]
    search.succeed(best)
    page.locator("#head .state.succeeded").wait_for()
    page.locator("#get-pt2").wait_for()
    assert "succeeded" in page.locator("#announced").inner_text()
    assert page.evaluate("window.stayed") is True


def test_a_job_is_paused_cancelled_and_deleted_by_keyboard_alone(page: Any, place: Site) -> None:
    job = place.job("by keyboard")
    page.goto(f"{place.url}/ui/jobs")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    reach(page, f"#to-{job}")
    page.keyboard.press("Enter")
    reach(page, "#do-pause")
    page.keyboard.press("Enter")
    page.locator("#head .state.paused").wait_for()
    reach(page, "#do-cancel")
    page.keyboard.press("Enter")
    reach(page, "button.danger")
    page.keyboard.press("Enter")
    page.locator("#head .state.cancelled").wait_for()
    reach(page, "#do-delete")
    page.keyboard.press("Enter")
    reach(page, "button.danger")
    page.keyboard.press("Enter")
    page.wait_for_url("**/ui/jobs")
    assert place.api.get(f"/jobs/{job}").status_code == 404


def reach(page: Any, selector: str) -> None:
    """Presses Tab until that is in focus."""
    page.locator(selector).wait_for()
    for _ in range(60):
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{selector} is out of reach of the keyboard")


def test_hostile_names_do_no_harm(page: Any, place: Site, search: Search) -> None:
    hostile = '<script>alert(1)</script>"><img src=x onerror=alert(2)>{{7*7}}\u202egnp.exe\u0627\u0644\u0633\u0644\u0627\u0645'
    with place.context.database.write() as session:
        row = session.get_one(Job, search.job_id)
        row.name = hostile + "x" * 10_000
        row.reason = hostile
        session.get_one(Model, row.model_id).name = hostile
    page.set_viewport_size({"width": 360, "height": 740})
    for path in ("/ui/jobs", f"/ui/jobs/{search.job_id}", f"/ui/jobs/{search.job_id}/trials/3"):
        page.goto(place.url + path)
        assert hostile in page.locator("main").inner_text()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
    with place.context.database.write() as session:
        session.get_one(Model, session.get_one(Job, search.job_id).model_id).name = "resnet20"
        session.get_one(Job, search.job_id).name = "tame"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page: Any, place: Site, search: Search, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    for path in PAGES:
        page.goto(place.url + path.format(job=search.job_id))
        page.evaluate(AXE.read_text())  # as a string: the page's policy lets in no script of another's
        found = page.evaluate("() => axe.run().then(found => found.violations)")
        serious = [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")]
        assert serious == [], path


PAGES = ["/ui/jobs", "/ui/jobs/{job}", "/ui/jobs/{job}/trials/3", "/ui/jobs/{job}/cancel", "/ui/new"]


def test_the_heaviest_page_is_light(page: Any, place: Site, search: Search) -> None:
    open_job(page, place, search.job_id, 12)
    sent = page.evaluate(
        """() => [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
           .map(each => each.transferSize || each.encodedBodySize).reduce((a, b) => a + b, 0)"""
    )
    assert 100_000 < sent < WEIGHT
