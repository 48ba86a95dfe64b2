"""Looks into uploads in a separate, limited process: whatever a file does there, the API goes on.

The parent starts ``python -m service.inspection KIND [PATH [INTO]]`` with an almost empty environment and a time limit; the
child bounds its own memory, processor time and files, shuts itself in (``service.sandbox``), reads a model by
``workers.inspection`` or a data set by ``workers.formats`` and prints one JSON document: ``{"found": …}`` or ``{"field": …,
"problem": …}``. Torch is imported in the child alone.
"""

from __future__ import annotations

import asyncio
import errno
import json
import resource
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any, Literal, Protocol

import structlog

from pruners.errors import InvalidInput
from service.problems import StorageFull
from service.sandbox import refuse_in_python, refuse_system_calls
from service.settings import Settings
from workers.formats.convert import convert

Kind = Literal["model", "data", "catalogue"]

_AT_ONCE = 2  # inspections; more would only share the processors and add up their memory
_SCRATCH_BYTES = 2**20  # per file that the child writes: torch insists on a temporary folder, and puts little into it
_OPEN_FILES = 256  # torch's libraries take about 60
_COPIES = 2  # of an upload in memory: once as read, once as tensors

log = structlog.get_logger()


class Inspect(Protocol):
    """Says what an upload holds, as JSON-ready data."""

    async def __call__(self, kind: Kind, path: Path | None = None, into: Path | None = None) -> dict[str, Any]:
        """What is found in a model, a data set, or (without a path) the pruners' catalogue.

        Args:
            kind: which of them.
            path: the upload.
            into: an empty file that a data set's arrays are written to.

        Raises:
            InvalidInput: the file cannot be used.
            StorageFull: what it holds does not fit on the disk.
        """


class LimitedProcess:
    """The inspection in a process of its own."""

    def __init__(self, settings: Settings) -> None:
        self._seconds = settings.inspect_seconds
        self._memory = settings.inspect_memory_bytes
        self._unpacked = settings.max_unpacked_bytes
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def __call__(self, kind: Kind, path: Path | None = None, into: Path | None = None) -> dict[str, Any]:
        async with self._slots:
            with TemporaryDirectory() as scratch:
                return await self._inspect(kind, path, into, scratch)

    async def _inspect(self, kind: Kind, path: Path | None, into: Path | None, scratch: str) -> dict[str, Any]:
        files = [str(file) for file in (path, into) if file is not None]
        arguments = [kind, str(self._seconds), str(self._memory), str(self._unpacked), *files]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-B", "-m", "service.inspection", *arguments),
            env={
                "PYTHONPATH": str(Path(__file__).parents[1]),
                "LC_ALL": "C.UTF-8",
                "OMP_NUM_THREADS": "1",  # an inspection computes little; threads only take memory
                "HOME": scratch,
                "TMPDIR": scratch,
            },
            cwd=scratch,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            output, errors = await asyncio.wait_for(process.communicate(), self._seconds)
        except TimeoutError:
            raise self._too_much(kind) from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            log.error("inspection_died", kind=kind, code=process.returncode, stderr=errors.decode(errors="replace"))
            raise self._too_much(kind)
        answer: dict[str, Any] = json.loads(output)
        if "full" in answer:
            raise StorageFull("The store's disk is full; free some space and try again.")
        if "trace" in answer:
            log.error("inspection_failed", kind=kind, trace=answer["trace"])
        if "found" not in answer:
            raise InvalidInput(answer["field"], None, answer["problem"])
        found: dict[str, Any] = answer["found"]
        return found

    def _too_much(self, kind: Kind) -> InvalidInput:
        gib = self._memory / 2**30
        return InvalidInput(
            kind,
            None,
            f"could not be inspected: it needs more than {self._seconds} s or {gib:g} GiB of memory beside the file, or is "
            "damaged; send a smaller one or raise SECATEUR_INSPECT_SECONDS or SECATEUR_INSPECT_MEMORY_BYTES",
        )


def main(arguments: Sequence[str]) -> int:
    """The child: ``KIND SECONDS BYTES BYTES [PATH [INTO]]``, the bytes those of memory and of what is written."""
    kind, seconds, memory, unpacked, *files = arguments
    paths = [Path(file) for file in files]
    size = paths[0].stat().st_size if paths else 0
    _limit(resource.RLIMIT_AS, int(memory) + _COPIES * size)
    _limit(resource.RLIMIT_CPU, int(seconds))
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, _SCRATCH_BYTES + (int(unpacked) if len(paths) > 1 else 0))
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    seal(kind, [Path(gettempdir()), *paths[1:]])
    print(json.dumps(answer(kind, int(unpacked), paths), allow_nan=False))  # noqa: T201  (the parent reads it)
    return 0


def seal(kind: str, writable: Sequence[Path]) -> None:
    """Imports what reads such uploads, and from here on this process can do little else; see ``service.sandbox``."""
    refuse_system_calls()  # before any other thread is there, since each has to inherit it
    if kind != "data":
        import workers.inspection  # noqa: F401  (here: where memory ends with this, the limits are to blame and no upload)
    refuse_in_python(writable)


def answer(kind: str, unpacked: int, paths: Sequence[Path]) -> dict[str, Any]:
    """The child's JSON document.

    Args:
        kind: what the upload is.
        unpacked: bytes that a data set's arrays may take.
        paths: the upload, and the file for those arrays.
    """
    try:
        return {"found": _find(kind, unpacked, *paths)}
    except InvalidInput as error:
        return _refused(error)
    except MemoryError:  # the parent names the limits when the child dies
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return {"full": True}
        return _unread(kind, error)
    except Exception as error:  # noqa: BLE001  (the upload is the only input: whatever reading it raises is its doing)
        return _unread(kind, error)


def _unread(kind: str, error: Exception) -> dict[str, Any]:
    problem = f"could not be read ({type(error).__name__}); make the file again and check it on your own machine"
    return {**_refused(InvalidInput(kind, None, problem)), "trace": traceback.format_exc()}


def _find(kind: str, unpacked: int, *paths: Path) -> dict[str, Any]:
    if kind == "data":
        return convert(paths[0], paths[1], unpacked)
    from workers import inspection  # and torch

    return inspection.inspect_model(paths[0]) if kind == "model" else inspection.catalogue()


def _refused(error: InvalidInput) -> dict[str, str]:
    """Field and the rest of its sentence, from which the parent makes the same error."""
    return {"field": error.field, "problem": str(error).removeprefix(error.field).strip().removesuffix(".")}


def _limit(kind: int, most: int) -> None:
    hard = resource.getrlimit(kind)[1]
    bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (bound, bound))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
