"""The pages in a real browser: live, keyboard alone, hostile names, and plots that hold what the API returns."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from service.database.tables import Dataset, Job, Model, Trial
from tests.browser.chromium import PATH, browser, sign_in
from tests.browser.scenes import COST, NAMES, WIDTHS, Search, Site, inspection, site
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
    return dict(all_series(page, plot))


def all_series(page: Any, plot: str) -> list[tuple[str, list[Any]]]:
    """Names, which several may have, and data."""
    found: list[tuple[str, list[Any]]] = page.evaluate(
        """name => echarts.getInstanceByDom(document.getElementById(name)).getOption().series
           .map(each => [each.name, each.data.map(point => point.value ?? point)])""",
        plot,
    )
    return found


def at_ms(moment: str) -> int:
    """Since 1970, in milliseconds."""
    return round(1000 * datetime.fromisoformat(moment).timestamp())


def budgets(page: Any) -> list[float]:
    """Where the budgets' lines stand."""
    found: list[float] = page.evaluate(
        """() => echarts.getInstanceByDom(document.getElementById('pareto')).getOption().series[0].markLine.data
           .map(each => each.xAxis)"""
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
    (limit,) = budgets(page)
    assert [limit] == place.api.get(f"/ui/jobs/{search.job_id}/points").json()["limits"]
    within = [(trial["number"], trial["outcome"]["score"]) for trial in scored if trial["outcome"]["macs"] <= limit]
    history = series(page, "history")
    assert history["trial"] == [list(each) for each in within]
    assert history["best so far"] == [[n, max(score for number, score in within if number <= n)] for n, _ in within]
    timeline = series(page, "timeline")
    for name, state in (("evaluated", "succeeded"), ("failed", "failed")):
        times = [[at_ms(trial["started_at"]), at_ms(trial["finished_at"])] for trial in trials if trial["state"] == state]
        assert [bar[1:] for bar in timeline[name]] == times
    lanes = [bar[0] for bar in sorted(timeline["evaluated"] + timeline["failed"], key=lambda bar: bar[1])]
    assert lanes == [number % 3 for number in range(12)], "as the trials' workers are"
    best = next(trial for trial in trials if trial["number"] == job["progress"]["best_trial"])
    drawn = page.locator("#network g").evaluate_all("all => all.map(each => [each.dataset.layer, Number(each.dataset.kept)])")
    assert dict(drawn) == {**best["proposal"]["widths"], "fc": 10}, "what the search leaves alone is there whole"
    assert page.locator("#widths tbody tr").count() == len(best["proposal"]["widths"])


def test_plots_by_group_hold_what_trials_left_of_each(page: Any, place: Site) -> None:
    search = place.search(place.job("by group"))
    for width in (12, 8, 4):
        search.alone(2, width)
        search.alone(7, 4 * width)
    for _ in range(5):
        search.try_one()
    trials = place.api.get(f"/jobs/{search.job_id}/trials").json()["items"]
    open_job(page, place, search.job_id, 11)
    page.locator("#plans-mark").scroll_into_view_if_needed()
    page.wait_for_selector("#plans[data-drawn='11']")
    alone = [trial for trial in trials if trial["number"] < 6]
    for name, chosen in ((NAMES[2], alone[0::2]), (NAMES[7], alone[1::2])):
        shown = series(page, "sensitivity")[name]
        removed = [100 * trial["proposal"]["sparsity"][name] for trial in chosen]
        assert [point[0] for point in shown] == pytest.approx(removed)
        assert [point[1:] for point in shown] == [[trial["outcome"]["score"], trial["number"]] for trial in chosen]
    for line, trial in zip(series(page, "parallel")["trial"], trials[6:], strict=True):
        kept = [100 * (1 - trial["proposal"]["sparsity"][name]) for name in NAMES]
        assert line == [*(pytest.approx(share, abs=0.051) for share in kept), trial["outcome"]["metric"]]


def test_several_budgets_are_lines_of_one_plot_each_with_its_best(page: Any, place: Site) -> None:
    search = place.search(place.job("three sizes", budget=[{"metric": "macs", "ratio": ratio} for ratio in (0.5, 0.8, 0.3)]))
    for _ in range(40):
        search.try_one()
    open_job(page, place, search.job_id, 40)
    limits = [int(COST("macs", WIDTHS) * ratio) for ratio in (0.8, 0.5, 0.3)]
    assert budgets(page) == limits
    trials = [trial["outcome"] | trial for trial in place.api.get(f"/jobs/{search.job_id}/trials").json()["items"]]
    best = [max((trial for trial in trials if trial["macs"] <= limit), key=lambda trial: trial["score"]) for limit in limits]
    assert page.locator("#sizes tbody th").all_inner_texts() == ["macs ≤ 80 %", "macs ≤ 50 %", "macs ≤ 30 %"]
    assert page.locator("#sizes tbody a").all_inner_texts() == [str(trial["number"]) for trial in best]
    assert sorted(series(page, "pareto")["best"]) == sorted([trial["macs"], trial["metric"]] for trial in best)
    history = [data for name, data in all_series(page, "history") if name.startswith("best within")]
    assert [data[-1][1] for data in history] == [trial["score"] for trial in best]
    beside = next(trial["number"] for trial in trials if trial not in best)
    search.succeed(*(trial["number"] for trial in best), beside)
    page.locator("#kept").wait_for()
    kept = place.api.get(f"/jobs/{search.job_id}/checkpoints").json()["items"]
    assert page.locator("#sizes td:nth-child(5)").all_inner_texts() == [f"{100 * each['metric']:.2f} %" for each in kept[:3]]
    shown = [page.locator(f"#kept {cell}").all_inner_texts() for cell in ("tbody a[href*=trials]", "td:nth-child(2)")]
    assert shown == [[str(each["trial"]) for each in kept[1:]], ["macs ≤ 50 %", "macs ≤ 30 %", "–"]]
    links = page.locator("#kept a[download]").evaluate_all("all => all.map(each => each.getAttribute('href'))")
    assert sorted(links) == sorted(file["href"] for each in kept[1:] for file in each["files"])


def test_jobs_are_ticked_and_compared(page: Any, place: Site, search: Search) -> None:
    other = place.search(place.job("the other", budget=[{"metric": "macs", "ratio": ratio} for ratio in (0.65, 0.9)]))
    for _ in range(5):
        other.try_one()
    page.goto(f"{place.url}/ui/jobs")
    page.locator(f"#pick-{search.job_id}").check()
    other.try_one()
    page.locator(f"#row-{other.job_id} progress[value='6']").wait_for()
    assert page.locator(f"#pick-{search.job_id}").is_checked(), "news leaves ticks as they are"
    page.get_by_role("button", name="Compare").click()
    assert "tick two to 8" in page.locator("main").inner_text()
    page.go_back()
    for picked in (search, other):
        page.locator(f"#pick-{picked.job_id}").check()
    page.get_by_role("button", name="Compare").click()
    page.wait_for_selector("#plots[data-drawn='2']")
    history, pareto = all_series(page, "history"), series(page, "pareto")
    assert [name for name, _ in history] == ["1 the other", "1 the other", "2 watched"], "a line for each budget"
    for place_, (name, job) in enumerate((("the other", other.job_id), ("watched", search.job_id)), start=1):
        shown = place.api.get(f"/jobs/{job}").json()
        assert pareto[f"{place_} {name}"] == [[point["macs"], point["metric"]] for point in shown["pareto"]]
        best = shown["progress"]
        if best["best_trial"] is not None:
            newest = best["finished"] - 1
            line = next(data for each, data in history if each == f"{place_} {name}")
            assert line[-2:] == [[at, best["best_metric"]] for at in (best["best_trial"], newest)]
    assert page.locator(".compared tbody th a").all_inner_texts() == ["the other", "watched"]
    trials = [trial["outcome"] for trial in place.api.get(f"/jobs/{other.job_id}/trials").json()["items"]]
    rows = page.locator(".compared tbody").first.locator("tr")
    for ratio, row in zip((0.9, 0.65), rows.all(), strict=True):
        within = [trial for trial in trials if trial["macs"] <= ratio * COST("macs", WIDTHS)]
        best_metric = max(within, key=lambda trial: trial["score"])["metric"] if within else None
        figures = row.locator("td").all_inner_texts()[:4]
        assert figures[0] == f"macs ≤ {100 * ratio:g} %"
        assert figures[1].startswith("–" if best_metric is None else f"{100 * best_metric:.2f} %")


def test_the_cluster_page_tells_who_works_and_who_waits(page: Any, place: Site, search: Search) -> None:
    search.begin_one()
    waiting = place.job("in the queue")
    page.goto(f"{place.url}/ui/cluster")
    queue = [job for job in reversed(place.api.get("/jobs").json()["items"]) if job["state"] == "queued"]
    row = page.locator("#queue tr", has=page.locator(f'a[href$="{waiting}"]'))
    state, behind = row.locator("td").all_inner_texts()[:2]
    assert (state.strip(), behind) == ("queued", str(1 + [job["id"] for job in queue].index(waiting)))
    assert page.locator("#waiting").inner_text() == str(len(queue))
    told = dict(re.findall(r"^secateur_workers(\S*) (\d+)", place.api.get("/metrics").text, re.MULTILINE))
    assert page.locator("#busy").inner_text() == f"{told['_busy']} of {told['']}"
    assert page.locator("#running a").last.inner_text() == "12"
    assert {"100", "101", "102"} <= set(page.locator("#workers td:nth-child(2)").all_inner_texts())


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
    slider = page.locator("#ratio")
    slider.click(position={"x": 0.4 * slider.bounding_box()["width"], "y": 8})
    share = int(slider.input_value())
    assert 35 < share < 45
    page.locator("#plan").get_by_text(f"{share / 100 * COST('macs', WIDTHS) / 1e6:.4g}M of 19.02M").wait_for()
    page.get_by_label("Name", exact=True).fill("my first")
    page.get_by_label("Smaller ones").fill("30, x")
    page.locator("#refused").get_by_text("budget.2.ratio").wait_for()
    assert page.locator("#further").get_attribute("aria-invalid") == "true"
    page.get_by_label("Smaller ones").fill("30 %, 27.5")
    page.locator("#plan").get_by_text("3 networks of different sizes").wait_for()
    page.get_by_label("Images that it is trained on").select_option("mirrored, shifted and mixed")
    page.get_by_role("button", name="Start the job").click()
    page.wait_for_url("**/ui/jobs/job-*")
    job = page.url.rpartition("/")[2]
    spec = place.api.get(f"/jobs/{job}").json()["spec"]
    assert spec["budget"] == [{"metric": "macs", "ratio": ratio, "max": None} for ratio in (share / 100, 0.3, 0.275)]
    assert spec["recovery"]["recipe"]["augment"] == ["flips", "crops", "cutmix"]
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


def test_a_job_is_started_paused_cancelled_and_deleted_by_keyboard_alone(page: Any, place: Site) -> None:
    place.job("its network and data")
    page.goto(f"{place.url}/ui/jobs")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    reach(page, "nav a[href='/ui/new']")
    page.keyboard.press("Enter")
    page.wait_for_selector("#plan[data-ready]")
    for upload in ("model", "dataset"):
        reach(page, f"#{upload}")
        page.keyboard.press("ArrowDown")
    page.get_by_text("reported by top1").wait_for()
    reach(page, "#name")
    page.keyboard.type("by keyboard")
    reach(page, "#start")
    page.keyboard.press("Enter")
    page.wait_for_url("**/ui/jobs/job-*")
    job = page.url.rpartition("/")[2]
    assert place.api.get(f"/jobs/{job}").json()["spec"]["budget"] == {"metric": "macs", "ratio": 0.5, "max": None}
    page.goto(f"{place.url}/ui/jobs")
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
    beside = place.job("beside it")
    with place.context.database.write() as session:
        row = session.get_one(Job, search.job_id)
        row.name = hostile + "x" * 10_000
        row.reason = row.message = hostile
        session.get_one(Model, row.model_id).name = hostile
        session.get_one(Dataset, row.dataset_id).name = hostile + "x" * 10_000
        session.get_one(Trial, (row.id, 3)).error = hostile + "x" * 10_000
        session.get_one(Trial, (row.id, 11)).note = hostile + "x" * 10_000
    page.set_viewport_size({"width": 360, "height": 740})
    search.begin_one()
    own, both = f"/ui/jobs/{search.job_id}", f"/ui/compare?job={search.job_id}&job={beside}"
    for path in ("/ui/jobs", "/ui/cluster", both, own, f"{own}/trials/3"):
        page.goto(place.url + path)
        assert hostile in page.locator("main").inner_text()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
    page.goto(f"{place.url}/ui/new")
    page.wait_for_selector("#plan[data-ready]")
    for upload in ("model", "dataset"):
        assert any(hostile in option for option in page.locator(f"#{upload} option").all_text_contents())
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    with place.context.database.write() as session:
        session.get_one(Model, session.get_one(Job, search.job_id).model_id).name = "resnet20"
        session.get_one(Job, search.job_id).name = "tame"
        session.get_one(Dataset, session.get_one(Job, search.job_id).dataset_id).name = "cifar10"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page: Any, place: Site, search: Search, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    several = place.search(place.job("beside it", budget=[{"ratio": 0.9}, {"ratio": 0.8}]))
    for _ in range(6):
        several.try_one()
    several.succeed(5, 4)
    other = several.job_id
    for path in PAGES:
        page.goto(place.url + path.format(job=search.job_id, other=other))
        page.evaluate(AXE.read_text())  # as a string: the page's policy lets in no script of another's
        found = page.evaluate("() => axe.run().then(found => found.violations)")
        serious = [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")]
        assert serious == [], path


PAGES = [
    "/ui/jobs",
    "/ui/cluster",
    "/ui/compare?job={job}&job={other}",
    "/ui/jobs/{job}",
    "/ui/jobs/{job}/trials/3",
    "/ui/jobs/{job}/cancel",
    "/ui/jobs/{other}",
    "/ui/jobs?after=job-0",
    "/ui/new",
    "/ui/login",
    "/ui/compare",  # of nothing: an error as a page
]


def test_the_heaviest_page_is_light(page: Any, place: Site, search: Search) -> None:
    open_job(page, place, search.job_id, 12)
    sent = page.evaluate(
        """() => [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
           .map(each => each.transferSize || each.encodedBodySize).reduce((a, b) => a + b, 0)"""
    )
    assert 100_000 < sent < WEIGHT
