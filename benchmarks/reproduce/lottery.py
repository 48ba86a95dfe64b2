"""A fully connected network is pruned round by round, what is left goes back to where it began, and learns again.

    python -m benchmarks.reproduce.lottery --data mnist
    python -m benchmarks.reproduce.lottery --small

Frankle and Carbin, The Lottery Ticket Hypothesis, ICLR 2019 (arXiv 1803.03635), LeNet-300-100 on MNIST: Adam at 1.2e-3, batches
of 60, 50,000 steps; each round takes 20 % of the weights that are left, 10 % of the output layer's, by magnitude. Tested where
the loss on 5,000 images that are held out was least. Down to 13.5 % of the weights tickets learn faster and end 0.3 points
better than the whole network, at 3.6 % they are as good as it, and on other random weights the same masks of 21 % learn 2.51
times as slowly and end half a point below.

Control: the masks of every third round on other random weights, trained as long.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.reproduce.experiment import Result, command_line, measured, spread
from benchmarks.reproduce.images import Images, load_images
from benchmarks.reproduce.training import accuracy
from pruners import LotteryTicketPruner

BATCH, LEARNING_RATE = 60, 1.2e-3
TAKEN, TAKEN_LAST = 0.2, 0.1  # of what is left, by each round
LOOK = 100  # steps between two looks at the images held out
CONTROLLED = 3  # rounds from one control to the next
TICKET, CONTROL = "ticket", "other weights"


def lenet(pixels: int, seed: int) -> nn.Sequential:
    """Glorot's normal weights, biases of zero."""
    torch.manual_seed(seed)
    layers: OrderedDict[str, nn.Module] = OrderedDict(flat=nn.Flatten())
    sizes = (pixels, 300, 100, 10)
    for number, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
        layer = nn.Linear(inputs, outputs)
        nn.init.xavier_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
        layers[f"fc{number}"] = layer
        if number < len(sizes) - 1:
            layers[f"relu{number}"] = nn.ReLU()
    return nn.Sequential(layers)


def adam(network: nn.Module) -> torch.optim.Adam:
    """The paper's optimiser."""
    return torch.optim.Adam(network.parameters(), LEARNING_RATE)


def learn(network: nn.Module, optimizer: torch.optim.Optimizer, images: Images, held: int, steps: int, seed: int) -> Result:
    """Trains in place; what the test images say where the loss on the held-out ones was least, and in the end.

    Args:
        network: takes whole images.
        optimizer: of it.
        images: the last ``held`` of the training images are held out.
        held: see there.
        steps: of the optimiser.
        seed: of the order of the images.
    """
    x, y = images.x_train[:-held], images.y_train[:-held]
    draw = torch.Generator().manual_seed(seed)
    left: Sequence[Tensor] = ()
    least, found = float("inf"), Result()
    for step in range(1, steps + 1):
        left = left or [batch for batch in torch.randperm(len(y), generator=draw).split(BATCH) if len(batch) == BATCH]
        batch, *left = left
        optimizer.zero_grad()
        functional.cross_entropy(network(x[batch]), y[batch]).backward()
        optimizer.step()
        if step % LOOK == 0 or step == steps:
            with torch.inference_mode():
                loss = float(functional.cross_entropy(network(images.x_train[-held:]), images.y_train[-held:]))
            if loss < least:
                least, found = loss, {"accuracy": accuracy(network, images), "stopped": step}
    return {**found, "last_accuracy": accuracy(network, images)}


def share_left(network: nn.Module) -> float:
    """Of the weights of all layers, those that no mask takes."""
    masks = [buffer for name, buffer in network.named_buffers() if name.endswith("weight_mask")]
    return sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)


