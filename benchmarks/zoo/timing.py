"""How long a piece of work takes, measured alike for this engine and its peer."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

REPEATS = 3


def timed(work: Callable[[], Any], repeats: int = REPEATS) -> tuple[float, Any]:
    """Median milliseconds and the last result: of processor time in one thread, whatever else the machine is doing.

    Python collects no garbage meanwhile, as in ``timeit``: what exporting a network left behind takes many times longer to
    look through than a small network takes to trace.
    """
    spent: list[float] = []
    result = None
    for _ in range(repeats):
        gc.collect()
        gc.disable()
        start = time.process_time()
        try:
            result = work()
        finally:
            spent.append(1000 * (time.process_time() - start))
            gc.enable()
    return statistics.median(spent), result
