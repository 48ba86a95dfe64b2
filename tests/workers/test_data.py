"""Data sets: what is accepted, how it is split, and one clear sentence for everything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pruners.errors import InvalidInput
from workers.data import as_input, describe, load


def arrays(**changes: Any) -> dict[str, Any]:
    random = np.random.default_rng(0)
    good = {
        "x_train": random.integers(0, 256, (50, 1, 4, 4), dtype=np.uint8),
        "y_train": np.arange(50) % 5,
        "x_test": random.integers(0, 256, (20, 1, 4, 4), dtype=np.uint8),
        "y_test": np.arange(20) % 5,
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def saved(path: Path, **changes: Any) -> Path:
    np.savez_compressed(path, **arrays(**changes))
    return path


def test_describes_what_is_there(tmp_path: Path) -> None:
    assert describe(saved(tmp_path / "d.npz")) == {
        "splits": {"train": 50, "test": 20, "val": 0},
        "shape": [1, 4, 4],
        "dtype": "uint8",
        "classes": 5,
        "labels": [0, 4],
    }


def test_search_images_are_held_out_of_training(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "d.npz", x_train=np.arange(50, dtype=np.float32).reshape(50, 1), x_test=np.ones((20, 1), np.float32)
    )
    splits = load(path, seed=3)
    train, search = set(splits.train.x.ravel()), set(splits.search.x.ravel())
    assert len(search) == 10
    assert not train & search
    assert len(train | search) == 50
    assert (splits.search.y == splits.search.x.ravel().astype(int) % 5).all(), "labels go with their images"
    assert (load(path, seed=3).search.x == splits.search.x).all()
    assert (load(path, seed=4).search.x != splits.search.x).any()


def test_x_val_is_what_the_search_sees(tmp_path: Path) -> None:
    x_val, y_val = np.full((7, 1, 4, 4), 9, np.uint8), np.zeros(7, np.int64)
    splits = load(saved(tmp_path / "d.npz", x_val=x_val, y_val=y_val), seed=0)
    assert (splits.search.x == 9).all()
    assert len(splits.train) == 50


def test_bytes_are_scaled_and_floats_are_not() -> None:
    assert as_input(np.array([0, 255], np.uint8)).tolist() == [0.0, 1.0]
    assert as_input(np.array([0.5, -3.0])).tolist() == [0.5, -3.0]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"y_test": None}, "x_train, y_train, x_test, y_test"),
    "unknown": ({"labels": np.zeros(3)}, "must hold exactly"),
    "half of a split": ({"x_val": np.zeros((3, 1, 4, 4), np.uint8)}, "must hold exactly"),
    "shapes differ": ({"x_test": np.zeros((20, 3, 4, 4), np.uint8)}, r"x_test 'uint8 \[3, 4, 4\]' differs"),
    "dtypes differ": ({"x_test": np.zeros((20, 1, 4, 4), np.float32)}, "x_test .* differs from x_train"),
    "counts differ": ({"y_train": np.arange(49)}, "y_train .* must be 50 whole-number labels"),
    "one-hot": ({"y_train": np.eye(50)}, "y_train .* labels"),
    "negative": ({"y_train": np.arange(50) - 1}, "y_train -1 is a negative label"),
    "integers": ({"x_train": np.zeros((50, 1, 4, 4), np.int64)}, "x_train .*must be uint8 or float"),
    "infinite": (
        {"x_train": np.full((50, 1, 4, 4), np.inf, np.float32), "x_test": np.ones((20, 1, 4, 4), np.float32)},
        "x_train holds values that are not finite",
    ),
    "pickled": ({"x_train": np.array([{"a": 1}] * 50, dtype=object)}, "no plain array"),
    "empty": ({"x_test": np.zeros((0, 1, 4, 4), np.uint8), "y_test": np.zeros(0, np.int64)}, "x_test 0 is too few images"),
}


@pytest.mark.parametrize(("changes", "sentence"), BAD.values(), ids=BAD)
def test_unusable_data_is_refused(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        describe(saved(tmp_path / "d.npz", **changes))


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "d.npz").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(InvalidInput, match=r"not an \.npz"):
        describe(tmp_path / "d.npz")


def test_decompression_bombs_are_refused_unread(tmp_path: Path) -> None:
    bomb = np.zeros((2, 1, 6000, 6000), np.uint8)
    path = saved(tmp_path / "d.npz", x_train=bomb, y_train=np.zeros(2, np.int64), x_test=bomb, y_test=np.zeros(2, np.int64))
    with pytest.raises(InvalidInput, match="expands more than"):
        describe(path)
