"""What ten thousand trials cost a browser that watches them, beside a job without any in the same run.

``python -m benchmarks.page``: a service in this process with two made-up jobs, and Debian's Chromium on their pages. Printed as
a table and as JSON, of each page in milliseconds, medians of several openings:

    first_paint     from the click to the first pixels
    plots           from the click until the plots hold every trial
    longest_block   the longest that the page did not answer while it opened, was scrolled through, pointed at and turned over
    bytes           of the page and all that it loads, as they are sent
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from tests.browser.chromium import browser, sign_in
from tests.browser.scenes import Site, fill, site
from tests.service.doubles import TOKEN

TARGETS = {"first_paint": 1500.0, "bytes": 1_500_000}
LEAST = 50.0  # milliseconds from which on Chromium speaks of a block

_WATCH = """
window.longest = 0;
new PerformanceObserver(list => { for (const each of list.getEntries()) longest = Math.max(longest, each.duration); })
    .observe({ type: "longtask", buffered: true });
"""


def measure(page: Any, place: Site, job: str, trials: int) -> dict[str, float]:
    """One opening of a job's page, with nothing kept from the one before."""
    page.goto(f"{place.url}/ui/jobs/{job}")
    page.wait_for_selector(f"#plots[data-drawn='{trials}']", state="attached")
    drawn = page.evaluate("performance.now()")
    if trials:
        page.locator("#plans-mark").scroll_into_view_if_needed()
        page.wait_for_selector("#plans[data-drawn]", state="attached")
        plot = page.locator("#pareto")
        plot.scroll_into_view_if_needed()
        box = plot.bounding_box()
        for step in range(12):  # over the dots, which then say what they are
            page.mouse.move(box["x"] + 80 + 30 * step, box["y"] + 60 + 12 * step)
    page.mouse.wheel(0, 3000)
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    found = page.evaluate(
        """() => ({
            first_paint: performance.getEntriesByName("first-contentful-paint")[0].startTime,
            longest_block: longest,
            bytes: [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
                .map(each => each.transferSize || each.encodedBodySize).reduce((a, b) => a + b, 0),
        })"""
    )
    return {**found, "plots": drawn}


def medians(found: list[dict[str, float]]) -> dict[str, float]:
    """By name, of all rounds."""
    return {key: round(statistics.median(each[key] for each in found), 1) for key in found[0]}


def main() -> None:
    """Measures, and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with site() as place, browser() as chromium:
        jobs = {"empty": (place.job("empty"), 0), "full": (place.job("full", arguments.trials), arguments.trials)}
        for job, trials in jobs.values():
            place.search(job, trials)
            if trials:
                fill(place, job, trials)
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in jobs}
        for _ in range(arguments.rounds):
            for name, (job, trials) in jobs.items():  # in turns, so that both meet the same machine
                context = chromium.new_context(viewport={"width": 1280, "height": 900})
                page = context.new_page()
                sign_in(page, place.url, TOKEN)
                page.add_init_script(_WATCH)
                rounds[name].append(measure(page, place, job, trials))
                context.close()
    figures = {name: medians(found) for name, found in rounds.items()}
    ratios = {key: round(figures["full"][key] / max(figures["empty"][key], LEAST), 2) for key in figures["full"]}
    print(f"{'':24}{'empty':>12}{arguments.trials:>12,}{'ratio':>8}{'target':>12}")
    for key, ratio in ratios.items():
        target = f"< {TARGETS[key]:,.0f}" if key in TARGETS else ""
        print(f"{key:24}{figures['empty'][key]:12,.0f}{figures['full'][key]:12,.0f}{ratio:8.2f}{target:>12}")
    result = {"trials": arguments.trials, "rounds": arguments.rounds, **figures, "ratio": ratios}
    print(json.dumps(result))
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
