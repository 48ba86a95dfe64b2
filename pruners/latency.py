"""Latency as it is measured: networks take turns, so that whatever else the machine does falls on all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

WARM_UP = 5  # the first passes allocate and choose kernels
ROUNDS = 50  # a median of 50 is stable to a few percent on a shared machine


def measure_latency(modules: Sequence[nn.Module], example: Tensor, rounds: int = ROUNDS) -> list[float]:
    """Median milliseconds of one forward pass of each module on one CPU thread, measured in turns.

    Args:
        modules: networks that take the same input.
        example: the input ``[batch, …]``.
        rounds: passes of each.
    """
    times: list[list[float]] = [[] for _ in modules]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for index in range(WARM_UP + rounds):
                for module, taken in zip(modules, times, strict=True):
                    start = time.perf_counter()
                    module(example)
                    if index >= WARM_UP:
                        taken.append(1000 * (time.perf_counter() - start))
    finally:
        torch.set_num_threads(threads)
    return [statistics.median(taken) for taken in times]
