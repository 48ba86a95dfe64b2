"""What the schedules are worth against their controls, on real images; draws what it finds.

    python -m benchmarks.schedules --data cifar10.npz --weights resnet20.safetensors --plot schedules.svg

Three parts, each of which ``--parts`` can leave out:

``admm``    A pretrained CIFAR ResNet loses single weights of its convolutions (``level``, every layer alike), without any
            training behind the cut. Cut at once; after ADMM; and after as many plain epochs with the same optimiser, learning
            rate and data, which is what ADMM must beat: training alone changes a network too.
``ticket``  A fully connected network learns scikit-learn's handwritten digits (1,797 real 8×8 images). Dense; the lottery
            ticket; and its control, the same masks on other random weights, trained as long.
``agp``     AGP's and Linear's sparsity over the epochs of a run on the digits, as the masks have it.

``--data`` and ``--weights``, which only ``admm`` needs, are those of ``benchmarks.cifar``. A seed decides the order of the
images, and in ``ticket`` the weights and which images are tested; test images are used once per network. One process, one
thread.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.cifar import CifarResNet
from pruners import ADMMPruner, AGPPruner, LevelPruner, LinearPruner, LotteryTicketPruner
from pruners.recovery.batchnorm import recalibrate_batchnorm
from workers.data import as_input

Data = tuple[Tensor, Tensor]
Result = dict[str, Any]

BATCH = 128  # images
TICKET_BATCH = 60  # Frankle and Carbin's for their fully connected network
RHO, RHO_GROWTH = 0.02, 2.0  # of ADMM: at first its pull moves weights by a fifth of the way, in the end by nearly all of it
ROUNDS = 8  # of the lottery ticket: each takes 18 % of what is left, about the paper's 20 %


def epoch_of(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    criterion: Callable[[Tensor, Tensor], Tensor],
    data: Data,
    size: int,
    order: torch.Generator,
) -> None:
    """One epoch of training over the images in a random order."""
    model.train()
    for batch in torch.randperm(len(data[1]), generator=order).split(size):
        optimizer.zero_grad()
        criterion(model(data[0][batch]), data[1][batch]).backward()
        optimizer.step()


def accuracy(model: nn.Module, data: Data) -> float:
    """The share of images whose label is the largest output."""
    model.eval()
    with torch.inference_mode():
        found = [(model(x).argmax(1) == y).sum() for x, y in zip(data[0].split(BATCH), data[1].split(BATCH), strict=True)]
    return float(sum(found)) / len(data[1])


# ---- ADMM


def admm(weights: Path, images: Path, arguments: argparse.Namespace, seed: int) -> list[Result]:
    """Test accuracy of a CIFAR ResNet cut at once, after plain epochs, and after ADMM."""
    with np.load(images, allow_pickle=False) as arrays:
        train, test = [(as_input(arrays[f"x_{name}"]), torch.from_numpy(arrays[f"y_{name}"])) for name in ("train", "test")]
    dense = cifar_resnet(weights)
    config = [{"sparsity": arguments.sparsity, "op_types": ["Conv2d"]}]
    epochs = arguments.iterations * arguments.epochs

    def trainer(
        model: nn.Module, optimizer: torch.optim.Optimizer, criterion: Callable[[Tensor, Tensor], Tensor], epoch: int
    ) -> None:
        some = torch.randperm(len(train[1]), generator=order)[: arguments.images]
        epoch_of(model, optimizer, criterion, (train[0][some], train[1][some]), 64, order)

    def sgd(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=arguments.lr, momentum=0.9)

    found: list[Result] = []
    for arm in ("at once", "plain training", "ADMM"):
        model, order, start = copy.deepcopy(dense), torch.Generator().manual_seed(seed), time.perf_counter()
        residuals: list[float] = []
        if arm == "ADMM":
            pruner = ADMMPruner(
                model,
                config,
                trainer,
                arguments.iterations,
                arguments.epochs,
                rho=arguments.rho,
                rho_growth=arguments.rho_growth,
                base_algo="level",
                optimizer=sgd(model),
                on_iteration=lambda _, each: residuals.append(statistics.mean(each.values())),  # noqa: B023  # called at once
            )
            pruner.compress()
        else:
            optimizer = sgd(model)
            for epoch in range(epochs if arm == "plain training" else 0):
                trainer(model, optimizer, functional.cross_entropy, epoch)
            LevelPruner(model, config).compress()
        found.append({"part": "admm", "arm": arm, "seed": seed, "residuals": residuals, "cut": accuracy(model, test)})
        recalibrate_batchnorm(model, train[0][torch.randperm(len(train[1]), generator=order)[:256]].split(64))
        found[-1] |= {"recalibrated": accuracy(model, test), "seconds": round(time.perf_counter() - start, 1)}
    return found


def cifar_resnet(weights: Path) -> CifarResNet:
    """The network of a weight file."""
    state = {name: tensor for name, tensor in load_file(weights).items() if not name.endswith("num_batches_tracked")}
    model = CifarResNet(2 + 2 * sum(name.startswith("layer") and name.endswith("conv1.weight") for name in state))
    model.load_state_dict(state, strict=False)
    return model


# ---- Lottery Ticket


def digits(seed: int) -> tuple[Data, Data]:
    """Training and test images ``[n, 64]`` in 0…1, and labels; which are which, the seed says."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    x, y = torch.from_numpy(images[order]).float() / 16, torch.from_numpy(labels[order]).long()
    return (x[600:], y[600:]), (x[:600], y[:600])


