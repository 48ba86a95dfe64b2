"""The end of a job: the winners are trained, held to the constraint, written as files, and measured on the test split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pruners.cost import LATENCY
from pruners.errors import JobFailed
from pruners.latency import Latency, measure_latency
from searchers.base import Proposal
from searchers.space import SearchSpace, Widths
from workers.constraint import CONFIDENCE, drop_bound
from workers.data import Splits
from workers.device import CPU, moved
from workers.evaluator import Evaluator
from workers.export import export_all, export_pt2
from workers.export.int8 import check_int8, export_int8, outputs_of
from workers.familiar import familiar
from workers.fine_tuning import FineTuning
from workers.log import Artefact, Finished, JobLog, Measurement
from workers.passes import Passes
from workers.pruned import Pruned
from workers.quality import Quality
from workers.spec import Exports, JobSpec


def finished(
    spec: JobSpec, evaluator: Evaluator, splits: Splits, pruned: Pruned, epochs: int, file: Path, progress: Callable[..., None]
) -> None:
    """Makes what a trial left ready, in place: trained for some epochs, in float32, on the CPU.

    Args:
        spec: the job's.
        evaluator: of the job.
        splits: likewise.
        pruned: the trial's network.
        epochs: of training.
        file: see ``FineTuning``.
        progress: likewise.
    """
    network = pruned.network
    if spec.resources.precision != "float32":
        exact = spec.resources.model_copy(update={"precision": "float32"})
        Passes(evaluator.dense, splits, spec.recovery.batchnorm_images, task=spec.task, resources=exact).recalibrate(network)
    if epochs:
        FineTuning(
            network,
            evaluator.trainer(pruned),
            evaluator.quality,
            splits.search,
            evaluator.passes.objective,
            spec.recovery.model_copy(update={"final_epochs": epochs}),
            file,
            progress,
        ).run()
    moved(network, CPU)


def written(
    spec: JobSpec,
    evaluator: Evaluator,
    splits: Splits,
    pruned: Pruned,
    widths: Sequence[int],
    exports: Exports,
    folder: Path,
    progress: Callable[[str], None],
) -> list[Artefact]:
    """A finished network in every form that is wanted and can be had.

    Args:
        spec: the job's.
        evaluator: of the job.
        splits: its data.
        pruned: the network, as ``finished`` left it.
        widths: the searcher's own.
        exports: what is wanted beside what is always there.
        folder: an existing one.
        progress: told of a form that could not be had; a job does not fail for it.
    """
    parts = (pruned.network, evaluator.dense, evaluator.coupling, pruned.keep, evaluator.channels(widths))
    artefacts = export_all(*parts, exports, folder, progress)
    onnx = next((artefact.path for artefact in artefacts if artefact.format == "onnx"), None)
    if not exports.int8 or onnx is None:
        return artefacts
    path, network = folder / "network.int8.onnx", evaluator.quality(pruned.network, splits.test)
    moved(pruned.network, CPU)
    try:
        export_int8(onnx, path, splits.train)
        found = evaluator.passes.judged(outputs_of(path, splits.test, spec.resources.cpus), splits.test)
        check_int8(evaluator.passes.objective.metric, found.metric, network.metric)
    except JobFailed as error:
        progress(str(error))
        return artefacts
    return [*artefacts, Artefact("int8", path, found.metric)]


@dataclass(frozen=True)
class Ready:
    """A network that is to be kept.

    Attributes:
        winner: the proposal that it came from.
        pruned: itself.
        quality: on the test split.
        epochs: of training that followed its trial.
        exports: the forms that it is to have.
    """

    winner: Proposal
    pruned: Pruned
    quality: Quality
    epochs: int
    exports: Exports

    @property
    def bound(self) -> float | None:
        """Of what its metric dropped by on the test split."""
        return None if self.quality.drops is None else drop_bound(self.quality.drops)


class Finish:
    """Finishes the networks of a job.

    Args:
        spec: the job's.
        evaluator: of the job.
        space: that it searched.
        splits: its data.
        network: by the id of a proposal, what its trial left.
        timed: latencies of networks of these widths, measured where trials run; ``None``: they are measured here.
        workdir: where files may be written.
        networks: a folder that all attempts share.
        log: is told of the end.
    """

    def __init__(
        self,
        spec: JobSpec,
        evaluator: Evaluator,
        space: SearchSpace,
        splits: Splits,
        network: Callable[[int], Pruned],
        timed: Callable[[Sequence[Widths]], Sequence[Latency]] | None,
        workdir: Path,
        networks: Path,
        log: JobLog,
    ) -> None:
        self._spec = spec
        self._evaluator = evaluator
        self._space = space
        self._splits = splits
        self._network = network
        self._timed = timed
        self._workdir = workdir
        self._networks = networks
        self._log = log

    def budgets(self, winners: Sequence[Proposal], others: Sequence[Proposal], latencies: Sequence[Latency] = ()) -> None:
        """Keeps the winner of each budget, that of the loosest first, and others as their trials left them.

        Args:
            winners: one at least.
            others: what else is kept.
            latencies: of the dense network, the winners and the others, measured in turns, if that was done already.

        Raises:
            JobFailed: the job has a constraint, and the winner may have lost more than it allows.
        """
        spec, epochs = self._spec, self._spec.recovery.final_epochs
        kept = [self._ready(winner, epochs, spec.exports) for winner in winners]
        if spec.constraint is not None and not self._keeps(kept[0]):
            raise JobFailed(f"The best network within the budget {self._why_not(kept[0])}; allow more of either.")
        bare = spec.exports.model_copy(update={"onnx": False, "int8": False})
        self._keep(kept + [self._ready(other, 0, bare) for other in others], latencies)

    def smallest(self, ladder: Sequence[Proposal]) -> None:
        """Keeps the smallest network that is certain to keep the metric, and those of the ladder that are larger."""
        self._keep(self.confirmed(ladder)[::-1])

    def confirmed(self, ladder: Sequence[Proposal]) -> list[Ready]:
        """Those that are certain to keep the metric, the costliest first.

        Args:
            ladder: what the search found to keep it, the costliest first; they are held to the test split in this order.

        Raises:
            JobFailed: not even the first is certain to.
        """
        if not ladder:
            raise JobFailed("No network that was tried kept the metric on the search inputs; allow more, or train longer.")
        kept: list[Ready] = []
        for winner in ladder:
            ready = self._ready(winner, 0, self._spec.exports)
            if self._keeps(ready):
                kept.append(ready)
            elif kept:
                self._log.progress(f"The next smaller network {self._why_not(ready)}.")
                break
            else:
                raise JobFailed(f"The least pruned network {self._why_not(ready)}; allow more, or train longer.")
        return kept

    def _ready(self, winner: Proposal, epochs: int, exports: Exports) -> Ready:
        pruned = self._network(winner.id)
        file = self._networks / f"{winner.id}.tuned"
        finished(self._spec, self._evaluator, self._splits, pruned, epochs, file, self._log.progress)
        quality = self._evaluator.quality(pruned.network, self._splits.test)
        moved(pruned.network, CPU)  # that it was passed through elsewhere says nothing of where it ends
        return Ready(winner, pruned, quality, epochs, exports)

    def _keeps(self, ready: Ready) -> bool:
        constraint = self._spec.constraint
        return constraint is None or (ready.bound is not None and ready.bound <= constraint.max_metric_drop)

    def _why_not(self, ready: Ready) -> str:
        share = self._space.cost(ready.winner.widths) / self._space.cost(self._space.dense)
        lost = 0.0 if ready.quality.drops is None else float(ready.quality.drops.mean())
        return (
            f"({share:.1%} of the dense cost) lost {lost:.4f} {self._spec.task.metric} on {len(self._splits.test)} test "
            f"inputs, which may be up to {ready.bound:.4f} with {CONFIDENCE:.0%} confidence"
        )

    def _keep(self, kept: Sequence[Ready], known: Sequence[Latency] = ()) -> None:
        """Writes, measures and hands over networks, the best one first."""
        evaluator, dense_file = self._evaluator, self._workdir / "dense.pt2"
        export_pt2(evaluator.dense, dense_file)
        artefacts = [self._files(each) for each in kept]
        plans = [self._space.dense, *(each.winner.widths for each in kept)]
        latencies = known or self._latencies(plans, kept)
        metrics = [evaluator.quality(evaluator.dense, self._splits.test).metric, *(each.quality.metric for each in kept)]
        if self._spec.task.metric in ("top1", "top5"):
            searched = evaluator.quality(evaluator.dense, self._splits.search).metric
            if (told := familiar(searched, len(self._splits.search), metrics[0], len(self._splits.test))) is not None:
                self._log.progress(told)
        files = [dense_file, *(_file(each, "pt2") for each in artefacts)]
        bounds = [None, *(each.bound if self._spec.constraint is not None else None for each in kept)]
        baseline, *measured = [
            self._measured(*figures, latencies[0]) for figures in zip(plans, metrics, files, bounds, latencies, strict=True)
        ]
        networks = [
            Finished(each.winner.id, figures, forms, each.epochs)
            for each, figures, forms in zip(kept, measured, artefacts, strict=True)
        ]
        self._log.succeeded(baseline, networks)

    def _latencies(self, plans: Sequence[Widths], kept: Sequence[Ready]) -> Sequence[Latency]:
        """Of the dense network and those that are kept."""
        if self._timed is not None:
            return self._timed(plans)
        networks = [self._evaluator.dense, *(each.pruned.network for each in kept)]
        example = self._evaluator.dense.meta["inputs"][0].example(1)
        return measure_latency([(network, example) for network in networks])

    def _files(self, ready: Ready) -> list[Artefact]:
        folder = self._workdir / f"network-{ready.winner.id}"
        folder.mkdir()
        job = (self._spec, self._evaluator, self._splits)
        return written(*job, ready.pruned, ready.winner.widths, ready.exports, folder, self._log.progress)

    def _measured(
        self, widths: Widths, metric: float, file: Path, max_drop: float | None, latency: Latency, dense: Latency
    ) -> Measurement:
        plan = self._evaluator.plan(widths)
        share = self._space.cost(widths) / self._space.cost(self._space.dense)
        if self._space.budget.metric == LATENCY:  # those that were measured, not those foretold
            share = latency.median_ms / dense.median_ms
        return Measurement(
            metric=metric,
            macs=plan.macs,
            params=plan.params,
            size_bytes=file.stat().st_size,
            latency_ms=latency.median_ms,
            latency_spread_ms=latency.spread_ms,
            budget_ratio=share,
            max_drop=max_drop,
        )


def _file(artefacts: Sequence[Artefact], wanted: str) -> Path:
    return next(artefact.path for artefact in artefacts if artefact.format == wanted)
