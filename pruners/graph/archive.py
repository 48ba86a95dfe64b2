"""The zip container of a ``.pt2`` file, read member by member without trusting any of it.

``torch.save``-style pickles, shared libraries and whatever else can run code when loaded are never opened. Members are
stored uncompressed by ``torch.export.save`` and may not overlap, so nothing can expand beyond the file itself.
"""

from __future__ import annotations

import json
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from pruners.errors import InvalidInput, UnsafeProgram, quote, reason

MAX_MEMBERS = 100_000  # the largest networks have a few thousand tensors, one member each
MAX_DIRECTORY_BYTES = MAX_MEMBERS * 256  # an entry of the zip directory takes 46 bytes and the member's path
MAX_JSON_BYTES = 64 * 2**20  # a graph takes about 2 KB per node: room for 30,000 nodes
MAX_JSON_VALUES = 2_000_000  # 60 per node; parsed, a value can take 100 bytes however short it is in the file
MAX_JSON_DEPTH = 64  # programs nest about ten deep

_CHUNK = 2**20  # bytes of a member in memory at a time
_LOCAL_HEADER_BYTES = 30  # what precedes a member's path and data

EXPORT = "export it with torch.export.save of torch 2.9 to 2.13"

# What torch.export.save writes, below the archive's one root folder.
_READ = re.compile(r"models/model\.json|data/(weights|constants)/[A-Za-z0-9_.\-]+|archive_format|archive_version|byteorder")
_SKIPPED = re.compile(r"(\.data/)?version|\.data/(serialization_id|alignment)|data/sample_inputs/model\.pt|extra/[\w.\-/]+")
_LEGACY = re.compile(r"(.*/)?serialized_[a-z_]+\.(json|pt)|[^/]*/data/(weights|constants)/model\.pt")
_DANGEROUS = re.compile(r"\.(pt|pth|pkl|pickle|so|dll|dylib|py|pyc)$|opaque_obj|custom_obj|aotinductor", re.IGNORECASE)

# What zipfile raises at hostile bytes: its own error, and whatever its arithmetic, seeks and decoding run into.
_UNREADABLE = (zipfile.BadZipFile, zipfile.LargeZipFile, struct.error, OSError, EOFError, ValueError, ArithmeticError,
               NotImplementedError, RuntimeError, LookupError)  # fmt: skip


class Archive:
    """An opened ``.pt2`` container. Use it in a ``with`` statement.

    Args:
        source: the file, or its bytes as a stream, which is closed in the end.

    Attributes:
        size: of the whole file, in bytes.

    Raises:
        OSError: the file cannot be opened.
        InvalidInput: not a zip archive, truncated, or not laid out as ``torch.export.save`` does.
        UnsafeProgram: a member that could run code when loaded, other than the example inputs, which are skipped unread.
    """

    def __init__(self, source: Path | BinaryIO) -> None:
        self._file: BinaryIO = source.open("rb") if isinstance(source, Path) else source
        try:
            self.size = self._file.seek(0, 2)
            self._zip = _open(self._file)
            self._members = _check(self._zip.infolist(), self._zip.start_dir)
            self._check_format()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def size_of(self, name: str) -> int:
        """The length of one member in bytes."""
        if name not in self._members:
            raise InvalidInput("model", None, f"lacks the archive member {quote(name)}; {EXPORT}")
        return self._members[name].file_size

    def chunks(self, name: str) -> Iterator[bytearray]:
        """One member's bytes, a piece at a time; the checksum is verified at the last."""
        left = self.size_of(name)
        try:
            with self._zip.open(self._members[name]) as source:
                while left > 0:
                    chunk = bytearray(source.read(_CHUNK))
                    if not chunk:
                        raise EOFError("it ends early")
                    left -= len(chunk)
                    yield chunk
        except _UNREADABLE as error:
            raise InvalidInput("model", None, f"is damaged at {quote(name)} ({reason(error)}); upload it again") from error

    def read(self, name: str) -> bytes:
        """All bytes of one small member."""
        data = bytearray()
        for chunk in self.chunks(name):
            data += chunk
        return bytes(data)

    def json(self, name: str) -> dict[str, Any]:
        """One member parsed as a JSON object."""
        if self.size_of(name) > MAX_JSON_BYTES:
            raise InvalidInput("model", None, f"has {quote(name)} larger than {MAX_JSON_BYTES} bytes, the most that is read")
        try:
            data = parse_json(self.read(name))
        except (ValueError, RecursionError) as error:
            raise InvalidInput(
                "model", None, f"holds {quote(name)}, which is not valid JSON here ({reason(error)}); {EXPORT}"
            ) from error
        if not isinstance(data, dict):
            raise InvalidInput("model", None, f"holds {quote(name)}, which is not a JSON object; {EXPORT}")
        return data

    def _check_format(self) -> None:
        if "models/model.json" not in self._members:
            raise InvalidInput("model", None, f"is a zip archive without an exported program; {EXPORT}")
        if self._word("archive_format") != b"pt2":
            raise InvalidInput("model", None, f"is not in the pt2 archive format; {EXPORT}")
        if self._word("byteorder") != b"little":
            raise InvalidInput("model", None, f"was written on a big-endian machine; {EXPORT} on another")

    def _word(self, name: str) -> bytes:
        return self.read(name).strip() if self.size_of(name) <= _LOCAL_HEADER_BYTES else b""


