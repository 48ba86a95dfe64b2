"""NetAdapt of NNI 2.10.1 and ours on the same ResNet-20 and images: CPU time and accuracy per MACs truly removed.

    python -m benchmarks.peer --data cifar10.npz --weights resnet20.safetensors --peer nni-venv/bin/python run_search.py

``--peer`` is the Python of a virtual environment that holds NNI and a script that runs its NetAdapt: called with ``netadapt
--budget small``, it prints a line of JSON with ``wall_s``, ``cpu_s_total_process`` and, in ``after_speedup``, the physical
network's ``flops_sparsity`` (the share of MACs removed) and ``test_acc``. Ours searches for half of the MACs with its
defaults. Both run on one thread, one after the other, for the same seeds; CPU time counts, since other processes stretch wall
time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.cifar import export_cifar_resnet
from benchmarks.search import Setting

_RATIO = 0.5


def ours(model: Path, data: Path, seed: int, trials: int) -> tuple[float, float, float]:
    """CPU seconds, the share of MACs removed, and the test accuracy."""
    found = Setting(model, data, _RATIO, seed, trials).search("netadapt")
    return found["seconds"], 1 - found["achieved_ratio"], found["accuracy"]


def peers(python: Path, script: Path, seed: int) -> tuple[float, float, float]:
    """The same of NNI's NetAdapt, whose target is half of the weights; loading and speeding up count as well."""
    command = [str(python), str(script.resolve()), "netadapt", "--budget", "small", "--seed", str(seed)]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            command, cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, capture_output=True, text=True
        )
    result = json.loads(done.stdout.splitlines()[-1])
    if result["error"]:
        raise SystemExit(f"The peer failed: {result['error']}")
    small = result["after_speedup"]
    return result["cpu_s_total_process"], small["flops_sparsity"], small["test_acc"]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--peer", type=Path, nargs=2, required=True, metavar=("PYTHON", "SCRIPT"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--trials", type=int, default=100, help="of our search")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    shown = Table(title="NetAdapt on ResNet-20")
    for column in ("who", "seed", "CPU seconds", "MACs removed", "seconds per 10 % removed", "test accuracy"):
        shown.add_column(column, justify="left" if column == "who" else "right")
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.pt2"
        export_cifar_resnet(arguments.weights, model)
        for seed in arguments.seeds:
            runs = {"ours": ours(model, arguments.data, seed, arguments.trials), "NNI 2.10.1": peers(*arguments.peer, seed)}
            for who, (seconds, removed, accuracy) in runs.items():
                pace = f"{seconds / (10 * removed):.1f}" if removed > 0 else "none removed"
                shown.add_row(who, str(seed), f"{seconds:.0f}", f"{removed:.1%}", pace, f"{accuracy:.1%}")
    Console().print(shown)


if __name__ == "__main__":
    main()
