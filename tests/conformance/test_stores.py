"""What every store does, in a folder and in S3 alike."""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from service.problems import TooLarge
from service.settings import Settings
from service.store import Damaged, FolderStore, Store, StoreAway, open_store
from service.store.bucket import PART_BYTES, BucketStore
from tests.s3_server import s3_server


@dataclass(frozen=True)
class Place:
    """A kind of store, and how to get at its files behind its back."""

    open: Callable[[], Store]
    damage: Callable[[str, bytes | None], None]
    stored: Callable[[], dict[str, bytes]]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A bucket of the test's own, which is not there yet."""
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    return "b" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]


def client(endpoint: str) -> Any:
    import boto3

    return boto3.client("s3")


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        folder = FolderStore(tmp_path / "store")

        def damage(sha256: str, content: bytes | None) -> None:
            folder.path(sha256).unlink() if content is None else folder.path(sha256).write_bytes(content)

        def stored() -> dict[str, bytes]:
            return {path.name: path.read_bytes() for path in folder.folder.glob("??/*")}

        return Place(lambda: FolderStore(tmp_path / "store"), damage, stored)
    bucket, endpoint = request.getfixturevalue("bucket"), request.getfixturevalue("endpoint")
    s3, machines = client(endpoint), iter(range(100))

    def key(sha256: str) -> str:
        return f"deep/er/{sha256[:2]}/{sha256}"

    def damage_object(sha256: str, content: bytes | None) -> None:
        if content is None:
            s3.delete_object(Bucket=bucket, Key=key(sha256))
        else:
            s3.put_object(Bucket=bucket, Key=key(sha256), Body=content)

    def objects() -> dict[str, bytes]:
        listed = s3.list_objects_v2(Bucket=bucket).get("Contents", [])
        return {
            item["Key"].removeprefix("deep/er/")[3:]: s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
            for item in listed
        }

    # Each is another machine, with nothing but the bucket in common.
    return Place(lambda: BucketStore(f"s3://{bucket}/deep/er", tmp_path / f"machine-{next(machines)}"), damage_object, objects)


@pytest.fixture
def store(place: Place) -> Store:
    return place.open()


def of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def on_its_way(store: Store) -> list[Path]:
    return list(store.incoming.iterdir())


def test_what_one_stores_another_reads(store: Store, place: Place) -> None:
    blob = store.put([b"ab", b"", b"c"])
    assert (blob.sha256, blob.size) == (of(b"abc"), 3)
    for each in (store, place.open()):
        assert each.has(blob.sha256)
        assert each.verified(blob.sha256).read_bytes() == b"abc"
        assert on_its_way(each) == []