def parse_json(text: bytes | str) -> Any:
    """JSON without the extensions and excesses that Python's parser lets through.

    Raises:
        ValueError, RecursionError: not JSON, ``NaN`` or ``Infinity``, an integer beyond 64 bits, or beyond the limits above.
    """
    data: bytes = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    if sum(data.count(mark) for mark in (b",", b"[", b"{")) > MAX_JSON_VALUES:
        raise ValueError(f"it holds more than {MAX_JSON_VALUES} values")
    parsed = json.loads(data, parse_int=_integer, parse_constant=_constant)
    level, depth = [parsed], 0
    while level := [child for item in level for child in _children(item)]:
        depth += 1
        if depth > MAX_JSON_DEPTH:
            raise ValueError(f"it nests deeper than {MAX_JSON_DEPTH}")
    return parsed


def _open(file: BinaryIO) -> zipfile.ZipFile:
    file.seek(0)
    if file.read(4) != b"PK\3\4":
        raise InvalidInput("model", None, f"is not a .pt2 program archive; {EXPORT}")
    try:
        if _directory_bytes(file) > MAX_DIRECTORY_BYTES:
            raise InvalidInput("model", None, f"has a zip directory larger than {MAX_DIRECTORY_BYTES} bytes; {EXPORT}")
        return zipfile.ZipFile(file)
    except _UNREADABLE as error:
        raise InvalidInput("model", None, f"is not a .pt2 program archive, or cut off; {EXPORT}") from error


def _directory_bytes(file: BinaryIO) -> int:
    """The length that the zip directory claims; ``zipfile`` reads that much at once."""
    file.seek(-22, 2)
    end: tuple[Any, ...] = struct.unpack("<4s4H2LH", file.read(22))
    if end[0] != b"PK\5\6" or end[-1] != 0:
        raise ValueError("something follows the zip archive")
    if file.seek(0, 2) < 98:
        return int(end[5])
    file.seek(-98, 2)
    record = struct.unpack("<4sQ2H2L4Q4sLQL", file.read(76))
    wide = (record[0], record[10]) == (b"PK\6\6", b"PK\6\7")  # then the 64-bit record takes precedence
    return int(record[8]) if wide else int(end[5])


def _check(members: Sequence[zipfile.ZipInfo], end: int) -> Mapping[str, zipfile.ZipInfo]:
    """The members that are read, by their path below the root; ``end`` is where the zip directory starts."""
    if len(members) > MAX_MEMBERS:
        raise InvalidInput("model", None, f"has {len(members)} archive members, more than {MAX_MEMBERS}")
    _check_regions(members, end)
    for member in members:
        if _LEGACY.fullmatch(member.orig_filename):
            raise UnsafeProgram("model", None, f"is in a layout of torch 2.8 or older, which holds pickles; {EXPORT}")
    known: dict[str, zipfile.ZipInfo] = {}
    for member in members:
        path = member.orig_filename  # ``filename`` ends at a NUL byte
        name = path.partition("/")[2]
        if name and _SKIPPED.fullmatch(name):
            continue
        dangerous = _DANGEROUS.search(path)
        if dangerous or not _READ.fullmatch(name):
            kind = UnsafeProgram if dangerous else InvalidInput
            raise kind("model", None, f"holds the archive member {quote(path)}, which no plain program needs; {EXPORT}")
        if name in known:
            raise InvalidInput("model", None, f"holds {quote(name)} twice; {EXPORT}")
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise InvalidInput("model", None, f"holds {quote(name)} compressed; {EXPORT}, which stores plainly")
        known[name] = member
    roots = {member.orig_filename.partition("/")[0] for member in members}
    if len(roots) > 1:
        raise InvalidInput("model", None, f"has {len(roots)} root folders instead of one; {EXPORT}")
    return known


def _check_regions(members: Sequence[zipfile.ZipInfo], end: int) -> None:
    """Members lie one after the other, from the first byte to the directory."""
    members = sorted(members, key=lambda member: member.header_offset)
    if members and members[0].header_offset != 0:
        # A zip reader looks from the end, so a truncated file can show the archive of example inputs inside it.
        raise InvalidInput("model", None, f"is not a .pt2 program archive from its first byte on, or cut off; {EXPORT}")
    starts = [member.header_offset for member in members[1:]] + [end]
    for member, start in zip(members, starts, strict=True):
        if member.header_offset + _LOCAL_HEADER_BYTES + len(member.orig_filename) + member.compress_size > start:
            raise InvalidInput("model", None, f"holds {quote(member.orig_filename)} overlapping what follows; {EXPORT}")


def _children(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _integer(digits: str) -> int:
    value = int(digits)
    if not -(2**63) <= value < 2**63:
        raise ValueError("an integer beyond 64 bits")
    return value


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
