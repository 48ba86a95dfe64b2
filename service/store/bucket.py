"""A store in a bucket of S3, or of a server that speaks like it (MinIO, Ceph), through fsspec.

Credentials, region and endpoint are those of every other AWS client: ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``,
``AWS_DEFAULT_REGION``, ``AWS_ENDPOINT_URL`` or what else boto finds. An object is there whole or not at all. It is sent with a
checksum for each part, which the server compares; what comes back is compared with its sha256, which is its name.

Jobs map their data into memory, so what is read is copied to this machine once and kept there while it is in use.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pruners.errors import InvalidInput
from service.store.base import FULL, Store, StoreAway, checked, damaged, digest, lost, oldest, room

SCHEME = "s3://"

PART_BYTES = 16 * 2**20  # of a multipart upload: 10,000 parts, the most that S3 takes, make 156 GiB
CONNECT_SECONDS, READ_SECONDS = 5, 60  # an endpoint that is there answers in milliseconds; a part may take its time
ATTEMPTS = 3  # of boto's, at each call, before it is called away


class BucketStore(Store):
    """A content-addressed bucket, or a part of one; the bucket is made if it is not there.

    Args:
        url: ``s3://BUCKET[/PREFIX]``.
        folder: of this machine, for what is on its way and for copies of what is in use.
    """

    def __init__(self, url: str, folder: Path) -> None:
        super().__init__(folder / "incoming")
        self._copies = folder / "copies"
        self._copies.mkdir(exist_ok=True, mode=0o700)
        self._place = url.removeprefix(SCHEME).rstrip("/")
        self._bucket, _, self._prefix = self._place.partition("/")
        self._files = _filesystem(url)

    def take(self, path: Path, sha256: str) -> None:
        with _answering():
            try:
                self._send(path, sha256)
            except FileNotFoundError:  # the bucket
                self._make_bucket()
                self._send(path, sha256)
        os.replace(path, self._copies / sha256)

    def has(self, sha256: str) -> bool:
        with _answering():
            return _is_there(self._files.info, self._key(sha256))

    def verified(self, sha256: str) -> Path:
        key, copy = self._key(sha256), self._copies / sha256
        if copy.exists() and digest(copy) == sha256:
            os.utime(copy)  # it is in use
            return copy
        descriptor, name = tempfile.mkstemp(dir=self.incoming)
        os.close(descriptor)
        arrived = Path(name)
        try:
            with _answering(), room():
                self._files.get_file(key, name)
            if digest(arrived) != sha256:
                raise damaged(sha256)
            os.replace(arrived, copy)
        except FileNotFoundError as error:
            raise lost(sha256) from error
        finally:
            arrived.unlink(missing_ok=True)
        return copy

    def discard(self, needed: Collection[str], grace_seconds: float) -> list[int]:
        """The same; and copies that were not used for as long.

        An object that is stored anew after it was found to be old, which is milliseconds before it is deleted, goes too.
        """
        limit, sizes = oldest(grace_seconds), []
        for path in self.incoming.iterdir():
            sizes += self._discard_if_old(path, limit)
        for path in self._copies.iterdir():
            self._discard_if_old(path, limit)
        with _answering():
            if not self._has_bucket():
                return sizes
            for key in self._files.find(self._place):
                if key.rpartition("/")[2] in needed:
                    continue
                about = self._files.info(key)
                if about["LastModified"].timestamp() <= limit:
                    self._files.rm_file(key)
                    sizes.append(about["size"])
            self._abort_parts(limit)
        return sizes

    def check(self) -> None:
        with _answering():
            if not self._has_bucket():
                self._make_bucket()

    def _has_bucket(self) -> bool:
        return _is_there(self._files.call_s3, "head_bucket", Bucket=self._bucket)

    def _make_bucket(self) -> None:
        with suppress(FileExistsError):  # another process was faster
            self._files.mkdir(self._bucket)

    def _send(self, path: Path, sha256: str) -> None:
        self._files.put_file(str(path), self._key(sha256), chunksize=PART_BYTES, ContentType="application/octet-stream")

    def _abort_parts(self, limit: float) -> None:
        """Forgets multipart uploads that broke off, whose parts take space though no listing shows them."""
        call: Callable[..., dict[str, Any]] = self._files.call_s3
        for upload in call("list_multipart_uploads", Bucket=self._bucket, Prefix=self._prefix).get("Uploads", []):
            if upload["Initiated"].timestamp() <= limit:
                call("abort_multipart_upload", Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"])

    def _key(self, sha256: str) -> str:
        return f"{self._place}/{sha256[:2]}/{checked(sha256)}"


def _filesystem(url: str) -> Any:
    try:
        from s3fs import S3FileSystem
    except ModuleNotFoundError as error:
        raise InvalidInput("SECATEUR_STORE", url, "takes the package s3fs; pip install 'secateur[s3]'") from error

    config = {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        "retries": {"max_attempts": ATTEMPTS, "mode": "standard"},
    }
    # What another process stored a moment ago has to be found.
    return S3FileSystem(config_kwargs=config, use_listings_cache=False, skip_instance_cache=True)


def _is_there(ask: Callable[..., object], *arguments: str, **named: str) -> bool:
    """Whether a call finds what it asks for; ``exists`` of fsspec takes a server that is away for one that has nothing."""
    try:
        ask(*arguments, **named)
    except FileNotFoundError:
        return False
    return True


@contextmanager
def _answering() -> Iterator[None]:
    """Turns what boto and fsspec raise of a server that is away or refuses into an error of ours."""
    from botocore.exceptions import BotoCoreError

    try:
        yield
    except FileNotFoundError:
        raise
    except BotoCoreError as error:
        raise StoreAway(f"The S3 store does not answer ({type(error).__name__}); try again in a moment.") from error
    except OSError as error:
        if error.errno in FULL:  # of this machine's disk
            raise
        said = "refuses our credentials" if error.errno in (errno.EACCES, errno.EPERM) else "fails"
        raise StoreAway(f"The S3 store {said} ({type(error).__name__}); try again in a moment.") from error
