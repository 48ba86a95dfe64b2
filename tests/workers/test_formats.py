"""What data sets may come as: what becomes of each, and one clear sentence for everything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pruners.errors import InvalidInput
from tests.workers.files import image, npz, parquet, tar
from workers import arrays
from workers.formats.base import DRAWN
from workers.formats.convert import VERSION, convert


def converted(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    found = convert(path, path.with_suffix(".arrays"))
    return found, arrays.read(path.with_suffix(".arrays"))


def test_an_npz_is_taken_as_it_is(tmp_path: Path) -> None:
    path = npz(tmp_path / "d.npz")
    found, written = converted(path)
    assert found == {
        "version": VERSION,
        "format": "npz",
        "split_by": "the arrays' names",
        "splits": {"train": 50, "val": 0, "test": 20},
        "shape": [1, 4, 4],
        "dtype": "uint8",
        "targets": {"shape": [], "dtype": "int64"},
        "classes": 5,
        "labels": [0, 4],
        "class_names": None,
    }
    with np.load(path) as expected:
        assert all(np.array_equal(written[name], expected[name]) for name in expected)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<f2"])
def test_floats_of_any_width_and_order_come_out_alike(tmp_path: Path, dtype: str, order: Any) -> None:
    x = np.asarray(np.random.default_rng(0).normal(size=(20, 3, 2)), dtype, order=order)
    _, written = converted(npz(tmp_path / "d.npz", x_train=x, y_train=np.arange(20), x_test=x))
    assert written["x_train"].dtype == np.dtype("<f2" if dtype == "<f2" else "<f4")
    assert np.array_equal(written["x_train"], x.astype(written["x_train"].dtype))


def test_targets_may_have_any_shape_or_be_left_out(tmp_path: Path) -> None:
    y = np.random.default_rng(0).normal(size=(70, 2, 3))
    found, written = converted(npz(tmp_path / "d.npz", y_train=y[:50], y_test=y[50:]))
    assert found["targets"] == {"shape": [2, 3], "dtype": "float32"}
    assert found["classes"] is found["labels"] is None
    assert np.array_equal(written["y_test"], y[50:].astype(np.float32))
    found, written = converted(npz(tmp_path / "d.npz", y_train=None, y_test=None))
    assert found["targets"] is None
    assert written.keys() == {"x_train", "x_test"}


def test_many_rows_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.formats.npz.ROWS_BYTES", 100)
    path = npz(tmp_path / "d.npz")
    with np.load(path) as expected:
        assert np.array_equal(converted(path)[1]["x_train"], expected["x_train"])


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"y_test": None}, "x_train, y_train, x_test, y_test"),
    "unknown": ({"labels": np.zeros(3)}, "must hold exactly"),
    "half of a split": ({"x_val": np.zeros((3, 1, 4, 4), np.uint8)}, "must hold exactly"),
    "shapes differ": ({"x_test": np.zeros((20, 3, 4, 4), np.uint8)}, r"x_test 'uint8 \[3, 4, 4\]' differs"),
    "dtypes differ": ({"x_test": np.zeros((20, 1, 4, 4), np.float32)}, "x_test .* differs from x_train"),
    "counts differ": ({"y_train": np.arange(49)}, "y_train .* must have 50 rows"),
    "targets differ": ({"y_train": np.eye(50)}, "y_test .* differs from y_train"),
    "integers": ({"x_train": np.zeros((50, 1, 4, 4), np.int64)}, "x_train .*must be uint8 or float"),
    "booleans": ({"x_train": np.zeros((50, 1, 4, 4), bool)}, "x_train .*must be uint8 or float"),
    "text": ({"y_train": np.array(["cat"] * 50)}, "y_train '<U3' holds pickled objects or text"),
    "infinite": (
        {"x_train": np.full((50, 1, 4, 4), np.inf, np.float32), "x_test": np.ones((20, 1, 4, 4), np.float32)},
        "x_train holds values that are not finite",
    ),
    "too large for float32": (
        {"x_train": np.full((50, 1), 1e300), "x_test": np.ones((20, 1))},
        "x_train holds values that are not finite",
    ),
    "pickled": ({"x_train": np.array([{"a": 1}] * 50, dtype=object)}, "no plain array"),
    "empty": ({"x_test": np.zeros((0, 1, 4, 4), np.uint8), "y_test": np.zeros(0, np.int64)}, "x_test 0 is too few rows"),
    "of nothing": ({"x_train": np.zeros((50, 0)), "x_test": np.zeros((20, 0))}, "x_train .* empty dim"),
    "a bomb": ({"x_test": np.zeros((20, 3000, 3000), np.uint8)}, "expands more than"),
}


@pytest.mark.parametrize(("changes", "sentence"), BAD.values(), ids=BAD)
def test_an_unusable_npz_is_refused(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        converted(npz(tmp_path / "d.npz", **changes))


def test_class_folders_with_splits(tmp_path: Path) -> None:
    files = {
        f"set/{split}/{name}/{n}.png": image(10 * n) for split in ("train", "val", "test") for name in "ba" for n in range(3)
    }
    found, written = converted(tar(tmp_path / "d.tar", {**files, "set/.DS_Store": b"", "set/train/._0.png": b"x"}))
    assert (found["splits"], found["split_by"]) == ({"train": 6, "val": 6, "test": 6}, "the folders train, val and test")
    assert (found["shape"], found["class_names"], found["classes"]) == ([1, 4, 6], ["a", "b"], 2)
    assert written["y_val"].tolist() == [0, 0, 0, 1, 1, 1]
    assert written["x_val"].max((1, 2, 3)).tolist() == [0, 10, 20, 0, 10, 20]


def test_class_folders_without_splits_have_some_drawn_and_say_so(tmp_path: Path) -> None:
    files = {f"{name}/{n}.jpg": image(n, form="JPEG") for name in ("cat", "dog") for n in range(10)}
    found, written = converted(tar(tmp_path / "d.tar", files))
    assert found["split_by"] == DRAWN
    assert found["splits"] == {"train": 16, "val": 0, "test": 4}
    again = converted(tar(tmp_path / "e.tar", dict(reversed(files.items()))))[1]
    assert all(np.array_equal(again[name], written[name]) for name in written), "whatever the order in the archive"


def test_a_class_of_a_single_image_is_no_obstacle_unless_it_was_put_into_the_test(tmp_path: Path) -> None:
    files = {f"cat/{n}.png": image(n) for n in range(20)}
    for number in range(5):  # whichever split the draw puts it into
        found, _ = converted(tar(tmp_path / "d.tar", {**files, f"c{number}/0.png": image()}))
        assert found["class_names"] == sorted(["cat", f"c{number}"])
    split = {f"{split}/cat/{n}.png": image(n) for split in ("train", "test") for n in range(3)}
    with pytest.raises(InvalidInput, match="data 'dog' is a class without a training image"):
        converted(tar(tmp_path / "d.tar", {**split, "test/dog/0.png": image()}))


def test_images_without_folders_have_no_labels(tmp_path: Path) -> None:
    found, written = converted(
        tar(tmp_path / "d.tar", {f"{split}/{n}.png": image(n) for split in ("train", "test") for n in range(4)})
    )
    assert found["targets"] is None
    assert written["x_test"].max((1, 2, 3)).tolist() == [0, 1, 2, 3]


def test_grey_images_among_coloured_ones_become_coloured(tmp_path: Path) -> None:
    files = {f"{n}.png": image(n) if n % 2 else image(n, mode="RGB", form="WEBP", lossless=True) for n in range(10)}
    found, written = converted(tar(tmp_path / "d.tar", files))
    assert found["shape"] == [3, 4, 6]
    values = np.concatenate([written["x_train"], written["x_test"]])
    assert sorted(values.max((1, 2, 3)).tolist()) == list(range(10))
    assert (values == values[:, :1]).all()


@pytest.mark.parametrize("wrapped", [False, True])
def test_parquet_rows_go_where_their_column_says(tmp_path: Path, wrapped: bool) -> None:
    images: list[Any] = [image(n) for n in range(9)]
    if wrapped:
        images = [{"bytes": content, "path": None} for content in images]
    split = ["train", "validation", "test"] * 3
    found, written = converted(parquet(tmp_path / "d.parquet", image=images, label=list(range(9)), split=split))
    assert (found["splits"], found["split_by"]) == ({"train": 3, "val": 3, "test": 3}, "the column split")
    assert written["y_val"].tolist() == written["x_val"].max((1, 2, 3)).tolist() == [1, 4, 7]
    assert (found["labels"], found["classes"]) == ([0, 8], 3)


def test_parquet_labels_may_be_floats_lists_or_absent(tmp_path: Path) -> None:
    images = [image(n) for n in range(10)]
    path = tmp_path / "d.parquet"
    found, written = converted(parquet(path, image=images, label=[[float(n), 2.0 * n] for n in range(10)]))
    assert (found["targets"], found["split_by"]) == ({"shape": [2], "dtype": "float32"}, DRAWN)
    assert written["y_test"][:, 0].tolist() == written["x_test"].max((1, 2, 3)).tolist()
    assert converted(parquet(path, image=images, label=[0.5] * 10))[0]["targets"] == {"shape": [], "dtype": "float32"}
    assert converted(parquet(path, image=images))[0]["targets"] is None


TABLES: dict[str, tuple[dict[str, Any], str]] = {
    "no image": ({"picture": [b"x"] * 4}, "must have a column image"),
    "another column": ({"image": [image()] * 4, "id": [1, 2, 3, 4]}, "leave other columns out"),
    "numbers": ({"image": [1, 2, 3, 4]}, "is no column of encoded images"),
    "no bytes": ({"image": [image(), None, image(), image()]}, "image 1 has no bytes"),
    "no images": ({"image": [b"x"] * 4}, "image 0 is no image in one of JPEG"),
    "names": ({"image": [image()] * 4, "label": ["a", "b", "c", "d"]}, "label 'string' is no column of numbers"),
    "a missing label": ({"image": [image()] * 4, "label": [1, None, 2, 3]}, "label is missing in 1 rows"),
    "ragged": ({"image": [image()] * 4, "label": [[1.0], [1.0, 2.0], [1.0], [1.0]]}, "lists of several lengths"),
    "another split": ({"image": [image()] * 4, "split": ["train", "dev", "test", "test"]}, "split 'dev' is no split"),
    "no training": ({"image": [image()] * 4, "split": ["test"] * 4}, "no rows for training"),
    "one row": ({"image": [image()]}, "no rows for training|too few rows"),
    "no rows": ({"image": [image()][:0], "label": [1][:0]}, "has no rows|no column"),
    "sizes": ({"image": [image(), image(size=(5, 4))] * 2}, "image 1 has 5×4 pixels, but the first image 6×4"),
}


@pytest.mark.parametrize(("columns", "sentence"), TABLES.values(), ids=TABLES)
def test_an_unusable_table_is_refused(tmp_path: Path, columns: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        converted(parquet(tmp_path / "d.parquet", **columns))


def test_what_is_more_than_allowed_is_not_unpacked(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"takes 1,680 bytes once it is unpacked, more than the 1,000"):
        convert(npz(tmp_path / "d.npz"), tmp_path / "arrays", 1000)
    assert not (tmp_path / "arrays").exists()
