"""Images a second during a search, as a share of those of a loop that does nothing but pass them through the same networks.

    python -m benchmarks.throughput --data cifar10.npz --weights resnet56.safetensors --gpus 1

``--data`` and ``--weights`` are those of ``benchmarks.cifar``. Plans differ, as in a search; each is shrunk, recalibrated and
judged, as by a worker, and then its network passes over all the images that this took, calibration included, batch after batch
as they lie on the device, in evaluation mode. In turns in one process; medians over plans. On a GPU with ``--gpus 1``,
otherwise on one core; the more images there are to search on, the less all else weighs.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from benchmarks.cifar import command_line, exported, held_out
from benchmarks.report import report
from searchers.random import Random, RandomParams
from workers.data import Split
from workers.device import Images, device_of, prepare, room
from workers.evaluator import Evaluator
from workers.spec import JobSpec


def measure(model: Path, data: Path, images: int, plans: int, resources: dict[str, Any]) -> dict[str, Any]:
    """Images a second of both ways, and their ratio plan by plan."""
    spec = JobSpec.model_validate({"budget": {"ratio": 0.5}, "resources": resources})
    prepare(spec.resources)
    splits, device = held_out(data, images, 0), device_of(spec.resources)
    evaluator = Evaluator(model, splits, spec)
    searcher = Random(evaluator.space(), RandomParams(), 0, plans + 1)
    calibrating = Split(splits.train.x[:256], splits.train.y[:256])
    batches = [
        Images(
            [each.contiguous(memory_format=evaluator.passes.layout) for each, _ in split.batches()],
            device,
            room(device, spec.resources),
        )
        for split in (calibrating, splits.search)
    ]
    passed = images + len(calibrating)
    searching, bare = list[float](), list[float]()
    for number in range(plans + 1):  # the first one warms up
        proposal = searcher.ask()
        start = time.perf_counter()
        outcome, pruned = evaluator.evaluate_keeping(proposal.widths)
        middle = time.perf_counter()
        assert pruned is not None, outcome.error
        searcher.tell(proposal.id, outcome)
        _loop(pruned.network, batches)
        if number:
            searching.append(passed / (middle - start))
            bare.append(passed / (time.perf_counter() - middle))
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "images": images,
        "plans": plans,
        "searching": round(statistics.median(searching)),
        "bare": round(statistics.median(bare)),
        "share": round(statistics.median(one / other for one, other in zip(searching, bare, strict=True)), 3),
    }


@torch.inference_mode()
def _loop(network: torch.nn.Module, batches: list[Images]) -> None:
    found = [network(images).argmax(1) for each in batches for images in each]
    torch.cat(found).cpu()  # waits for the device


def main() -> None:
    """The command line."""
    parser = command_line(__doc__)
    parser.add_argument("--images", type=int, default=1000, help="to search on")
    parser.add_argument("--plans", type=int, default=10)
    parser.add_argument("--gpus", type=float, default=0)
    parser.add_argument("--precision", default="float32")
    arguments = parser.parse_args()
    resources = {"gpus": arguments.gpus, "precision": arguments.precision}
    with exported(arguments.weights) as model:
        result = measure(model, arguments.data, arguments.images, arguments.plans, resources)
    shown = Table(title=f"{arguments.weights.stem} on {result['device']}, {result['images']} images: images a second")
    for column in ("searching", "a bare loop", "share"):
        shown.add_column(column, justify="right")
    shown.add_row(f"{result['searching']:,}", f"{result['bare']:,}", f"{result['share']:.0%}")
    report(shown, {"network": arguments.weights.stem, **result}, arguments.output)


if __name__ == "__main__":
    main()
