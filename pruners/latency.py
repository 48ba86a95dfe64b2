"""Latency as it is measured: networks take turns, so that whatever else the machine does falls on all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

WARM_UP = 5  # the first passes allocate and choose kernels
ROUNDS = 50  # a median of 50 is stable to a few percent on a shared machine


@dataclass(frozen=True)
class Latency:
    """How long one forward pass takes.

    Attributes:
        median_ms: milliseconds.
        spread_ms: the interquartile range: how far apart the middle half of the passes lay.
    """

    median_ms: float
    spread_ms: float


def measure_latency(networks: Sequence[tuple[nn.Module, Tensor]], rounds: int = ROUNDS) -> list[Latency]:
    """Times a forward pass of each network on its input, in turns; on the CPU on one thread.

    Args:
        networks: each with its input ``[batch, …]``, on one device.
        rounds: passes of each, 2 or more.
    """
    times: list[list[float]] = [[] for _ in networks]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for index in range(WARM_UP + rounds):
                for (module, example), taken in zip(networks, times, strict=True):
                    elapsed = _time(module, example)
                    if index >= WARM_UP:
                        taken.append(elapsed)
    finally:
        torch.set_num_threads(threads)
    return [_summary(taken) for taken in times]


def _time(module: nn.Module, example: Tensor) -> float:
    _wait(example.device)
    start = time.perf_counter()
    module(example)
    _wait(example.device)
    return 1000 * (time.perf_counter() - start)


def _wait(device: torch.device) -> None:
    """Accelerators return before they are done."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _summary(taken: Sequence[float]) -> Latency:
    lower, middle, upper = statistics.quantiles(taken, n=4, method="inclusive")
    return Latency(middle, upper - lower)