def lenet(seed: int) -> nn.Sequential:
    """Frankle and Carbin's fully connected network, for 64 pixels in place of 784."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))


def adam(model: nn.Module) -> torch.optim.Optimizer:
    """Frankle and Carbin's optimiser for that network."""
    return torch.optim.Adam(model.parameters(), lr=1.2e-3)


def ticket(arguments: argparse.Namespace, sparsity: float, seed: int) -> list[Result]:
    """Test accuracy of the dense network, the ticket, and the ticket's masks on other random weights."""
    train, test = digits(seed)
    model = lenet(seed)
    optimizer = adam(model)
    config = [{"prune_iterations": ROUNDS, "sparsity": sparsity, "op_types": ["Linear"]}]
    pruner = LotteryTicketPruner(model, config, optimizer)
    pruner.compress()
    seen: list[float] = []
    for _ in pruner.get_prune_iterations():
        pruner.prune_iteration_start()
        fit(model, optimizer, train, arguments.ticket_epochs, seed)
        seen.append(accuracy(model, test))
    control = copy.deepcopy(model)  # the masks come along
    with torch.no_grad():
        for mine, other in zip(control.parameters(), lenet(seed + 1000).parameters(), strict=True):
            mine.copy_(other)
    fit(control, adam(control), train, arguments.ticket_epochs, seed)
    arms = {"dense": seen[0], "ticket": seen[-1], "other weights": accuracy(control, test)}
    return [{"part": "ticket", "arm": arm, "sparsity": sparsity, "seed": seed, "cut": cut} for arm, cut in arms.items()]


def fit(model: nn.Module, optimizer: torch.optim.Optimizer, data: Data, epochs: int, seed: int) -> None:
    """Some epochs; the seed decides the order of the images."""
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        epoch_of(model, optimizer, functional.cross_entropy, data, TICKET_BATCH, order)


# ---- AGP


def curves() -> list[Result]:
    """By epoch, the share of masked weights with AGP and Linear, from 0 to 80 % between epochs 2 and 20."""
    train, _ = digits(0)
    found: list[Result] = []
    for kind in (AGPPruner, LinearPruner):
        model = lenet(0)
        optimizer = adam(model)
        config = [{"final_sparsity": 0.8, "start_epoch": 2, "end_epoch": 20, "op_types": ["Linear"]}]
        pruner = kind(model, config, optimizer)
        pruner.compress()
        for epoch in range(24):
            pruner.update_epoch(epoch)
            fit(model, optimizer, train, 1, epoch)
            masks = [parts["weight"] for parts in pruner.masks.values()]
            zeros = sum(int((mask == 0).sum()) for mask in masks if mask is not None)
            share = zeros / sum(mask.numel() for mask in masks if mask is not None)
            found.append({"part": "agp", "arm": kind.__name__, "epoch": epoch, "sparsity": share})
    return found


# ---- Report


def table(results: list[Result], part: str) -> Table:
    """Mean and range over the seeds."""
    shown = Table(title=f"{part}: test accuracy, mean (least … most) over seeds")
    for column in ("network", "as cut", "BatchNorm recalibrated") if part == "admm" else ("network", "trained"):
        shown.add_column(column)
    for name, own in by_arm(results, part).items():
        columns = ("cut", "recalibrated") if part == "admm" else ("cut",)
        shown.add_row(name, *[spread([result[column] for result in own]) for column in columns])
    return shown


def by_arm(results: list[Result], part: str) -> dict[str, list[Result]]:
    """The results of one part by what was compared."""
    arms: dict[str, list[Result]] = {}
    for result in results:
        if result["part"] == part:
            sparsity = f" at {result['sparsity']:.0%}" if part == "ticket" and result["arm"] != "dense" else ""
            arms.setdefault(result["arm"] + sparsity, []).append(result)
    return arms


def spread(values: list[float]) -> str:
    """Mean, least and most, in percent."""
    return f"{statistics.mean(values):.1%} ({min(values):.1%} … {max(values):.1%})"


