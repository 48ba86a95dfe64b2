"""Uploads that want more than to be read. Those that would run code create the canary file, wherever that happens."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import pickletools
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.exporting import export, rewrite
from tests.pruners.test_program import BROKEN, UNSAFE, Canary, Tiny
from tests.workers import files

Make = Callable[[Path], bytes]
"""From the canary's path to the upload."""

_HUGE = 60_000  # pixels a side: 3.6 gigapixels


def _archive(members: Mapping[str | zipfile.ZipInfo, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def _renamed(archive: bytes, name: bytes, new: bytes) -> bytes:
    """With another name of the same length, which Python's own writer would not write."""
    return archive.replace(name, new)


def _npy(array: Any = None, header: str | None = None, content: bytes = b"") -> bytes:
    """An array's file, or any header that is asked for."""
    file = io.BytesIO()
    if header is None:
        np.lib.format.write_array(file, array)
        return file.getvalue()
    text = header.encode("latin1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


def _npz(**changes: bytes) -> bytes:
    good = {
        "x_train.npy": _npy(np.zeros((4, 2), np.float32)),
        "y_train.npy": _npy(np.zeros(4, np.int64)),
        "x_test.npy": _npy(np.zeros((2, 2), np.float32)),
        "y_test.npy": _npy(np.zeros(2, np.int64)),
    }
    return _archive({**good, **{f"{name}.npy": content for name, content in changes.items()}})


def _tar(*members: tuple[str, bytes] | tuple[str, bytes, Mapping[str, Any]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content, *other in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for field, value in (other[0] if other else {}).items():
                setattr(member, field, value)
            archive.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return file.getvalue()


def _folders(image: bytes, name: str = "image.png") -> bytes:
    """A good data set but for one image."""
    good = [(f"{folder}/{n}.png", files.image(n)) for folder in ("cat", "dog") for n in range(3)]
    return _tar(*good, (f"cat/{name}", image))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width: int, height: int, bits: int = 8, colour: int = 0, before: bytes = b"", pixels: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    data = _chunk(b"IDAT", zlib.compress(pixels))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + before + data + _chunk(b"IEND", b"")


def _text_bomb() -> bytes:
    return _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**24)))


def _saved(canary: Path, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save({"weight": Canary(canary)}, file, **options)
    return file.getvalue()


def _scripted(canary: Path) -> bytes:
    """As ``torch.jit.save`` writes it: code to be compiled, and a pickle."""
    return _archive({"net/code/__torch__.py": _script(canary), "net/data.pkl": _pickled(canary, 2), "net/version": b"3"})


def _pickled(canary: Path, protocol: int) -> bytes:
    return pickletools.optimize(pickle.dumps(Canary(canary), protocol))


def _script(canary: Path) -> bytes:
    return f"#!/usr/bin/env python3\nopen({str(canary)!r}, 'w')\n".encode()


def _lying_tar(_: Path) -> bytes:
    content = bytearray(_tar(("cat/0.png", files.image())))
    content[124:136] = b"77777777777\0"  # 8 GiB follow, it says
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    return bytes(content)


def _python_type(canary: Path) -> bytes:
    """A table whose Arrow schema names a Python type, which older readers unpickled (CVE-2023-47248)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    metadata = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": _pickled(canary, 2)}
    field = pa.field("image", pa.binary(), metadata=metadata)
    file = io.BytesIO()
    pq.write_table(pa.table([[b"x"] * 4], schema=pa.schema([field])), file)
    return file.getvalue()


def _repeated_rows(_: Path) -> bytes:
    """Twenty thousand images in a few kilobytes, since they are all one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    one = _png(400, 400, pixels=bytes(401) * 400)
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(20_000, np.int32)), pa.array([one]))
    file = io.BytesIO()
    pq.write_table(pa.table({"image": column.cast(pa.binary())}), file)
    return file.getvalue()


MODELS: dict[str, tuple[Make, str]] = {
    **{
        f"pickle, protocol {protocol}": (lambda canary, protocol=protocol: _pickled(canary, protocol), "model ")
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
    "torch.save": (_saved, "model "),
    "torch.save as it was": (lambda canary: _saved(canary, _use_new_zipfile_serialization=False), "model "),
    "torch.jit.save": (_scripted, "model "),
    "a script": (_script, "model "),
    "a library": (lambda _: b"\x7fELF" + bytes(5000), "model "),
    "a web page": (lambda _: b"<html><script>alert(1)</script>", "model "),
    "gzip": (lambda canary: gzip.compress(_pickled(canary, 4)), "model "),
    "an empty archive": (lambda _: _archive({}), "model "),
    "a bomb": (lambda _: _archive({"net/models/model.json": bytes(2**24)}, zipfile.ZIP_DEFLATED), "compressed"),
    "names that climb": (lambda canary: _archive({f"../../{canary.name}": b"x"}), "model "),
    "names with NUL": (lambda _: _renamed(_archive({"net/models/model.jsonX.pkl": b"{}"}), b"jsonX", b"json\0"), "model "),
    "names that read backwards": (lambda _: _archive({"net/\u202elkp.model": b"{}"}), "model "),
    "a thousand members": (lambda _: _archive({f"net/{n}": b"" for n in range(1000)}), "model "),
    "a pickle before an archive": (lambda canary: _pickled(canary, 2) + _archive({"net/data.pkl": b"x"}), "model "),
}

_OBJECTS = "{'descr': '|O', 'fortran_order': False, 'shape': (4,), }\n"
_CODE = "{{'descr': '<f4', 'fortran_order': False, 'shape': ([open({!r}, 'w')][0],)}}\n"


def _header(shape: str, order: str = "False", descr: str = "'<f4'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


DATA: dict[str, tuple[Make, str]] = {
    "pickled objects": (lambda canary: _npz(y_train=_npy(header=_OBJECTS, content=_pickled(canary, 4))), "pickled objects"),
    "a pickle for an array": (lambda canary: _npz(y_train=_pickled(canary, 4)), "no plain array"),
    "code in a header": (lambda canary: _npz(x_train=_npy(header=_CODE.format(str(canary)))), "no plain array"),
    "a header without end": (lambda _: _npz(x_train=_npy(header="(" * 60_000)), "no plain array"),
    "giant dims": (lambda _: _npz(x_train=_npy(header=_header("(10**15, 10**15)"))), "no plain array"),
    "giant dims in digits": (lambda _: _npz(x_train=_npy(header=_header(f"({10**15}, {10**15})"))), "does not fit"),
    "negative dims": (lambda _: _npz(x_train=_npy(header=_header("(-4, -2)"), content=bytes(32))), "does not fit"),
    "giant dims of no bytes": (lambda _: _npz(x_train=_npy(header=_header(f"({10**15}, 0)"))), "empty dim|does not fit"),
    "giant dims, transposed": (lambda _: _npz(x_train=_npy(header=_header(f"({2**40}, 4)", "True"))), "does not fit"),
    "a subarray of objects": (lambda _: _npz(x_train=_npy(header=_header("(4,)", descr="[('a', '|O')]"))), "pickled|no plain"),
    "a bomb": (
        lambda _: _archive({"x_train.npy": _npy(np.zeros((2, 2**23), np.uint8))}, zipfile.ZIP_DEFLATED),
        "expands more than",
    ),
    "an array that climbs": (lambda canary: _archive({f"../../{canary.name}.npy": _npy(np.zeros(2))}), "must hold exactly"),
    "an array's name with NUL": (lambda _: _renamed(_npz(x_valX=_npy(np.zeros(2))), b"x_valX", b"x_val\0"), "data "),
    "two arrays of one name": (lambda _: _renamed(_npz(x_traiN=b""), b"x_traiN", b"x_train"), "must hold exactly"),
    "half an archive": (lambda _: _npz()[:300], "not an .npz"),
    "another compression": (lambda _: _archive({"x_train.npy": bytes(10)}, zipfile.ZIP_LZMA), "data |x_train "),
    "torch.save for arrays": (_saved, "must hold exactly"),
    "an archive behind an image": (lambda _: files.image() + _npz(), "is neither"),
    "a pickle for data": (lambda canary: _pickled(canary, 0), "is neither"),
    "a script for data": (_script, "is neither"),
    "a compressed tar": (lambda _: gzip.compress(_folders(files.image())), "is neither"),
    "folders that climb": (lambda canary: _tar((f"../../{canary.name}", files.image())), "leads out"),
    "folders that climb inside": (lambda _: _tar(("cat/../../../0.png", files.image())), "leads out"),
    "an absolute name": (lambda canary: _tar((str(canary), files.image())), "leads out"),
    "a Windows path": (lambda _: _tar(("cat\\..\\..\\0.png", files.image())), "leads out"),
    "a name with an escape": (lambda _: _tar(("cat/\x1b[2J.png", files.image())), "cannot be shown"),
    "a name that reads backwards": (lambda _: _tar(("cat/\u202egnp.exe", files.image())), "cannot be shown"),
    "a symbolic link": (lambda _: _tar(("cat/0.png", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"})), "is a link"),
    "a hard link": (lambda _: _tar(("cat/0.png", b"", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"})), "is a link"),
    "a device": (lambda _: _tar(("cat/0.png", b"", {"type": tarfile.BLKTYPE, "devmajor": 8})), "is a link"),
    "a pipe": (lambda _: _tar(("cat/0.png", b"", {"type": tarfile.FIFOTYPE})), "is a link"),
    "two of one name": (lambda _: _tar(*[("cat/0.png", files.image())] * 2), "two files of one name"),
    "more than there is": (_lying_tar, "ends within|no whole"),
    "half a tar": (lambda _: _folders(files.image())[:3000], "no whole|ends within"),
    "giant images": (lambda _: _folders(_png(_HUGE, _HUGE)), "pixels|no image"),
    "images of giant text": (lambda _: _folders(_png(6, 4, before=_text_bomb())), "image.png"),
    "many images of nothing": (
        lambda _: _tar(*[(f"cat/{n}.png", it) for it in [_png(4000, 4000, pixels=bytes(4001) * 4000)] for n in range(80)]),
        "takes 1,280,000,640 bytes",
    ),
    "half an image": (lambda _: _folders(files.image(form="JPEG", size=(6, 4))[:300]), "image.png"),
    "a vector image": (lambda _: _folders(b"<svg onload='alert(1)'/>", "image.svg"), "no image"),
    "PostScript, which is a program": (
        lambda canary: _folders(f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 4\n({canary}) (w) file\n".encode()), "no image"
    ),
    "a script called an image": (lambda canary: _folders(_script(canary)), "no image"),
    "an image that is an archive too": (lambda _: _folders(files.image(form="GIF") + _npz()), "no image"),
    "a moving image": (lambda _: _folders(files.image(form="WEBP", save_all=True, append_images=_moving())), "is animated"),
    "sixteen bits": (lambda _: _folders(_png(6, 4, bits=16, pixels=bytes(13) * 4)), "eight bits"),
    "a see-through image": (lambda _: _folders(_png(6, 4, colour=6, pixels=bytes(25) * 4)), "transparent"),
    "half a table": (lambda _: b"PAR1" + bytes(100), "no readable"),
    "a table that is an archive too": (lambda _: b"PAR1" + _npz() + b"PAR1", "no readable"),
    "a table with a Python type": (_python_type, "no image"),
    "a table of one image, often": (_repeated_rows, "takes 3,200,000,000 bytes"),
    "a table of pickles": (lambda canary: _table(image=[_pickled(canary, 4)] * 4), "no image"),
    "JSON": (lambda _: json.dumps({"x_train": [[0]]}).encode(), "is neither"),
}  # fmt: skip


def _moving() -> list[Any]:
    from PIL import Image

    return [Image.new("L", (6, 4), 200)]


def _table(**columns: Any) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def programs(folder: Path) -> dict[str, tuple[bytes, str]]:
    """Programs that were changed by hand, and what their refusal names."""
    good = export(Tiny(), (3, 8, 8), folder / "tiny.pt2")
    whole = good.read_bytes()
    changes = {**UNSAFE, **BROKEN}.items()
    changed = {f"program: {name}": (rewrite(good, change).read_bytes(), named) for name, (change, named) in changes}
    changed["program: cut off"] = whole[: len(whole) // 2], "model "
    changed["program: behind an image"] = files.image() + whole, "model "
    return changed
