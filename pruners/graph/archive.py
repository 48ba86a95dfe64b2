"""The zip container of a ``.pt2`` file, read member by member without trusting any of it.

``torch.save``-style pickles, shared libraries and whatever else can run code when loaded are never opened. Members are
stored uncompressed by ``torch.export.save``, so a compressed one is refused: nothing can expand beyond the file itself.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pruners.errors import InvalidInput, UnsafeProgram

MAX_MEMBERS = 100_000  # the largest networks have a few thousand tensors, one member each
MAX_JSON_BYTES = 256 * 2**20  # a graph takes about 2 KB per node: room for 100,000 nodes

_EXPORT = "export it with torch.export.save from torch 2.8 to 2.13"

# What torch.export.save writes, below the archive's one root folder.
_READ = re.compile(r"models/model\.json|data/(weights|constants)/[A-Za-z0-9_.\-]+|archive_format|archive_version|byteorder")
_SKIPPED = re.compile(r"(\.data/)?version|\.data/(serialization_id|alignment)|data/sample_inputs/model\.pt|extra/[\w.\-/]+")
_DANGEROUS = re.compile(r"\.(pt|pth|pkl|pickle|so|dll|dylib|py|pyc)$|opaque_obj|custom_obj|aotinductor", re.IGNORECASE)


class Archive:
    """An opened ``.pt2`` container. Use it in a ``with`` statement.

    Raises:
        InvalidInput: not a zip archive, truncated, or not laid out as ``torch.export.save`` does.
        UnsafeProgram: a member that could run code when loaded, other than the example inputs, which are skipped unread.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise InvalidInput("model", None, f"is not a .pt2 program archive; {_EXPORT}") from error
        try:
            self._members = self._check(self._zip.infolist())
            self._check_format()
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def read(self, name: str) -> bytes:
        """The bytes of one member, its checksum verified."""
        if name not in self._members:
            raise InvalidInput("model", None, f"lacks the archive member {name!r}; {_EXPORT}")
        try:
            return self._zip.read(self._members[name])
        except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
            raise InvalidInput("model", None, f"is damaged at {name!r} ({error}); upload it again") from error

    def json(self, name: str) -> dict[str, Any]:
        """One member parsed as a JSON object."""
        if name in self._members and self._members[name].file_size > MAX_JSON_BYTES:
            raise InvalidInput("model", None, f"has {name!r} larger than {MAX_JSON_BYTES} bytes, the most that is read")
        try:
            data = json.loads(self.read(name))
        except (ValueError, RecursionError) as error:
            raise InvalidInput("model", None, f"holds {name!r}, which is not valid JSON; {_EXPORT}") from error
        if not isinstance(data, dict):
            raise InvalidInput("model", None, f"holds {name!r}, which is not a JSON object; {_EXPORT}")
        return data

    def _check(self, members: list[zipfile.ZipInfo]) -> Mapping[str, zipfile.ZipInfo]:
        if len(members) > MAX_MEMBERS:
            raise InvalidInput("model", None, f"has {len(members)} archive members, more than {MAX_MEMBERS}")
        if members and min(member.header_offset for member in members) != 0:
            # A zip reader looks from the end, so a truncated file can show the archive of example inputs inside it.
            raise InvalidInput("model", None, f"is not a .pt2 program archive from its first byte on, or cut off; {_EXPORT}")
        known: dict[str, zipfile.ZipInfo] = {}
        roots = {member.filename.partition("/")[0] for member in members}
        for member in members:
            name = member.filename.partition("/")[2]
            if _SKIPPED.fullmatch(name):
                continue
            dangerous = _DANGEROUS.search(name)
            if dangerous or not _READ.fullmatch(name):
                kind = UnsafeProgram if dangerous else InvalidInput
                raise kind("model", None, f"holds the archive member {name!r}, which no plain program needs; {_EXPORT}")
            if name in known:
                raise InvalidInput("model", None, f"holds {name!r} twice; {_EXPORT}")
            if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
                raise InvalidInput("model", None, f"holds {name!r} compressed; {_EXPORT}, which stores plainly")
            known[name] = member
        if len(roots) > 1:
            raise InvalidInput("model", None, f"has {len(roots)} root folders instead of one; {_EXPORT}")
        return known

    def _check_format(self) -> None:
        if "models/model.json" not in self._members:
            raise InvalidInput("model", None, f"is a zip archive without an exported program; {_EXPORT}")
        if self.read("archive_format").strip() != b"pt2":
            raise InvalidInput("model", None, f"is not in the pt2 archive format; {_EXPORT}")
        if self.read("byteorder").strip() != b"little":
            raise InvalidInput("model", None, f"was written on a big-endian machine; {_EXPORT} on another")
