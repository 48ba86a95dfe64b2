"""One architecture from export to reload, with everything that can go wrong noticed. Prints a JSON object.

    python -m benchmarks.zoo.measure resnet18

Half of every group is removed at random. Then the shrunk network must equal the masked one, its counted MACs and parameters
the analytic ones, and its export, read again, itself. A process measures one network, so that a crash is that network's alone.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.zoo.coverage import coverage
from benchmarks.zoo.networks import BARS, ZOO, Network
from benchmarks.zoo.timing import REPEATS, timed
from pruners.graph.groups import Coupling, Group, Indices
from pruners.graph.modules import build_module
from pruners.graph.program import read_program
from pruners.graph.shrink import shrink
from pruners.graph.silence import silence
from pruners.graph.trace import trace
from service.client.export import export_model

TOLERANCE = 1e-5  # relative: float32 sums of thousands of terms in another order
AUDIBLE = 1e-3  # relative: where removal changes the outputs by less, comparing them proves nothing
VECTORS = 20  # random width vectors whose parameters and MACs are counted
IMAGES = 3  # compared per network
OUTPUT = "is an output of the network"  # as tracing words it: channels that nobody would want to remove


class Failure(Exception):
    """A check that does not hold, in one sentence."""


def measure(network: Network, folder: Path, found: dict[str, Any]) -> None:
    """Fills in ``found``, as far as the checks hold.

    Raises:
        Failure: the first check that does not.
    """
    model, x = network.make(), network.example(IMAGES)
    path = export_model(model, network.example(2), folder / "dense.pt2")
    found["read_ms"], module = timed(lambda: build_module(read_program(path)), 1)
    dense = run(module, x)
    _check_equal("the network read from its file against the original", dense, run(model, x))
    fresh = [module, *(build_module(read_program(path)) for _ in range(REPEATS - 1))]  # tracing may rewrite the graph
    found["trace_ms"], coupling = timed(lambda: trace(fresh.pop()))
    _describe(model, module, coupling, found)
    if not coupling.prunable:
        raise Failure("no group is prunable")
    random = np.random.default_rng(0)
    half = [np.sort(random.permutation(len(g.classes))[: _least(g, len(g.classes) // 2)]) for g in coupling.prunable]
    found["shrink_ms"], small = timed(lambda: shrink(module, coupling, half))
    removed = run(small, x)
    if removed.shape != dense.shape:
        raise Failure(f"the shrunk network returns {tuple(removed.shape)} instead of {tuple(dense.shape)}")
    _compare_with_masked(module, coupling, half, x, dense, found)
    _count(module, coupling, network, found)
    again = build_module(read_program(export_model(small, network.example(2), folder / "small.pt2")))
    _check_equal("the shrunk network read from its file against itself", run(again, x), removed)
    if found["coverage"] < BARS[network.family]:
        raise Failure(f"only {found['coverage']:.1%} of the parameters are prunable, {BARS[network.family]:.0%} are due")


def run(module: nn.Module, x: Tensor) -> Tensor:
    """The network's outputs."""
    with torch.no_grad():
        result: Tensor = module(x)
    return result


def difference(a: Tensor, b: Tensor) -> float:
    """The greatest difference relative to the greatest value of ``b``."""
    return float((a - b).abs().max() / b.abs().max())


def _check_equal(what: str, a: Tensor, b: Tensor) -> None:
    apart = difference(a, b) if a.shape == b.shape else float("inf")
    if not apart <= TOLERANCE:
        raise Failure(f"{what} is {apart:.1e} off")


