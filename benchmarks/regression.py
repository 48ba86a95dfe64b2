"""What foretells the error of a pruned network of values: its distance from the dense network as it is, or at its best scale?

``python -m benchmarks.regression`` trains small networks on scikit-learn's digits, one that tells five measures of an image and
one that takes the noise out of it, cuts each to half of its MACs by random plans, and ranks the plans by both scores. The rank
correlation with the error on test images says how well a ranking foretells it: as cut, and after two epochs of training.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from torch import Tensor, fx, nn
from torch.nn import functional

from service.client.export import export_model
from service.demo.digits import DigitsResNet
from workers.data import Split, Splits
from workers.evaluator import Evaluator
from workers.spec import JobSpec
from workers.training import short_tune

_TRAIN, _SEARCH = 880, 220  # images, of 1,797; the others are for the test
_NOISE = 0.3  # standard deviation, of pixels in 0…1
_EPOCHS, _TUNING_EPOCHS = 20, 2
_SPEC = {"budget": {"ratio": 0.5}, "task": {"type": "regression"}}


class Measures(DigitsResNet):
    """Ink, centre, extent and edges of an image: ``[n, 5]``."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 5)


class Denoiser(DigitsResNet):
    """The image without its noise: ``[n, 1, 8, 8]``."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(64, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.pixel_shuffle(self.head(self.blocks(functional.relu(self.bn(self.conv(x))))), 4)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.regression", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--plans", type=int, default=16)
    parser.add_argument("--output", type=Path, help="Also write the results as JSON.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = [correlations(kind, seed, options.plans) for kind in (Measures, Denoiser) for seed in options.seeds]
    if options.output is not None:
        options.output.write_text(json.dumps(results, indent=1) + "\n")
    shown = Table("network", "score", "rank correlation as cut", f"after {_TUNING_EPOCHS} epochs")
    for kind in (Measures, Denoiser):
        for score in ("plain", "at its best"):
            own = [result[score] for result in results if result["network"] == kind.__name__]
            shown.add_row(kind.__name__, score, *(_spread([each[when] for each in own]) for when in ("cut", "tuned")))
    Console().print(shown)


def correlations(kind: type[DigitsResNet], seed: int, plans: int) -> dict[str, Any]:
    """How well either score ranks random plans of one network."""
    draw = np.random.default_rng(seed)
    data = _data(kind, draw)
    with tempfile.TemporaryDirectory() as folder:
        path = export_model(_trained(kind, data, seed), torch.zeros(2, 1, 8, 8), Path(folder) / "model.pt2")
        evaluator = Evaluator(path, data, JobSpec.model_validate(_SPEC))
    space, dense = evaluator.space(), _outputs(evaluator.dense, data.search)
    plain, best, cut, tuned = ([] for _ in range(4))
    for _ in range(plans):
        pruned = evaluator.prune(space.project(draw.uniform(0.2, 1, len(space.groups)).tolist()))
        network = pruned.network
        plain.append(-evaluator.quality(network, data.search).divergence)
        best.append(-_at_its_best(_outputs(network, data.search), dense))
        cut.append(-evaluator.quality(network, data.test).metric)
        trainer = evaluator.trainer(pruned)
        short_tune(trainer, _TUNING_EPOCHS * trainer.steps)
        tuned.append(-evaluator.quality(network, data.test).metric)
    errors = {"cut": cut, "tuned": tuned}
    return {
        "network": kind.__name__,
        "seed": seed,
        "dense": evaluator.quality(evaluator.dense, data.test).metric,
        "median": {when: -float(np.median(found)) for when, found in errors.items()},
        **{
            name: {when: float(spearmanr(scores, found).statistic) for when, found in errors.items()}
            for name, scores in (("plain", plain), ("at its best", best))
        },
    }


def _at_its_best(outputs: Tensor, dense: Tensor) -> float:
    """The distance at the scale and the shift of the outputs that suit them best, as a share of the dense outputs' variance."""
    found, wanted = (each.flatten(1).double() - each.flatten(1).double().mean(0) for each in (outputs, dense))
    scale = max(0.0, float((found * wanted).sum() / found.square().sum()))
    return float((scale * found - wanted).square().sum() / wanted.square().sum())


@torch.inference_mode()
def _outputs(network: fx.GraphModule, split: Split) -> Tensor:
    return torch.cat([network.eval()(images) for images, _ in split.batches()])


def _data(kind: type[DigitsResNet], draw: np.random.Generator) -> Splits:
    images = (load_digits().images[:, None] / 16).astype(np.float32)
    images = images[draw.permutation(len(images))]
    if kind is Denoiser:
        inputs, targets = (images + _NOISE * draw.normal(size=images.shape)).astype(np.float32), images
    else:
        inputs, targets = images, _measures(images[:, 0])
    ends = (slice(_TRAIN), slice(_TRAIN, _TRAIN + _SEARCH), slice(_TRAIN + _SEARCH, None))
    return Splits(*(Split(inputs[rows], targets[rows]) for rows in ends))


def _measures(images: NDArray[np.float32]) -> NDArray[np.float32]:
    y, x = np.mgrid[:8, :8]
    ink = images.sum((1, 2))
    centre = [(images * axis).sum((1, 2)) / ink for axis in (x, y)]
    apart = [axis - each[:, None, None] for axis, each in zip((x, y), centre, strict=True)]
    extent = np.sqrt((images * (apart[0] ** 2 + apart[1] ** 2)).sum((1, 2)) / ink)
    edges = sum(np.abs(np.diff(images, axis=axis)).sum((1, 2)) for axis in (1, 2))
    found = np.stack([ink, *centre, extent, edges], 1)
    return ((found - found.mean(0)) / found.std(0)).astype(np.float32)


def _trained(kind: type[DigitsResNet], data: Splits, seed: int) -> DigitsResNet:
    torch.manual_seed(seed)
    network = kind()
    x, y = torch.tensor(data.train.x), torch.tensor(data.train.y)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _EPOCHS * -(-len(x) // 64))
    for _ in range(_EPOCHS):
        for chosen in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            functional.mse_loss(network(x[chosen]), y[chosen]).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.2f} ({min(values):.2f} … {max(values):.2f})"


if __name__ == "__main__":
    main()
