"""Torch-Pruning (Fang et al. 2023, https://arxiv.org/abs/2301.12900) on the same networks, for comparison.

It is given what its documentation asks of every user: the network, an example input and the output layers to leave alone.
Half of every group goes at random. It succeeds if what is left runs, returns the same shape and costs less. Prints a JSON
object, from a process of its own, since on some networks it fills any memory:

    python -m benchmarks.zoo.peer resnet18
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import resource
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.zoo.networks import ZOO, Network
from benchmarks.zoo.timing import REPEATS, timed

_MEMORY = 8 * 2**30  # bytes of address space; where it works it takes less than 2 GiB


def measure_peer(network: Network) -> dict[str, Any]:
    """Figures of one network: ``graph_ms``, ``prune_ms``, ``macs_kept`` as far as it gets, and ``peer_verdict``."""
    found: dict[str, Any] = {}
    try:
        _measure(network, found)
        found["peer_verdict"] = "ok"
    except Exception as error:  # noqa: BLE001 - whatever breaks is the result
        first = (str(error).strip().splitlines() or [""])[0][:300]
        found["peer_verdict"] = f"{type(error).__name__}: {first}"
    return found


def _measure(network: Network, found: dict[str, Any]) -> None:
    import torch_pruning

    model, x = network.make(), network.example(1)
    dense = _run(model, x)
    copies = [copy.deepcopy(model) for _ in range(REPEATS)]
    found["graph_ms"], _ = timed(lambda: torch_pruning.DependencyGraph().build_dependency(copies.pop(), example_inputs=x))
    copies = [copy.deepcopy(model) for _ in range(REPEATS)]
    pruners = [
        torch_pruning.pruner.BasePruner(
            network, x, torch_pruning.importance.RandomImportance(), pruning_ratio=0.5, ignored_layers=_outputs(network, x)
        )
        for network in copies
    ]
    found["prune_ms"], _ = timed(lambda: pruners.pop().step())
    pruned = copies[0]  # the last one's, as pruners go from the end
    result = _run(pruned, x)
    if result.shape != dense.shape:
        raise ValueError(f"the pruned network returns {tuple(result.shape)} instead of {tuple(dense.shape)}")
    found["macs_kept"] = _macs(pruned, x) / _macs(model, x)
    if found["macs_kept"] >= 1:
        raise ValueError("nothing was removed")


def _outputs(model: nn.Module, x: Tensor) -> list[nn.Module]:
    """The layers that return what the network returns, by shape; else the last one (its result may be pooled)."""
    shapes: dict[nn.Module, torch.Size] = {}

    def record(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and hasattr(module, "weight"):
            shapes[module] = output.shape

    hooks = [module.register_forward_hook(record) for module in model.modules() if not list(module.children())]
    result = _run(model, x)
    for hook in hooks:
        hook.remove()
    return [module for module, shape in shapes.items() if shape == result.shape] or [list(shapes)[-1]]


def _run(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        result: Tensor = model(x)
    return result


def _macs(model: nn.Module, x: Tensor) -> int:
    counter = FlopCounterMode(display=False)
    with counter:
        _run(model, x)
    return int(counter.get_total_flops()) // 2


def main() -> None:
    """The command line: one network's figures as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=ZOO)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # the packages' own, about each other
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)  # see benchmarks.zoo.timing
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    print(json.dumps(measure_peer(ZOO[arguments.network])))


if __name__ == "__main__":
    main()
