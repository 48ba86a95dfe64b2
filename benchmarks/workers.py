"""Whether workers ever wait: the share of their time that trials take, and what a trial costs around its evaluation.

    python -m benchmarks.workers --output workers.json
    python -m benchmarks.workers --workers 64 --nodes 4 --seconds 5 --trials 768 --repeats 1
    python -m benchmarks.workers --data cifar10.npz --weights resnet56.safetensors

Trials sleep instead of evaluating, so that workers need no cores of their own and any number fits on a small machine. All else
is that of a job: Ray Tune, the adapter, the recorded search, and rows in an SQLite database. ``free`` has a proposal ready at
any time, ``rounds`` waits for every eight, ``nothing`` evaluates nothing in a single worker, so that what is left is the cost
of a trial. ``two jobs`` run two searches at once, each of half as many trials and on half of the workers, as jobs do where
``max_running_jobs`` is 2; overlap is the share of the time in which both went on. ``actors`` is the reference: bare Ray actors
that sleep as often, with nothing else around them. Busy is the time that trials take by their own clocks, as a share of all
workers' time from the moment the last worker began to the last end. With ``--nodes`` the cluster is a simulated one of several.

With ``--data`` and ``--weights`` (those of ``benchmarks.cifar``) real trials run instead: in one worker and in two, in turns,
and the memory that a worker has for itself beside one that sleeps.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray import tune
from ray.cluster_utils import Cluster
from rich.table import Table

from benchmarks.cifar import export_cifar_resnet
from benchmarks.report import report
from benchmarks.sleepers import Sleeper, SleepingTrial, clocked
from pruners.cost import CostModel, Linear, Polynomial, Term
from searchers.base import Params, Searcher
from searchers.random import Random, RandomParams
from searchers.rounds import Candidate, RoundSearcher
from searchers.space import Budget, Group, SearchSpace
from searchers.tune import AskTell
from service.database import Database
from service.database.migrate import upgrade
from service.database.tables import Dataset, Job, Model, new_id
from service.jobs.log import DatabaseLog
from service.jobs.repository import JobRepository
from service.store import FolderStore
from workers.data import load
from workers.job import run_trials
from workers.log import Plan
from workers.search import RecordedSearch
from workers.share import Share
from workers.spec import JobSpec
from workers.trainable import PruningTrial
from workers.weight_evaluator import make_evaluator

_ROUND = 8
_COLUMNS = {
    "busy": ".1%",
    "window_seconds": ".1f",
    "ms_around_a_trial": ".1f",
    "controller_cpu_ms_a_trial": ".1f",
    "private_mib": ".0f",
    "overlap": ".0%",
}
_MIB = 2**20


class ClockedTrial(PruningTrial):
    """A real trial that says when it ran and how much memory its process has for itself."""

    def step(self) -> dict[str, Any]:
        began = time.time()
        return {**super().step(), **clocked(began)}


class Rounds(RoundSearcher):
    """Plans that differ, eight at a time."""

    @property
    def planned_trials(self) -> int:
        return self.max_trials

    def next_round(self) -> Sequence[Candidate]:
        first = len(self.numbers)
        widths = [(1 + number // 900 % 30, 1 + number // 30 % 30, 1 + number % 30) for number in range(first, first + _ROUND)]
        return [Candidate(each, "") for each in widths]


def slept(workers: int, seconds: float, trials: int, rounds: bool, heavy: bool = False, jobs: int = 1) -> dict[str, float]:
    """One search whose trials sleep, in processes that import torch if they are ``heavy``."""
    model = CostModel([1, 1, 1], {"macs": Polynomial([Term(1, Linear(0, {0: 1, 1: 1, 2: 1}))], 3)})
    space = SearchSpace([Group(f"g{i}", 30) for i in range(3)], model, Budget.of("macs", 90, ratio=0.5))
    searcher = Rounds(space, Params(), 0, trials) if rounds else Random(space, RandomParams(), 0, trials)
    spec = JobSpec.model_validate({"budget": {"ratio": 0.5}, "limits": {"max_trials": trials, "max_concurrent": workers}})
    with tempfile.TemporaryDirectory() as folder:
        parameters = {"seconds": seconds, "workers": workers // jobs, "folder": Path(folder), "heavy": heavy}
        return _figures(spec, searcher, SleepingTrial, parameters, jobs)


def two_jobs(workers: int, seconds: float, trials: int) -> dict[str, float]:
    """Two searches on one cluster, each of which would take all of it; busy is what both make of it."""
    address = ray.get_runtime_context().gcs_address
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        one, other = pool.starmap(_job, [(address, workers, seconds, trials // 2)] * 2)
    # As if one had waited for the other, were they not to overlap.
    window = max(one["ended"], other["ended"]) - min(one["began"], other["began"])
    together = min(one["ended"], other["ended"]) - max(one["began"], other["began"])
    return {**{key: (one[key] + other[key]) / 2 for key in one}, "overlap": together / window}


def _job(address: str, workers: int, seconds: float, trials: int) -> dict[str, float]:
    ray.init(address=address, log_to_driver=False)
    return slept(workers, seconds, trials, rounds=False, jobs=2)


def evaluated(model: Path, data: Path, workers: int, trials: int) -> dict[str, float]:
    """One search whose trials are real."""
    spec = JobSpec.model_validate(
        {"budget": {"ratio": 0.5}, "limits": {"max_trials": trials, "max_concurrent": workers}, "searcher": {"name": "random"}}
    )
    splits = load(data, 0)
    evaluator = make_evaluator(model, splits, spec)
    space = evaluator.space()
    searcher = Random(space, RandomParams(), 0, trials)
    parameters = {"model": np.fromfile(model, np.uint8), "data": splits, "spec": spec, "found": evaluator.found}
    return _figures(spec, searcher, ClockedTrial, parameters)


def _figures(
    spec: JobSpec, searcher: Searcher, trial: type[tune.Trainable], parameters: Mapping[str, Any], jobs: int = 1
) -> dict[str, float]:
    clocks: list[Mapping[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{folder}/benchmark.db")
        log = _log(database, FolderStore(Path(folder) / "store"))
        log.running(searcher.max_trials)
        search = RecordedSearch(searcher, log, lambda _: Plan({}, {}, 1, 1, 1), spec.limits)

        def tell(proposal_id: int, result: Mapping[str, Any] | None) -> None:
            assert result is not None
            clocks.append(result)
            search.tell(proposal_id, result)

        used = time.process_time()
        asks = AskTell(search.ask, tell, lambda _: None, lambda _: None, Share(spec, lambda: jobs))
        run_trials(spec, trial, parameters, asks, Path(folder), log)
        used = time.process_time() - used
        database.close()
    return _summary(clocks, spec.limits.max_concurrent // jobs, used)


def _summary(clocks: Sequence[Mapping[str, Any]], workers: int, cpu_seconds: float) -> dict[str, float]:
    processes = {each["process"] for each in clocks}
    assert len(processes) == workers, "as many processes as workers, and no more"
    began = max(min(each["began"] for each in clocks if each["process"] == process) for process in processes)
    window = max(each["ended"] for each in clocks) - began
    busy = sum(each["ended"] - max(began, each["began"]) for each in clocks if each["ended"] > began)
    return {
        "busy": busy / window / workers,
        "window_seconds": window,
        "ms_around_a_trial": 1000 * (window * workers - busy) / len(clocks),
        "controller_cpu_ms_a_trial": 1000 * cpu_seconds / len(clocks),
        "private_mib": statistics.median(each["private_bytes"] for each in clocks) / _MIB,
        "began": began,
        "ended": began + window,
    }


def bare_actors(workers: int, seconds: float, trials: int) -> dict[str, float]:
    """The same sleeps in Ray actors that are handed the next one as soon as they are free."""
    actors = [ray.remote(Sleeper).remote() for _ in range(workers)]
    ray.get([actor.step.remote(0) for actor in actors])
    used, clocks = time.process_time(), []
    running = {actor.step.remote(seconds): actor for actor in actors}
    for number in range(trials):
        (done,), _ = ray.wait(list(running))
        actor = running.pop(done)
        if number < trials - workers:
            running[actor.step.remote(seconds)] = actor
        clocks.append(ray.get(done))
    used = time.process_time() - used
    for actor in actors:
        ray.kill(actor)
    return _summary(clocks, workers, used)


def _log(database: Database, store: FolderStore) -> DatabaseLog:
    upgrade(database)
    model = Model(id=new_id("model"), sha256="a" * 64, size=1, name="", inspection={})
    dataset = Dataset(id=new_id("dataset"), sha256="b" * 64, size=1, name="", inspection={})
    job = Job(
        id=new_id("job"), name="", model_id=model.id, dataset_id=dataset.id, spec={}, budget_limit=1, planned_trials=1,
        state="queued",
    )  # fmt: skip
    with database.write() as session:
        session.add_all([model, dataset])
        session.flush()
        session.add(job)
    started = JobRepository(database).start(job.id, "here", most=9)
    assert started is not None
    return DatabaseLog(database, store, job.id, started.attempt)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--nodes", type=int, default=1, help="of a simulated cluster, among which the workers are spread")
    parser.add_argument("--seconds", type=float, default=0.5, help="that a trial takes")
    parser.add_argument("--trials", type=int, default=96, help="of each search")
    parser.add_argument("--repeats", type=int, default=3, help="of which medians are taken")
    parser.add_argument("--data", type=Path, help="an .npz of CIFAR-10 images")
    parser.add_argument("--weights", type=Path, help="a .safetensors of a CIFAR ResNet")
    parser.add_argument("--output", type=Path, help="where to write the figures as JSON; without it they are printed")
    arguments = parser.parse_args()
    if bool(arguments.data) != bool(arguments.weights):
        parser.error("give --data and --weights for real trials, or neither")
    torch.set_num_threads(1)
    workers, nodes, seconds, trials = arguments.workers, arguments.nodes, arguments.seconds, arguments.trials
    runs: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder, _cluster(max(2, workers), nodes):
        model = Path(folder) / "model.pt2"
        if arguments.weights:
            export_cifar_resnet(arguments.weights, model)
        for _ in range(arguments.repeats):
            if arguments.weights:
                taken = {
                    "asleep": slept(1, 0, 2, rounds=False, heavy=True),
                    "one worker": evaluated(model, arguments.data, 1, trials),
                    "two workers": evaluated(model, arguments.data, 2, trials),
                }
            elif nodes > 1:
                taken = {
                    "free": slept(workers, seconds, trials, rounds=False),
                    "two jobs": two_jobs(workers, seconds, trials),
                }
            else:
                taken = {
                    "actors": bare_actors(workers, seconds, trials),
                    "free": slept(workers, seconds, trials, rounds=False),
                    "rounds": slept(workers, seconds, trials, rounds=True),
                    "nothing": slept(1, 0, trials, rounds=False),
                    "two jobs": two_jobs(workers, seconds, trials),
                }
            for name, figures in taken.items():
                runs.setdefault(name, []).append(figures)
    result = {name: {key: statistics.median(each[key] for each in found) for key in found[0]} for name, found in runs.items()}
    shown = Table(title=f"{trials} trials, {workers} workers, medians of {arguments.repeats}")
    shown.add_column("")
    for column in _COLUMNS:
        shown.add_column(column.replace("_", " "), justify="right")
    for name, figures in result.items():
        cells = [f"{figures[key]:{form}}" if key in figures else "" for key, form in _COLUMNS.items()]
        shown.add_row(name, *cells)
    report(shown, result, arguments.output)


@contextmanager
def _cluster(workers: int, nodes: int) -> Iterator[None]:
    """A Ray of so many cores, of which this machine need not have any; all nodes are on it."""
    simulated = None
    if nodes > 1:
        simulated = Cluster(initialize_head=True, head_node_args={"num_cpus": workers // nodes, "include_dashboard": False})
        for _ in range(nodes - 1):
            simulated.add_node(num_cpus=workers // nodes)
        ray.init(address=simulated.address, log_to_driver=False)
    else:
        ray.init(address="local", num_cpus=workers, include_dashboard=False, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()
        if simulated is not None:
            simulated.shutdown()


if __name__ == "__main__":
    main()