def run(seed: int, images: Images, held: int, steps: int, rounds: int) -> list[Result]:
    """All rounds of one seed, and their controls."""
    results: list[Result] = []
    pixels = images.x_train[0].numel()
    network = lenet(pixels, seed)
    optimizer = adam(network)
    config = [
        {"prune_iterations": rounds, "sparsity": 1 - (1 - TAKEN) ** rounds, "op_names": ["fc1", "fc2"]},
        {"prune_iterations": rounds, "sparsity": 1 - (1 - TAKEN_LAST) ** rounds, "op_names": ["fc3"]},
    ]
    pruner = LotteryTicketPruner(network, config, optimizer)
    pruner.compress()

    def add(arm: str, number: int, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        start, left = time.process_time(), share_left(network)
        found = learn(network, optimizer, images, held, steps, seed)
        seconds = round(time.process_time() - start, 1)
        results.append({"arm": arm, "round": number, "left": left, **found, "seconds": seconds})
        print(f"seed {seed}, round {number} of {rounds}, {arm}: {left:.1%} left, {found}", flush=True)

    for number in pruner.get_prune_iterations():
        pruner.prune_iteration_start()
        add(TICKET, number, network, optimizer)
        if number and number % CONTROLLED == 0:
            control = copy.deepcopy(network)  # the masks come along
            with torch.no_grad():
                for mine, other in zip(control.parameters(), lenet(pixels, seed + 1000).parameters(), strict=True):
                    mine.copy_(other)
            add(CONTROL, number, control, adam(control))
    return results


def show(title: str, results: Sequence[Result]) -> None:
    """A row for each round: tickets, and their masks on other weights."""
    table = Table("weights left, %", "ticket", "stopped at", "other weights", "stopped at", title=f"{title}: test accuracy, %")
    for number in sorted({result["round"] for result in results}):
        cells = []
        for arm in (TICKET, CONTROL):
            own = [result for result in results if (result["arm"], result["round"]) == (arm, number)]
            cells += [spread([result["accuracy"] for result in own]), _steps(own)] if own else ["", ""]
        left = statistics.mean(result["left"] for result in results if result["round"] == number)
        table.add_row(f"{100 * left:.1f}", *cells)
    Console(width=160).print(table)


def _steps(results: Sequence[Result]) -> str:
    return f"{statistics.mean(result['stopped'] for result in results):,.0f}"


def draw(title: str, results: Sequence[Result], path: Path) -> None:
    """Accuracy and how soon it was reached, by the weights that are left: the mean, and least and most of the seeds."""
    from matplotlib import pyplot

    figure, places = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for place, value, label in zip(
        places, ("accuracy", "stopped"), ("test accuracy, %", "step of the least loss"), strict=True
    ):
        for arm in (TICKET, CONTROL):
            rounds = sorted({result["round"] for result in results if result["arm"] == arm})
            own = [[r for r in results if (r["arm"], r["round"]) == (arm, number)] for number in rounds]
            left = [100 * statistics.mean(r["left"] for r in each) for each in own]
            values = [[r[value] * (100 if value == "accuracy" else 1) for r in each] for each in own]
            place.plot(left, [statistics.mean(each) for each in values], "o-", markersize=3, label=arm)
            place.fill_between(left, [min(each) for each in values], [max(each) for each in values], alpha=0.2)
        place.set(xscale="log", xlabel="weights left, %", ylabel=label)
        place.invert_xaxis()
        place.set_xticks([100, 50, 20, 10, 5, 2], ["100", "50", "20", "10", "5", "2"])
        place.minorticks_off()
    places[0].legend()
    figure.suptitle(title)
    figure.savefig(path)


def main() -> None:
    """The command line."""
    parser = command_line(__doc__, "lottery")
    parser.add_argument("--steps", type=int, help="of each training; 50,000, or 3,000 with --small")
    parser.add_argument("--rounds", type=int, help="of pruning; 21, or 18 with --small")
    arguments = parser.parse_args()
    images = load_images(arguments.data)
    steps = arguments.steps or (3000 if arguments.small else 50_000)
    rounds = arguments.rounds or (18 if arguments.small else 21)
    held = min(5000, len(images.y_train) // 6)
    setting = {"data": images.name, "steps": steps, "rounds": rounds, "held": held}
    results = measured(arguments, setting, lambda seed: run(seed, images, held, steps, rounds))
    title = f"LeNet-300-100, {images.name}, {steps:,} steps"
    show(title, results)
    draw(title, results, arguments.plot)


if __name__ == "__main__":
    main()
