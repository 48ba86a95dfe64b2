"""Latency as it is measured: networks take turns, so that whatever else the machine does falls on all of them alike."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

WARM_UP = 5  # the first passes allocate and choose kernels
ROUNDS = 50  # a median of 50 is stable to a few percent on a shared machine
TRIES = 4  # whose quietest counts, where passes lie apart by more than ...
QUIET = 0.2  # ... this share of the median; 0.02 to 0.1 on a machine that does nothing else


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

    While the machine is disturbed it is tried again, up to ``TRIES`` times, and the least disturbed try counts.

    Args:
        networks: each with its input ``[batch, …]``, on one device.
        rounds: passes of each, 2 or more.
    """
    quietest, least = list[Latency](), math.inf
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(TRIES):
            latencies = _measured(networks, rounds)
            disturbance = max((latency.spread_ms / latency.median_ms for latency in latencies), default=0.0)
            if disturbance < least:
                quietest, least = latencies, disturbance
            if least <= QUIET:
                break
    finally:
        torch.set_num_threads(threads)
    return quietest


@torch.inference_mode()
def _measured(networks: Sequence[tuple[nn.Module, Tensor]], rounds: int) -> list[Latency]:
    times: list[list[float]] = [[] for _ in networks]
    for index in range(WARM_UP + rounds):
        for (module, example), taken in zip(networks, times, strict=True):
            elapsed = _time(module, example)
            if index >= WARM_UP:
                taken.append(elapsed)
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
