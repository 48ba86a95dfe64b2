"""The content-addressed store."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from service.problems import TooLarge
from service.store import Store


def files(store: Store) -> list[Path]:
    return [path for path in store.folder.rglob("*") if path.is_file()]


def test_bytes_come_back_under_their_hash(store: Store) -> None:
    blob = store.put([b"ab", b"", b"c"])
    assert (blob.sha256, blob.size) == (hashlib.sha256(b"abc").hexdigest(), 3)
    assert store.path(blob.sha256).read_bytes() == b"abc"


def test_the_same_bytes_are_kept_once(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert store.put([b"abc"]) == store.put_file(tmp_path / "file")
    assert len(files(store)) == 1


def test_the_limit_is_inclusive_and_checked_while_reading(store: Store) -> None:
    def endless() -> object:
        while True:
            yield b"x" * 100

    assert store.put([b"x" * 250], limit=250).size == 250
    with pytest.raises(TooLarge, match=r"model is larger than the 250 bytes"):
        store.put(endless(), "model", limit=250)  # type: ignore[arg-type]
    assert len(files(store)) == 1


def test_what_is_not_kept_is_gone(store: Store) -> None:
    with store.receive("model") as upload:
        upload.write(b"abc")
        upload.complete()
        assert upload.path.read_bytes() == b"abc"
    assert files(store) == []


@pytest.mark.parametrize("name", ["", "..", "../" + "a" * 61, "/etc/passwd", "A" * 64, "a" * 63, "a" * 65, "a" * 64 + "\n"])
def test_only_a_sha256_is_a_path(store: Store, name: str) -> None:
    with pytest.raises(ValueError, match="is not a sha256"):
        store.path(name)
