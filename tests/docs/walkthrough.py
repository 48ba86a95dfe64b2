"""A user who never saw the project and does what the pages say, with curl, the command line and Python: ``make test-docs``.

One service for all pages, in a process of its own with a Ray of its own. It takes minutes, so the suite does without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from service.demo.tour import serving
from tests.docs.pages import Reader

WALKED = ("README.md", "quickstart.md", "api.md", "moving-from-nni.md", "data.md", "security.md")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Its address and its data folder."""
    data_dir = tmp_path_factory.mktemp("service") / "data"
    with serving(data_dir, allow_code="true") as client:
        yield client.url, data_dir


@pytest.fixture
def reader(service: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """On the machine of the service, whose data folder is in theirs."""
    url, data_dir = service
    (tmp_path / "secateur-data").symlink_to(data_dir)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SECATEUR_TOKEN", raising=False)
    monkeypatch.setenv("SECATEUR_URL", url)
    torch.manual_seed(0)
    return Reader(tmp_path, url)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", WALKED)
def test_what_a_page_says_is_done(page: str, reader: Reader, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reader.run(page)
    printed = capsys.readouterr().out
    if page == "README.md":
        pruned = torch.export.load(tmp_path / "resnet20-pruned.pt2").module()
        assert pruned(torch.zeros(5, 3, 32, 32)).shape == (5, 10)
        assert "<html" in next(tmp_path.glob("*.html")).read_text()
        assert "<svg" in (tmp_path / "resnet20.svg").read_text()
    if page == "quickstart.md":
        assert float(printed.split()[-1]) > 0.8, "half of the multiplications, and it still reads digits"
    if page == "api.md":
        ratios = [float(line.split()[0]) for line in printed.splitlines() if re.match(r"0\.[46] ", line)]
        assert np.allclose(ratios, [0.4, 0.6])
