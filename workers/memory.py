"""What a process that lives for thousands of trials gives back: memory that nobody holds, and traces of past networks."""

from __future__ import annotations

import ctypes
import linecache
import time
from typing import Any

from torch.fx import graph_module

_SECONDS = 1.0  # between two calls of malloc_trim: one takes 10 ms, and as much again until the memory is back


class Tidying:
    """To be called when a trial is over."""

    def __init__(self) -> None:
        self._trim: Any = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; others give back by themselves
        self._last = 0.0

    def __call__(self) -> None:
        forget_sources()
        if self._trim is not None and time.monotonic() - self._last >= _SECONDS:
            self._trim(0)
            self._last = time.monotonic()


def forget_sources() -> None:
    """Drops the source texts of graphs: torch keeps all that it ever compiled, 0.1 MiB for each trial of a ResNet-56.

    They are for tracebacks alone. Where torch keeps them is private; a torch that keeps none, or elsewhere, is left alone.
    """
    kept: dict[str, str] = getattr(getattr(graph_module, "_loader", None), "eval_cache", {})
    for name in kept:
        linecache.cache.pop(name, None)
    kept.clear()
