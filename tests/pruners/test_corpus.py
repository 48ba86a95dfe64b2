"""No archive, however broken or malicious, does anything but be refused in one sentence or read harmlessly."""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pruners.errors import InvalidInput
from pruners.graph.modules import build_module
from pruners.graph.program import read_program
from tests.exporting import export
from tests.pruners.corpus import CASES, HARMLESS, Payload, Sample


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x)).mean((2, 3)))


@dataclass
class Bait:
    """Notices code that runs: a file that it would write, and a listener that it would connect to."""

    canary: Path
    listener: socket.socket

    def taken(self) -> bool:
        try:
            self.listener.accept()[0].close()
        except BlockingIOError:
            called = False
        else:
            called = True
        written = self.canary.exists()
        self.canary.unlink(missing_ok=True)
        assert called == written
        return written


@pytest.fixture(scope="module")
def bait(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bait]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield Bait(tmp_path_factory.mktemp("bait") / "canary", listener)


@pytest.fixture(scope="module")
def sample(bait: Bait, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    path = export(Tiny(), (3, 8, 8), tmp_path_factory.mktemp("good") / "good.pt2")
    return Sample.of(path, Payload(bait.canary, bait.listener.getsockname()[1]))


def test_the_bait_works(bait: Bait, sample: Sample) -> None:
    assert not bait.taken()
    pickle.loads(sample.pickled)  # noqa: S301 - proves that code which runs is noticed
    assert bait.taken()


def test_the_unchanged_archive_is_good(sample: Sample, tmp_path: Path) -> None:
    path = tmp_path / "good.pt2"
    path.write_bytes(sample.with_members())
    assert build_module(read_program(path))(torch.zeros(2, 3, 8, 8)).shape == (2, 2)


@pytest.mark.parametrize(("build", "named"), CASES.values(), ids=CASES)
def test_case(build: object, named: str, bait: Bait, sample: Sample, tmp_path: Path) -> None:
    path = tmp_path / "case.pt2"
    path.write_bytes(build(sample))
    try:
        build_module(read_program(path))
    except InvalidInput as error:
        sentence = str(error)
        assert named in sentence
        assert sentence.startswith("model ")
        assert sentence.endswith(".")
        assert sentence.isprintable()
        assert len(sentence) < 500
    else:
        assert named == HARMLESS
    assert not bait.taken()


_WATCHED = """
import contextlib, resource, sys
from pathlib import Path
from pruners.errors import InvalidInput
from pruners.graph.modules import build_module
from pruners.graph.program import read_program

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def read(path):
    with contextlib.suppress(InvalidInput):
        build_module(read_program(path))

forbidden = ("socket.", "subprocess.", "pickle.", "ctypes.", "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork",
             "os.remove", "os.rename", "os.mkdir", "os.chmod", "os.link", "os.symlink", "shutil.", "urllib.", "code.__new__")

def watch(event, arguments):
    if event.startswith(forbidden) or (event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")):
        print("forbidden", event, repr(arguments)[:200])

good, *cases = sorted(Path(sys.argv[1]).iterdir())
read(good)
before = peak()
sys.addaudithook(watch)
for path in cases:
    read(path)
print("grown", peak() - before)
"""


def watched(folder: Path) -> int:
    """Reads the folder's files, the first of them unwatched, and gives the growth of the peak memory in bytes."""
    done = subprocess.run([sys.executable, "-c", _WATCHED, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *reports, grown = done.stdout.splitlines()
    assert not reports, reports
    return int(grown.removeprefix("grown "))


def test_the_corpus_touches_nothing_and_takes_little_memory(bait: Bait, sample: Sample, tmp_path: Path) -> None:
    (tmp_path / "0").write_bytes(sample.good)
    for number, (build, _) in enumerate(CASES.values(), start=1):
        (tmp_path / f"{number}").write_bytes(build(sample))
    assert watched(tmp_path) < 200 * 2**20
    assert not bait.taken()


def test_reading_takes_at_most_twice_the_file(sample: Sample, tmp_path: Path) -> None:
    (tmp_path / "0").write_bytes(sample.good)
    export(nn.Sequential(nn.Linear(4096, 8192, bias=False)), (4096,), tmp_path / "1")
    assert watched(tmp_path) < 2 * (tmp_path / "1").stat().st_size
