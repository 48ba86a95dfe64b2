"""VGG-16 on CIFAR-10 loses half the filters of seven layers, the smallest by L1 norm, and is trained again.

    python -m benchmarks.reproduce.vgg_l1 --data cifar10.npz
    python -m benchmarks.reproduce.vgg_l1 --small

Li, Kadav, Durdanovic, Samet and Graf, Pruning Filters for Efficient ConvNets, ICLR 2017 (arXiv 1608.08710), VGG-16-pruned-A:
half of the filters of convolution 1 and of convolutions 8 to 13, then 40 epochs at a constant learning rate of 0.001. Error
6.75 → 6.60 %, 64.0 % of the parameters and 34.2 % of the operations gone; the same small network trained from random weights:
6.88 %.

Controls at equal cost: filters drawn at random, trained as long; and the small network from random weights, trained as long as
the dense one and the cut one together. The network of the last epoch is the one that is tested: test images choose nothing.
"""

from __future__ import annotations

import copy
import time
from dataclasses import asdict

import torch

from benchmarks.reproduce.experiment import Result, draw_errors, measured, show, vgg_command_line, vgg_setting
from benchmarks.reproduce.images import Images
from benchmarks.reproduce.training import Recipe, accuracy, train
from benchmarks.reproduce.vgg import VGG16, Vgg, full_widths, macs, params, widths_of
from pruners import L1FilterPruner, RandomFilterPruner

LAYERS = [1, *range(8, 14)]
PUBLISHED = {
    "dense": "6.75",
    "L1": "6.60, −64.0 % parameters, −34.2 % operations",
    "from random weights": "6.88",
}
CUT = [{"sparsity": 0.5, "op_names": [f"features.conv{number}" for number in LAYERS]}]


def run(seed: int, images: Images, share: float, dense_recipe: Recipe, retrain: Recipe) -> list[Result]:
    """All arms of one seed."""
    results: list[Result] = []
    example = images.x_test[:2]

    def add(arm: str, network: torch.nn.Module, as_cut: float | None, start: float) -> None:
        figures = {"macs": macs(network), "params": params(network), "seconds": round(time.process_time() - start, 1)}
        results.append({"arm": arm, "accuracy": accuracy(network, images), "as_cut": as_cut, **figures})
        print(results[-1], flush=True)

    hidden, start = int(512 * share), time.process_time()
    torch.manual_seed(seed)
    dense = Vgg(VGG16, full_widths(VGG16, share), hidden, images.channels)
    train(f"seed {seed}, dense", dense, images, dense_recipe, seed)
    add("dense", dense, None, start)
    for arm, kind, options in (("L1", L1FilterPruner, {}), ("random filters", RandomFilterPruner, {"seed": seed})):
        start = time.process_time()
        pruner = kind(copy.deepcopy(dense), CUT, **options)
        pruner.compress()
        small = pruner.compact(example)
        as_cut = accuracy(small, images)
        train(f"seed {seed}, {arm}", small, images, retrain, seed)
        add(arm, small, as_cut, start)
    start = time.process_time()
    torch.manual_seed(seed + 1000)
    fresh = Vgg(VGG16, widths_of(small), hidden, images.channels)
    longer = Recipe(**{**asdict(dense_recipe), "epochs": dense_recipe.epochs + retrain.epochs})
    train(f"seed {seed}, from random weights", fresh, images, longer, seed)
    add("from random weights", fresh, None, start)
    return results


def main() -> None:
    """The command line."""
    parser = vgg_command_line(__doc__, "vgg-l1")
    parser.add_argument("--epochs", type=int, help="of the dense network; 160, or 4 with --small")
    parser.add_argument("--retrain", type=int, help="epochs of the cut one; 40, or 1 with --small")
    arguments = parser.parse_args()
    share, images = vgg_setting(arguments)
    dense = Recipe(arguments.epochs or (4 if arguments.small else 160), 0.05 if arguments.small else 0.1)
    # A hundredth of the paper's steps at its learning rate would leave the weights where they are.
    retrain = Recipe(arguments.retrain or (1 if arguments.small else 40), 0.01 if arguments.small else 0.001, drops=())
    setting = {"data": images.name, "images": len(images.y_train), "width": share}
    setting |= {"dense": asdict(dense), "retrain": asdict(retrain)}
    results = measured(arguments, setting, lambda seed: run(seed, images, share, dense, retrain))
    title = f"VGG-16, {share:g} of its width, {images.name}"
    show(title, results, PUBLISHED)
    draw_errors(title, results, arguments.plot)


if __name__ == "__main__":
    main()
