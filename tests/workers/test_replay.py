"""Networks made again from their cards: the same bytes, whatever cut and trained them; and the int8 form of one."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from pruners.errors import InvalidInput, JobFailed
from searchers.base import Proposal, Training
from searchers.uniform import uniform_plan
from tests.workers.logs import ListLog
from workers.card import Card, CardFile, Source, Step, StepTraining, environment
from workers.data import load
from workers.evaluator import Evaluator
from workers.export.int8 import check_int8
from workers.finish import Finish
from workers.log import Finished
from workers.replay import replay
from workers.spec import JobSpec
from workers.tasks import METRICS

SPEC = JobSpec.model_validate(
    {
        "budget": {"ratio": 0.5},
        "recovery": {"final_epochs": 2, "recipe": {"average": 0.9}},
        "exports": {"int8": True},
        "seed": 3,
    }
)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def card(network: Finished, steps: list[Proposal], log: ListLog, files: tuple[Path, Path]) -> Card:
    """As a service writes it."""
    hashes = {artefact.format: artefact for artefact in network.artefacts}
    return Card(
        job={"id": "job-1", "name": "a job"},
        model=Source(name="model", sha256=sha256(files[0])),
        dataset=Source(name="data", sha256=sha256(files[1])),
        spec=SPEC,
        steps=[
            Step(trial=p.id, widths=list(p.widths), note=p.note, training=p.training and _trained(p.training)) for p in steps
        ],
        tuned=network.tuned,
        layers={},
        baseline={},
        figures=asdict(network.measured),
        search={},
        environment=environment(),
        files={
            form: CardFile(sha256=sha256(artefact.path), size=artefact.path.stat().st_size, metric=artefact.metric)
            for form, artefact in hashes.items()
        },
    )


def _trained(training: Training) -> StepTraining:
    return StepTraining(schedule=training.schedule, params=dict(training.params), retrain=training.retrain)


def test_a_replay_makes_the_same_bytes(files: tuple[Path, Path], tmp_path: Path) -> None:
    """The winner, fine-tuned and in every format; and another one, cut from what a trial had trained."""
    log, splits = ListLog(), load(files[1], SPEC.seed)
    evaluator = Evaluator(files[0], splits, SPEC)
    space = evaluator.space()
    first = Proposal(0, uniform_plan(space), training=Training(None, retrain=1))
    second = Proposal(1, space.least, parent=0)
    pruned = evaluator.prune(first.widths, training=first.training)
    networks = {0: pruned, 1: evaluator.prune(second.widths, evaluator.restored(pruned.state()))}
    finish = Finish(SPEC, evaluator, space, splits, networks.__getitem__, None, tmp_path, tmp_path, log)
    finish.budgets([first], [second])
    winner, other = log.networks
    assert (winner.tuned, other.tuned) == (2, 0)
    assert {artefact.format for artefact in winner.artefacts} == {"pt2", "safetensors", "recipe", "onnx", "int8"}
    for number, (network, steps) in enumerate([(winner, [first]), (other, [first, second])]):
        folder = tmp_path / f"again-{number}"
        folder.mkdir()
        asked = Card.model_validate_json(card(network, steps, log, files).model_dump_json())
        replayed = replay(asked, *files, folder, log.progress)
        assert {form: file.same for form, file in replayed.items()} == dict.fromkeys(asked.files, True)
        assert all(sha256(file.path) == file.sha256 for file in replayed.values())

    int8 = next(artefact for artefact in winner.artefacts if artefact.format == "int8")
    onnx = next(artefact for artefact in winner.artefacts if artefact.format == "onnx")
    session = onnxruntime.InferenceSession(int8.path)
    images = splits.test.x.astype(np.float32)
    (answers,) = session.run(None, {session.get_inputs()[0].name: images})
    assert float((answers.argmax(1) == splits.test.y).mean()) == pytest.approx(int8.metric)
    assert int8.metric is not None
    assert abs(int8.metric - winner.measured.metric) <= 0.02
    assert int8.path.stat().st_size < onnx.path.stat().st_size

    wrong = tmp_path / "wrong.pt2"
    wrong.write_bytes(b"another network")
    with pytest.raises(InvalidInput, match=r"^model .*wrong\.pt2' is not the file of the card, model, of which the sha256 is "):
        replay(asked, wrong, files[1], tmp_path, log.progress)


def test_what_has_changed_is_named() -> None:
    here = environment()
    there = Card.model_construct(environment={**here, "torch": "1.0"})
    assert there.differences() == [f"torch 1.0 there, {here['torch']} here"]


@pytest.mark.parametrize(("metric", "network", "near", "far"), [("top1", 0.9, 0.885, 0.87), ("mse", 2.0, 2.1, 2.3)])
def test_integers_that_lose_too_much_are_not_offered(metric: str, network: float, near: float, far: float) -> None:
    check_int8(METRICS[metric], near, network)
    for found in (far, float("nan")):
        with pytest.raises(JobFailed, match=r"^There is no int8 file: its .* on the test inputs is "):
            check_int8(METRICS[metric], found, network)