def plot(results: list[Result], path: Path) -> None:
    """Accuracies after ADMM and of tickets, a point per seed, ADMM's residuals, and the curves of AGP and Linear."""
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 2, figsize=(9, 6.4), layout="constrained")
    axes = panels.flatten()
    titles = {"admm": "ResNet-20 on CIFAR-10, weights cut", "ticket": "Tickets on handwritten digits"}
    for place, (part, title) in zip(axes, titles.items(), strict=False):
        for index, (name, own) in enumerate(by_arm(results, part).items()):
            values = [100 * result["cut"] for result in own]
            place.bar(index, statistics.mean(values), color="0.8")
            place.plot([index] * len(values), values, "o", color="C0", label=name, alpha=0.6)
        names = list(by_arm(results, part))
        place.set_xticks(range(len(names)), [name.replace(" at ", "\nat ") for name in names], fontsize=7)
        place.set(title=title, ylabel="test accuracy, %")
        if part == "ticket" and names:
            lowest = min(100 * result["cut"] for own in by_arm(results, part).values() for result in own)
            place.set_ylim(lowest - 2, 100)
    for result in by_arm(results, "admm").get("ADMM", []):
        iterations = range(1, len(result["residuals"]) + 1)
        axes[2].semilogy(iterations, result["residuals"], "o-", markersize=3, label=f"seed {result['seed']}")
    axes[2].set(title="ADMM's residual ‖W − Z‖ / ‖W‖", xlabel="iteration", ylabel="mean over the layers")
    for name, own in by_arm(results, "agp").items():
        points = [(result["epoch"], 100 * result["sparsity"]) for result in own]
        axes[3].plot(*zip(*points, strict=True), "o-", markersize=3, label=name)
    axes[3].set(title="Gradual pruning, epochs 2 to 20", xlabel="epoch", ylabel="masked weights, %")
    for place in axes[2:]:
        place.legend()
    figure.savefig(path)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="an .npz of CIFAR-10 images, for admm")
    parser.add_argument("--weights", type=Path, help="a .safetensors of a CIFAR ResNet, for admm")
    parser.add_argument("--parts", nargs="+", choices=["admm", "ticket", "agp"], default=["admm", "ticket", "agp"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--sparsity", type=float, default=0.8, help="of admm's convolutions")
    parser.add_argument("--iterations", type=int, default=8, help="of admm")
    parser.add_argument("--epochs", type=int, default=2, help="in each of admm's iterations")
    parser.add_argument("--images", type=int, default=2048, help="that one of admm's epochs sees, drawn anew each time")
    parser.add_argument("--lr", type=float, default=0.01, help="of admm's SGD with momentum 0.9")
    parser.add_argument("--rho", type=float, default=RHO, help="admm's ρ in the first iteration")
    parser.add_argument("--rho-growth", type=float, default=RHO_GROWTH, help="by which ρ is multiplied behind each iteration")
    parser.add_argument("--ticket-sparsities", nargs="+", type=float, default=[0.8, 0.95])
    parser.add_argument("--ticket-epochs", type=int, default=20, help="of each of ticket's trainings")
    parser.add_argument("--output", type=Path, help="where to write the results as JSON")
    parser.add_argument("--plot", type=Path, help="where to draw them, as .svg or .png")
    parser.add_argument("--results", type=Path, help="draw and print these results of an earlier --output, measure nothing")
    arguments = parser.parse_args()
    if "admm" in arguments.parts and not arguments.results and not (arguments.data and arguments.weights):
        parser.error("admm needs --data and --weights; give both, or leave it out with --parts ticket agp")
    console = Console()
    results = json.loads(arguments.results.read_text()) if arguments.results else measure(arguments, console)
    for part in ("admm", "ticket"):
        if by_arm(results, part):
            console.print(table(results, part))
    if arguments.plot:
        plot(results, arguments.plot)


def measure(arguments: argparse.Namespace, console: Console) -> list[Result]:
    """All parts; what was found is written out as soon as it is there."""
    torch.set_num_threads(1)
    results: list[Result] = []

    def add(found: list[Result]) -> None:
        results.extend(found)
        for result in found if found[0]["part"] != "agp" else ():
            console.print(result)
        if arguments.output:
            arguments.output.write_text(json.dumps(results, indent=1))

    if "agp" in arguments.parts:
        add(curves())
    for seed in arguments.seeds:
        for sparsity in arguments.ticket_sparsities if "ticket" in arguments.parts else ():
            add(ticket(arguments, sparsity, seed))
    for seed in arguments.seeds if "admm" in arguments.parts else ():
        add(admm(arguments.weights, arguments.data, arguments, seed))
    return results


if __name__ == "__main__":
    main()
