"""Looks into uploads in a separate, limited process: whatever a file does there, the API goes on.

The parent starts ``python -m service.inspection KIND [PATH]`` with an almost empty environment and a time limit; the
child bounds its own memory, processor time and files, reads the upload by ``workers.inspection`` and prints one JSON
document: ``{"found": …}`` or ``{"field": …, "problem": …}``. Torch is imported in the child alone.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Protocol

import structlog

from pruners.errors import InvalidInput
from service.settings import Settings

Kind = Literal["model", "data", "catalogue"]

_AT_ONCE = 2  # inspections; more would only share the processors and add up their memory
_SCRATCH_BYTES = 2**20  # per file that the child writes: torch insists on a temporary folder, and puts little into it
_OPEN_FILES = 256  # torch's libraries take about 60
_COPIES = 2  # of an upload in memory: once as read, once as tensors

log = structlog.get_logger()


class Inspect(Protocol):
    """Says what an upload holds, as JSON-ready data."""

    async def __call__(self, kind: Kind, path: Path | None = None) -> dict[str, Any]:
        """What ``workers.inspection`` returns for a model, a data set, or (without a path) the pruners' catalogue.

        Raises:
            InvalidInput: the file cannot be used.
        """


class LimitedProcess:
    """The inspection in a process of its own."""

    def __init__(self, settings: Settings) -> None:
        self._seconds = settings.inspect_seconds
        self._memory = settings.inspect_memory_bytes
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def __call__(self, kind: Kind, path: Path | None = None) -> dict[str, Any]:
        async with self._slots:
            with TemporaryDirectory() as scratch:
                return await self._inspect(kind, path, scratch)

    async def _inspect(self, kind: Kind, path: Path | None, scratch: str) -> dict[str, Any]:
        arguments = [kind, str(self._seconds), str(self._memory)] + [str(path)] * (path is not None)
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
            f"could not be inspected: it needs more than {self._seconds} s or {gib:g} GiB of memory beside the file; "
            "send a smaller one or raise SECATEUR_INSPECT_SECONDS or SECATEUR_INSPECT_MEMORY_BYTES",
        )


def main(arguments: Sequence[str]) -> int:
    """The child: ``KIND SECONDS BYTES [PATH]``."""
    kind, seconds, memory, *rest = arguments
    path = Path(rest[0]) if rest else None
    size = path.stat().st_size if path else 0
    _limit(resource.RLIMIT_AS, int(memory) + _COPIES * size)
    _limit(resource.RLIMIT_CPU, int(seconds))
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, _SCRATCH_BYTES)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    print(json.dumps(_answer(kind, path), allow_nan=False))  # noqa: T201  (the parent reads it)
    return 0


def _answer(kind: str, path: Path | None) -> dict[str, Any]:
    import workers.inspection  # noqa: F401  (out of reach of what follows: where memory ends here, the limits are to blame)

    try:
        return {"found": _find(kind, path)}
    except InvalidInput as error:
        return _refused(error)
    except MemoryError:  # the parent names the limits when the child dies
        raise
    except Exception as error:  # noqa: BLE001  (the upload is the only input: whatever reading it raises is its doing)
        problem = f"could not be read ({type(error).__name__}); make the file again and check it on your own machine"
        return {**_refused(InvalidInput(kind, None, problem)), "trace": traceback.format_exc()}


def _find(kind: str, path: Path | None) -> dict[str, Any]:
    from workers import inspection

    if path is None:
        return inspection.catalogue()
    return inspection.inspect_model(path) if kind == "model" else inspection.inspect_dataset(path)


def _refused(error: InvalidInput) -> dict[str, str]:
    """Field and the rest of its sentence, from which the parent makes the same error."""
    return {"field": error.field, "problem": str(error).removeprefix(error.field).strip().removesuffix(".")}


def _limit(kind: int, most: int) -> None:
    hard = resource.getrlimit(kind)[1]
    bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (bound, bound))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
