"""A folder for services, which end with whoever made it, in whatever way that ends: ``scratch``.

A service that is told to end leaves a Ray with a live job running, as it should, and one whose benchmark was killed is told
nothing. So a process of its own waits for the benchmark's end, which closes the pipe between the two, and then clears up.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from service.cluster import EmbeddedCluster


@contextmanager
def scratch(prefix: str) -> Iterator[Path]:
    """A new folder; at the end no service has its data there, none of their Rays lives, and it is gone."""
    folder = tempfile.mkdtemp(prefix=prefix)
    command = [sys.executable, "-m", "benchmarks.scratch", folder]
    # In a session of its own: Ctrl-C is not for it.
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):
        yield Path(folder)


def main() -> None:
    """What waits: ``python -m benchmarks.scratch FOLDER``."""
    folder = Path(sys.argv[1])
    sys.stdin.buffer.read()
    for process in _workers(folder):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    for record in folder.rglob("ray.json"):
        EmbeddedCluster(record.parent).stop()
    shutil.rmtree(folder)


def _workers(folder: Path) -> Iterator[int]:
    """The processes of services whose data lies below a folder, and of their jobs, which outlive their Ray by a minute."""
    service, job = f"--data-dir\0{folder}/".encode(), f"SECATEUR_DATA_DIR={folder}/".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            if service in (process / "cmdline").read_bytes() or job in (process / "environ").read_bytes():
                yield int(process.name)


if __name__ == "__main__":
    main()
