"""Pictures of every page, light, dark and narrow, into a folder: ``python -m tests.browser.screenshots FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.browser.chromium import browser, sign_in
from tests.browser.scenes import COST, WIDTHS, Site, site
from tests.service.doubles import TOKEN

DENSE = COST("macs", WIDTHS)
LOOKS = {"light": ("light", 1280, 1060), "dark": ("dark", 1280, 1060), "narrow": ("light", 360, 740)}


def scene(place: Site) -> dict[str, str]:
    """Jobs in several states; the pages to take, by name."""
    done = place.job("resnet20-half")
    search = place.search(done)
    for group in range(len(WIDTHS)):
        for share in (0.75, 0.5, 0.25):
            search.alone(group, round(share * WIDTHS[group]))
    for number in range(48):
        search.try_one(failed=number in (7, 20))
    search.spread()
    search.succeed(place.api.get(f"/jobs/{done}").json()["progress"]["best_trial"])
    running = place.job("resnet20-third", trials=120, budget={"metric": "params", "ratio": 0.3})
    search = place.search(running, 120)
    for _ in range(31):
        search.try_one()
    search.spread()
    sizes = place.job("resnet20-sizes", trials=60, budget=[{"metric": "macs", "ratio": ratio} for ratio in (0.75, 0.5, 0.3)])
    search = place.search(sizes, 60)
    for _ in range(44):
        search.try_one()
    search.begin_one()
    three = place.job("resnet20-three", budget=[{"metric": "macs", "ratio": ratio} for ratio in (0.7, 0.5, 0.3)])
    search = place.search(three)
    for _ in range(40):
        search.try_one()
    search.spread()
    shares = {each["trial"]: each["macs"] / DENSE for each in place.api.get(f"/jobs/{three}").json()["pareto"]}
    best = [
        max((trial for trial in shares if shares[trial] <= most), key=lambda trial: shares[trial]) for most in (0.7, 0.5, 0.3)
    ]
    search.succeed(*best, max(shares, key=lambda each: shares[each]))
    broken = place.job("vgg16-tiny")
    place.search(broken).log.failed("Trial 0 failed three times in a row; the last said: out of memory on node-1.")
    place.job("mobilenet-waits", trials=200)
    return {
        "jobs": "/ui/jobs",
        "job": f"/ui/jobs/{done}",
        "running": f"/ui/jobs/{running}",
        "sizes": f"/ui/jobs/{sizes}",
        "three": f"/ui/jobs/{three}",
        "compare": f"/ui/compare?job={done}&job={three}",
        "unlike": f"/ui/compare?job={done}&job={running}&job={sizes}",
        "cluster": "/ui/cluster",
        "trial": f"/ui/jobs/{done}/trials/12",
        "confirm": f"/ui/jobs/{done}/delete",
        "missing": "/ui/jobs/job-7",
        "new": "/ui/new",
    }


def main(folder: Path) -> None:
    """Takes them."""
    folder.mkdir(parents=True, exist_ok=True)
    with site() as place, browser() as chromium:
        pages = scene(place)
        for look, (scheme, width, height) in LOOKS.items():
            context = chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": height})
            page = context.new_page()
            page.goto(place.url + "/ui/login")
            page.screenshot(path=folder / f"login-{look}.png")
            sign_in(page, place.url, TOKEN)
            for name, address in pages.items():
                page.goto(place.url + address)
                if name == "new":
                    page.wait_for_selector("#plan[data-ready]")
                    for kind in ("model", "dataset"):
                        page.locator(f"#{kind}").select_option(index=1)
                    page.get_by_text("reported by").wait_for()
                if page.locator("#plots").count():
                    page.wait_for_selector("#plots[data-drawn]")
                if page.locator("#plans").count():  # asked for when it comes into sight
                    page.locator("#plans-mark").scroll_into_view_if_needed()
                    page.wait_for_selector("#plans[data-drawn]", state="attached")
                    page.evaluate("scrollTo(0, 0)")
                page.screenshot(path=folder / f"{name}-{look}.png", full_page=True)
                if name == "job":  # as it opens: the one for README
                    page.screenshot(path=folder / f"{name}-top-{look}.png")
            context.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