def _least(group: Group, classes: int) -> int:
    """A number of classes to keep, no less than may be kept."""
    return max(classes, -(-group.minimum // group.divisor))


def _describe(model: nn.Module, module: fx.GraphModule, coupling: Coupling, found: dict[str, Any]) -> None:
    reached = coverage(model, coupling, module.meta["names"])
    found["coverage"] = reached.share
    found["gaps"] = reached.gaps(8)
    found["groups"] = len(coupling.groups)
    found["prunable"] = len(coupling.prunable)
    inner = sum(group.width for group in coupling.groups if group.frozen_reason != OUTPUT)
    found["channels"] = sum(group.width for group in coupling.prunable) / max(inner, 1)
    found["frozen"] = dict(Counter(group.frozen_reason for group in coupling.groups if group.frozen_reason).most_common())


def _compare_with_masked(
    module: fx.GraphModule, coupling: Coupling, half: list[Indices], x: Tensor, dense: Tensor, found: dict[str, Any]
) -> None:
    """Groups that cross a norm over channels stay whole here: its statistics change when they shrink, and nothing is wrong."""
    crossing = [getattr(group, "crosses_norm", False) for group in coupling.prunable]
    keep = [
        np.arange(len(group.classes)) if crosses else kept
        for group, crosses, kept in zip(coupling.prunable, crossing, half, strict=True)
    ]
    found["crossing"] = sum(crossing)
    if all(crossing):
        return
    removed, masked = run(shrink(module, coupling, keep), x), run(silence(module, coupling, keep), x)
    found["difference"] = difference(removed, masked)
    found["change"] = difference(masked, dense)
    if not found["difference"] <= TOLERANCE:
        raise Failure(f"shrunk and masked network are {found['difference']:.1e} apart")
    if not found["change"] >= AUDIBLE:
        raise Failure(f"masking half of the channels changes the outputs by no more than {found['change']:.1e}")


def _count(module: fx.GraphModule, coupling: Coupling, network: Network, found: dict[str, Any]) -> None:
    random = np.random.default_rng(1)
    for _ in range(VECTORS):
        # Two at least: torch runs an einsum over one channel without a product that its counter would see.
        sizes = [len(g.classes) for g in coupling.prunable]
        classes = [_least(g, int(random.integers(min(2, n), n + 1))) for g, n in zip(coupling.prunable, sizes, strict=True)]
        keep = [np.sort(random.permutation(len(g.classes))[:n]) for g, n in zip(coupling.prunable, classes, strict=True)]
        widths = [n * group.divisor for group, n in zip(coupling.prunable, classes, strict=True)]
        small = shrink(module, coupling, keep)
        _check_count("parameters", coupling.cost("params", widths), sum(p.numel() for p in small.parameters()))
        _check_count("MACs", coupling.cost("macs", widths), count_macs(small, network))
    dense = [group.width for group in coupling.prunable]
    found["macs"], found["params"] = coupling.cost("macs", dense), coupling.cost("params", dense)
    _check_count("MACs of the dense network", found["macs"], count_macs(module, network))
    _check_count("parameters of the dense network", found["params"], sum(p.numel() for p in module.parameters()))
    halved = [_least(group, len(group.classes) // 2) * group.divisor for group in coupling.prunable]
    found["macs_kept"] = coupling.cost("macs", halved) / found["macs"]


def _check_count(what: str, analytic: int, counted: int) -> None:
    if analytic != counted:
        raise Failure(f"{what}: {analytic} by arithmetic, {counted} counted")


def count_macs(module: nn.Module, network: Network) -> int:
    """What torch's own counter says while the network runs on one input.

    Attention and LSTMs run as the matrix products they consist of, since the counter knows no fused kernel for CPUs.
    """
    counter = FlopCounterMode(display=False)
    products = torch.backends.mkldnn.flags(enabled=network.family != "recurrent", allow_tf32=None)
    with products, sdpa_kernel(SDPBackend.MATH), counter, torch.no_grad():
        module(network.example(1))
    return int(counter.get_total_flops()) // 2


def main() -> None:
    """The command line: one network's figures as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=ZOO)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # the packages' own, about each other
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)  # see benchmarks.zoo.timing
    network = ZOO[arguments.network]
    found: dict[str, Any] = {"name": network.name, "family": network.family, "verdict": "ok"}
    with tempfile.TemporaryDirectory() as folder:
        try:
            measure(network, Path(folder), found)
        except Exception as error:  # noqa: BLE001 - whatever breaks is the result
            found["verdict"] = sentence(error)
    print(json.dumps(found))


def sentence(error: Exception) -> str:
    """An error as one line."""
    text = (str(error).strip().splitlines() or [""])[0][:300]
    return text if isinstance(error, Failure) else f"{type(error).__name__}: {text}"


if __name__ == "__main__":
    main()