def test_the_same_bytes_are_kept_once(store: Store, place: Place, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert store.put([b"abc"]) == store.put_file(tmp_path / "file")
    assert place.stored() == {of(b"abc"): b"abc"}
    assert (tmp_path / "file").exists(), "a copy was stored"


def test_a_file_of_many_parts_comes_back(store: Store, place: Place) -> None:
    content = os.urandom(2**20) * (2 * PART_BYTES // 2**20 + 1) + b"and one more"
    sha256 = store.put([content]).sha256
    assert sha256 == of(content)
    assert place.open().verified(sha256).read_bytes() == content


def test_the_limit_is_inclusive_and_checked_while_reading_and_what_is_not_kept_is_gone(store: Store, place: Place) -> None:
    assert store.put([b"x" * 250], limit=250).size == 250
    with pytest.raises(TooLarge, match=r"model is larger than the 250 bytes"):
        store.put(itertools.repeat(b"x" * 100), "model", limit=250)
    with store.receive("model") as upload:
        upload.write(b"abc")
        upload.complete()
        assert upload.path.read_bytes() == b"abc"
    assert list(place.stored()) == [of(b"x" * 250)]
    assert on_its_way(store) == []


@pytest.mark.parametrize("name", ["", "..", "../" + "a" * 61, "/etc/passwd", "A" * 64, "a" * 63, "a" * 65, "a" * 64 + "\n"])
def test_only_a_sha256_is_a_name(store: Store, name: str) -> None:
    for ask in (store.has, store.verified):
        with pytest.raises(ValueError, match="is not a sha256"):
            ask(name)


def test_a_lost_or_damaged_file_is_said_to_be_so_and_never_handed_out(store: Store, place: Place) -> None:
    lost, damaged, whole = (store.put([content]).sha256 for content in (b"lost", b"damaged", b"whole"))
    place.damage(lost, None)
    place.damage(damaged, b"damagee")
    other = place.open()
    with pytest.raises(Damaged, match=f"has lost the file {lost}"):
        other.verified(lost)
    with pytest.raises(Damaged, match=f"{damaged} in the store is damaged"):
        other.verified(damaged)
    assert other.verified(whole).read_bytes() == b"whole"
    assert not other.has(lost)
    assert on_its_way(other) == []
    assert store.put([b"damaged"]).sha256 == damaged
    assert place.open().verified(damaged).read_bytes() == b"damaged", "uploading it again mends it"


def test_only_what_nobody_needs_and_is_old_is_discarded(store: Store, place: Place) -> None:
    kept, gone = store.put([b"kept"]).sha256, store.put([b"gone!"]).sha256
    with store.receive("model") as broken_off:
        broken_off.write(b"abc")
        broken_off.complete()
        assert store.discard({kept}, 3600) == []
        assert set(place.stored()) == {kept, gone}
        assert sorted(store.discard({kept}, -3600)) == [3, 5]
    assert set(place.stored()) == {kept}
    assert on_its_way(store) == []
    assert store.verified(kept).read_bytes() == b"kept"
    assert not store.has(gone)


def test_many_store_and_read_at_once(store: Store, place: Place) -> None:
    contents = [bytes([number]) * 1000 for number in range(4)] * 2
    failures: list[BaseException] = []

    def work(content: bytes) -> None:
        try:
            assert store.verified(store.put([content]).sha256).read_bytes() == content
        except BaseException as error:  # noqa: BLE001  (raised in the test's own thread below)
            failures.append(error)

    threads = [threading.Thread(target=work, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert set(place.stored()) == {of(content) for content in contents}


def test_a_store_that_can_be_used_says_nothing(store: Store) -> None:
    store.check()
    store.check()


def test_a_damaged_copy_is_fetched_again(bucket: str, tmp_path: Path) -> None:
    store = BucketStore(f"s3://{bucket}", tmp_path)
    copy = store.verified(store.put([b"abc"]).sha256)
    copy.write_bytes(b"abd")
    assert store.verified(of(b"abc")).read_bytes() == b"abc"


def test_copies_go_once_they_are_out_of_use_and_come_back(bucket: str, tmp_path: Path) -> None:
    store = BucketStore(f"s3://{bucket}", tmp_path)
    sha256 = store.put([b"abc"]).sha256
    copy = store.verified(sha256)
    store.discard({sha256}, 3600)
    assert copy.exists()
    store.discard({sha256}, -3600)
    assert not copy.exists()
    assert store.verified(sha256).read_bytes() == b"abc"


def test_parts_of_an_upload_that_broke_off_are_forgotten(bucket: str, endpoint: str, tmp_path: Path) -> None:
    store, s3 = BucketStore(f"s3://{bucket}/here", tmp_path), client(endpoint)
    store.check()
    s3.create_multipart_upload(Bucket=bucket, Key="here/ab/abc")
    elsewhere = s3.create_multipart_upload(Bucket=bucket, Key="there/abc")
    store.discard([], 30 * 365 * 86400)  # moto says of all of them that they were begun in 2010
    assert len(s3.list_multipart_uploads(Bucket=bucket)["Uploads"]) == 2
    store.discard([], 3600)
    assert [left["UploadId"] for left in s3.list_multipart_uploads(Bucket=bucket)["Uploads"]] == [elsewhere["UploadId"]]


def test_a_bucket_that_is_away_is_a_sentence_to_wait_on(monkeypatch: pytest.MonkeyPatch, bucket: str, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr("service.store.bucket.ATTEMPTS", 1)
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    store = BucketStore(f"s3://{bucket}", tmp_path)
    for ask in (lambda: store.put([b"abc"]), lambda: store.verified(of(b"abc")), store.check, lambda: store.discard([], 0)):
        with pytest.raises(StoreAway, match=r"The S3 store does not answer \(EndpointConnectionError\); try again"):
            ask()
    assert on_its_way(store) == []


def test_settings_say_which(tmp_path: Path, bucket: str) -> None:
    assert isinstance(open_store(Settings.load(data_dir=tmp_path)), FolderStore)
    assert isinstance(open_store(Settings.load(data_dir=tmp_path, store=tmp_path / "there")), FolderStore)
    assert isinstance(open_store(Settings.load(data_dir=tmp_path, store=f"s3://{bucket}/prefix")), BucketStore)
