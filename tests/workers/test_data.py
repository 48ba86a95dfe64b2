"""A job's data: how it is split and read, and that the arrays file gives back what was written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.workers.files import npz
from workers import arrays
from workers.arrays import Column
from workers.data import as_input, load


def test_search_images_are_held_out_of_training(tmp_path: Path) -> None:
    path = npz(tmp_path / "d.npz", x_train=np.arange(50, dtype=np.float32).reshape(50, 1), x_test=np.ones((20, 1), np.float32))
    splits = load(path, seed=3)
    train, search = set(splits.train.x.ravel()), set(splits.search.x.ravel())
    assert len(search) == 10
    assert not train & search
    assert len(train | search) == 50
    assert (splits.search.y == splits.search.x.ravel().astype(int) % 5).all(), "labels go with their images"
    assert (load(path, seed=3).search.x == splits.search.x).all()
    assert (load(path, seed=4).search.x != splits.search.x).any()


def test_x_val_is_what_the_search_sees_and_the_first_images_stand_for_all(tmp_path: Path) -> None:
    x_val, y_val = np.full((7, 1, 4, 4), 9, np.uint8), np.zeros(7, np.int64)
    splits = load(npz(tmp_path / "d.npz", y_train=np.arange(50) // 10, x_val=x_val, y_val=y_val), seed=0)
    assert (splits.search.x == 9).all()
    assert len(splits.train) == 50
    assert len(set(splits.train.first(20).y)) == 5, "though the file has one class after the other"


def test_without_labels_there_are_none(tmp_path: Path) -> None:
    splits = load(npz(tmp_path / "d.npz", y_train=None, y_test=None), seed=0)
    assert splits.train.y is splits.search.labels is splits.test.y is None
    assert [labels for _, labels in splits.test.batches()] == [None]
    assert (len(splits.train), len(splits.search)) == (40, 10)


def test_bytes_are_scaled_and_floats_are_not() -> None:
    assert as_input(np.array([0, 255], np.uint8)).tolist() == [0.0, 1.0]
    assert as_input(np.array([0.5, -3.0])).tolist() == [0.5, -3.0]


def test_arrays_are_mapped_as_they_were_written(tmp_path: Path) -> None:
    made = {
        "bytes": np.arange(7, dtype=np.uint8)[:, None],
        "halves": np.ones((3, 2), np.float16),
        "floats": np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32),
        "whole": np.arange(-2, 3),
        "none": np.zeros((0, 5), np.float32),
    }
    arrays.write(tmp_path / "arrays", {name: Column.of(array) for name, array in made.items()})
    found = arrays.read(tmp_path / "arrays")
    assert found.keys() == made.keys()
    for name, array in made.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)
        assert found[name].ctypes.data % array.itemsize == 0
    assert isinstance(found["floats"], np.memmap)
    assert not found["floats"].flags.writeable
    assert arrays.is_arrays(tmp_path / "arrays")


def test_other_people_read_it_as_safetensors(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    arrays.write(tmp_path / "arrays", {"x": Column.of(np.arange(6.0, dtype=np.float32)), "y": Column.of(np.arange(3))})
    found = load_file(tmp_path / "arrays")
    assert (found["x"].tolist(), found["y"].tolist()) == ([0, 1, 2, 3, 4, 5], [0, 1, 2])


@pytest.mark.parametrize("size", [0, 5, 40, 90])
def test_a_cut_off_file_is_said_to_be_one(tmp_path: Path, size: int) -> None:
    arrays.write(tmp_path / "arrays", {"x": Column.of(np.arange(6.0, dtype=np.float32))})
    content = (tmp_path / "arrays").read_bytes()
    assert len(content) > 90
    (tmp_path / "arrays").write_bytes(content[:size])
    with pytest.raises(ValueError, match=r"arrays|JSON|Expecting|Unterminated"):
        arrays.read(tmp_path / "arrays")


def test_pieces_that_do_not_add_up_are_an_error(tmp_path: Path) -> None:
    short = Column(np.dtype("<f4"), (3, 2), lambda: iter([np.zeros((2, 2), np.float32)]))
    with pytest.raises(ValueError, match="x has 2 rows, not 3"):
        arrays.write(tmp_path / "arrays", {"x": short})
