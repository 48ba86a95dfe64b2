"""The inspecting process, with the real reader: what it refuses, and that it cannot take the API with it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pruners.errors import InvalidInput
from service.inspection import LimitedProcess
from tests.service.doubles import make_settings
from workers.arrays import read


def test_a_data_set_is_described(tmp_path: Path) -> None:
    images, labels = np.zeros((20, 1, 8, 8), np.float32), np.arange(20) % 10
    np.savez(tmp_path / "data.npz", x_train=images, y_train=labels, x_test=images[:5], y_test=labels[:5])
    found = asyncio.run(LimitedProcess(make_settings(tmp_path))("data", tmp_path / "data.npz", tmp_path / "arrays"))
    assert read(tmp_path / "arrays")["x_test"].shape == (5, 1, 8, 8)
    assert (found["shape"], found["classes"], found["labels"]) == ([1, 8, 8], 10, [0, 9])
    assert (found["splits"]["train"], found["splits"]["test"]) == (20, 5)


@pytest.mark.parametrize("kind", ["model", "data"])
def test_a_file_of_another_kind_is_refused_in_a_sentence(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_bytes(b"\x80\x05not what you think")
    into = tmp_path / "arrays" if kind == "data" else None
    with pytest.raises(InvalidInput) as refused:
        asyncio.run(LimitedProcess(make_settings(tmp_path))(kind, tmp_path / "file", into))  # type: ignore[arg-type]
    assert refused.value.field == kind
    assert str(refused.value).startswith(f"{kind} ")
    assert str(refused.value).endswith(".")


@pytest.mark.parametrize("limits", [{"inspect_memory_bytes": 64 * 2**20}, {"inspect_seconds": 1}])
def test_an_inspection_beyond_its_limits_ends_with_a_refusal(tmp_path: Path, limits: dict[str, int]) -> None:
    """Torch alone takes more than 64 MiB of address space; a pipe that nobody writes to is read for ever."""
    os.mkfifo(tmp_path / "file")
    with pytest.raises(InvalidInput, match=r"model could not be inspected: it needs more than"):
        asyncio.run(LimitedProcess(make_settings(tmp_path, **limits))("model", tmp_path / "file"))


ATTEMPTS = {
    "fill the disk": ("open(os.environ['TMPDIR'] + '/big', 'wb').write(bytes(2 * inspection._SCRATCH_BYTES))", "OSError"),
    "write elsewhere": ("open(path.parent / 'canary', 'wb')", "PermissionError"),
    "rename": ("os.rename(path, path.parent / 'canary')", "PermissionError"),
    "speak": ("socket.create_connection(('127.0.0.1', 9))", "PermissionError"),
    "run a program": ("subprocess.run(['touch', path.parent / 'canary'])", "PermissionError"),
    "unpickle": ("pickle.loads(b'cos\\nsystem\\n(S\\'true\\'\\ntR.')", "PermissionError"),
    # Past Python's own refusals the kernel's are left: a socket, execve, a signal to the service.
    "speak in C": ("check(libc.socket(2, 1, 0))", "PermissionError"),
    "run a program in C": ("check(libc.execl(b'/bin/true', b'true', None))", "PermissionError"),
    "kill": ("os.kill(os.getppid(), 0)", "PermissionError"),
}


def test_the_child_can_do_nothing_but_read(tmp_path: Path) -> None:
    """All attempts in one process, each as if reading an upload had come to it."""
    script = f"""
import ctypes, json, os, pickle, socket, subprocess
from service import inspection
libc = ctypes.CDLL(None, use_errno=True)
def check(code):
    if code < 0:
        raise OSError(ctypes.get_errno(), "refused")
def attempt(kind, unpacked, path):
    found = dict()
    for name, code in {[(name, code) for name, (code, _) in ATTEMPTS.items()]!r}:
        try:
            eval(code, {{**globals(), "path": path}})
        except Exception as error:
            found[name] = type(error).__name__
    return found
inspection._find = attempt
inspection.main(["model", "60", str(2**33), "0", {str(tmp_path / "file")!r}])
"""
    (tmp_path / "file").touch()
    (tmp_path / "scratch").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "scratch")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, env=environment)
    assert json.loads(done.stdout)["found"] == {name: error for name, (_, error) in ATTEMPTS.items()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "scratch"]


def test_the_child_does_not_see_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The admin token and database password are in the API's environment, and an upload is hostile."""
    seen: list[dict[str, str]] = []

    async def start(*_: object, env: dict[str, str], **__: object) -> object:
        seen.append(env)
        raise InvalidInput("model", None, "was not looked at")

    monkeypatch.setenv("SECATEUR_TOKEN", "secret")
    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    with pytest.raises(InvalidInput):
        asyncio.run(LimitedProcess(make_settings(tmp_path))("model", tmp_path))
    assert "secret" not in str(seen)
    assert seen
