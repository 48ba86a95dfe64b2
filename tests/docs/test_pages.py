"""The documentation is true: its snippets run, its links lead somewhere, and the page of calls is the service's own.

What needs a running service is run by ``make test-docs`` (walkthrough.py).
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import pruners
import searchers
from tests.docs import api_page
from tests.docs.pages import PAGES, Reader, snippets
from tests.docs.walkthrough import WALKED

RUN_HERE = ("library.md", "pruners.md", "data.md", "webhooks.md")
"""Pages whose Python needs nothing but this repository."""


def test_every_snippet_is_run_or_says_why_not() -> None:
    for page in PAGES:
        for snippet in snippets(page):
            here = page in RUN_HERE and snippet.language == "python"
            assert here or page in WALKED or snippet.skipped, f"{page}:{snippet.line} is run by nobody"


@pytest.mark.parametrize("page", RUN_HERE)
def test_the_snippets_of_a_page_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    reader = Reader(tmp_path)
    reader.run(page, "python")
    if page == "data.md":
        said = "{'train': 80, 'val': 0, 'test': 20} [3, 32, 32] 10 "
        printed = [line[: line.index("[3") + len("[3, 32, 32] 10 ")] for line in capsys.readouterr().out.splitlines()]
        assert printed == [f"{kind} {said}" for kind in ("npz", "parquet", "tar")]
    if page == "webhooks.md":
        verified = reader.names["verified"]
        assert callable(verified)
        secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"test": 2432232314}'
        headers = {
            "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp": "1614265330",
            "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        }
        assert verified(headers, body, secret, lambda: 1614265331)
        assert not verified(headers, body, secret)
        assert not verified(headers, body + b" ", secret, lambda: 1614265331)


def test_every_pruner_is_documented() -> None:
    code = "".join(snippet.code for page in ("library.md", "pruners.md") for snippet in snippets(page))
    assert {name for name in [*pruners.__all__, *searchers.__all__] if name.endswith("Pruner")} <= set(
        re.findall(r"\b\w+Pruner\b", code)
    )
    moving = PAGES["moving-from-nni.md"].read_text()
    for name in [*pruners.__all__, *searchers.__all__]:
        assert not name.endswith("Pruner") or name == "RandomFilterPruner" or name in moving, name


def test_the_page_of_calls_is_what_the_service_says() -> None:
    written = api_page.PAGE.read_text().partition(api_page.MARK)[2]
    assert written == api_page.generated(), "make docs writes it anew"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    path = PAGES[page]
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http://", "https://", "mailto:")):
            name, _, anchor = target.partition("#")
            there = path if not name else (path.parent / name).resolve()
            assert there.exists(), f"{page} links to {target}"
            if anchor:
                assert anchor in anchors(there), f"{page} links to {target}"


def anchors(path: Path) -> set[str]:
    """Of a page's headings, as GitHub and the static site make them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
