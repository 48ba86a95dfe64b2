"""What a task asks of model and data, and that networks of every task are scored, ranked, trained and reported as it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from pruners.errors import InvalidInput
from service.client.export import export_model
from tests.networks import randomise
from tests.workers.files import npz
from workers.data import Split, Splits, load
from workers.evaluator import Evaluator
from workers.inspection import inspect_model
from workers.spec import JobSpec
from workers.tasks import check_task
from workers.training import short_tune


class Values(nn.Module):
    """Images to one number each, or to images of half the size."""

    def __init__(self, maps: bool) -> None:
        super().__init__()
        self.conv1, self.norm = nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.conv2, self.head = nn.Conv2d(12, 12, 3, stride=2, padding=1), nn.Conv2d(12, 2, 1)
        self.maps = maps

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(torch.relu(self.conv2(torch.relu(self.norm(self.conv1(x))))))
        return x if self.maps else x.mean((2, 3))[:, :1]


def spec(kind: str, metric: str | None = None, **other: Any) -> JobSpec:
    return JobSpec.model_validate({"budget": {"ratio": 0.5}, "task": {"type": kind, "metric": metric}, **other})


def data_facts(**changes: Any) -> dict[str, Any]:
    return {"targets": {"shape": [], "dtype": "int64"}, "labels": [0, 9], **changes}


FITS: dict[str, tuple[JobSpec, list[int | None], dict[str, Any], str]] = {
    "classes": (spec("classification"), [None, 10], data_facts(), "top1"),
    "one number": (spec("regression", "mae"), [None, 1], data_facts(), "mae"),
    "numbers alone": (spec("regression"), [None], data_facts(targets={"shape": [1], "dtype": "float32"}), "mse"),
    "maps": (spec("regression"), [None, 2, 4], data_facts(targets={"shape": [2, 4], "dtype": "float32"}), "mse"),
    "no labels": (spec("label_free"), [None, 10], data_facts(targets=None, labels=None), "agreement"),
    "no classes": (spec("label_free"), [None, 2, 4], data_facts(targets=None, labels=None), "relative_error"),
    "vectors": (spec("label_free", "relative_error"), [None, 10], data_facts(), "relative_error"),
}


@pytest.mark.parametrize(("job", "output", "data", "metric"), FITS.values(), ids=FITS)
def test_a_task_that_fits_gets_its_metric(job: JobSpec, output: list[int | None], data: dict[str, Any], metric: str) -> None:
    assert check_task(job, [{"shape": output}], data).metric == metric


MISFITS: dict[str, tuple[JobSpec, list[int | None], dict[str, Any], str]] = {
    "labels beyond": (spec("classification"), [None, 9], data_facts(), "dataset has the label 9, but the model's 9 outputs"),
    "labels below": (spec("classification"), [None, 10], data_facts(labels=[-1, 9]), "dataset has the label -1"),
    "no classes": (
        spec("classification"),
        [None, 2, 4],
        data_facts(),
        "the model returns .batch, 2, 4.; use task.type regression",
    ),
    "one class": (spec("classification"), [None, 1], data_facts(), "use task.type regression"),
    "floats for classes": (
        spec("classification"),
        [None, 10],
        data_facts(targets={"shape": [10], "dtype": "float32"}, labels=None),
        r"has float32 targets of shape \[10\], not one class number",
    ),
    "no labels": (spec("regression"), [None, 1], data_facts(targets=None), "has no labels.*use task.type label_free"),
    "top 5 of 5": (spec("classification", "top5"), [None, 5], data_facts(labels=[0, 4]), "top5' is always 1"),
    "another shape": (
        spec("regression"),
        [None, 3],
        data_facts(),
        r"has targets of shape \[\], but the model returns \[batch, 3\]",
    ),
    "agreement on maps": (spec("label_free", "agreement"), [None, 2, 4], data_facts(), "use task.metric relative_error"),
    "nothing to train towards": (
        spec("label_free", recovery={"distill": False}),
        [None, 10],
        data_facts(),
        "recovery.distill False leaves nothing",
    ),
    "no slope": (
        spec("label_free", "relative_error", pruner={"name": "taylorfo"}),
        [None, 10],
        data_facts(),
        "pruner.name 'taylorfo' asks for the slope",
    ),
    "no accuracy to guarantee": (
        spec("regression", searcher={"name": "amc", "params": {"reward": "guaranteed"}}),
        [None, 1],
        data_facts(),
        "searcher.params.reward 'guaranteed' needs an accuracy",
    ),
}


@pytest.mark.parametrize(("job", "output", "data", "sentence"), MISFITS.values(), ids=MISFITS)
def test_a_task_that_does_not_fit_is_refused(
    job: JobSpec, output: list[int | None], data: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        check_task(job, [{"shape": output}], data)


def test_a_metric_belongs_to_its_task_and_classification_is_what_was_meant_before() -> None:
    with pytest.raises(ValidationError, match="regression reports mse, mae, not top1"):
        spec("regression", "top1")
    old = JobSpec.model_validate({"budget": {"ratio": 0.5}, "task": {"type": "classification"}})
    assert old.task == JobSpec.model_validate({"budget": {"ratio": 0.5}}).task
    assert old.task.metric == "top1"


@pytest.fixture(params=[False, True], ids=["numbers", "maps"])
def regression(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Splits]:
    """A network of values, and labels that are its own answers and some noise."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = randomise(Values(request.param)).eval()
    path = export_model(network, torch.zeros(2, 1, 8, 8), tmp_path / "model.pt2")
    draw = np.random.default_rng(0)
    splits = []
    for count in (192, 96, 96):
        x = draw.normal(size=(count, 1, 8, 8)).astype(np.float32)
        with torch.inference_mode():
            answers = network(torch.tensor(x)).numpy()
        labels = answers + 0.05 * answers.std() * draw.normal(size=answers.shape).astype(np.float32)
        splits.append(Split(x, labels if request.param else labels[:, 0]))
    return path, Splits(*splits)


def test_values_are_pruned_trained_and_reported(regression: tuple[Path, Splits]) -> None:
    path, data = regression
    output = inspect_model(path)["outputs"][0]["shape"]
    assert data.test.y is not None
    assert output in ([None, 1], [None, 2, 4, 4])
    evaluator = Evaluator(path, data, spec("regression", pruner={"name": "taylorfo"}))
    dense = evaluator.quality(evaluator.dense, data.test)
    outputs = torch.cat([evaluator.dense(images) for images, _ in data.test.batches()]).detach().numpy()
    assert dense.metric == pytest.approx(float(np.square(outputs - data.test.y.reshape(outputs.shape)).mean()), rel=1e-4)
    widths = [group.width // 2 for group in evaluator.coupling.prunable]
    outcome, pruned = evaluator.evaluate_keeping(widths)
    assert outcome.error is None
    assert pruned is not None
    assert outcome.score is not None
    assert outcome.score < -0.01
    before = evaluator.quality(pruned.network, data.test)
    short_tune(evaluator.trainer(pruned), 30)
    after = evaluator.quality(pruned.network, data.test)
    assert after.metric < before.metric
    assert after.divergence < before.divergence


def test_without_labels_the_same_network_comes_out_whatever_the_labels(regression: tuple[Path, Splits]) -> None:
    path, data = regression
    bare = Splits(*(Split(split.x, None) for split in (data.train, data.search, data.test)))
    found = []
    for splits in (data, bare):
        evaluator = Evaluator(path, splits, spec("label_free", recovery={"short_steps": 5}, pruner={"name": "hessian"}))
        assert evaluator.passes.objective.name == "relative_error"
        found.append(evaluator.evaluate([group.width // 2 for group in evaluator.coupling.prunable]))
    assert found[0] == found[1]
    assert found[0].error is None
    assert found[0].metric is not None
    assert 0 < found[0].metric < 1


@pytest.mark.parametrize("metric", ["agreement", "kl"])
def test_classes_without_labels_are_ranked_by_slopes_and_trained(tmp_path: Path, metric: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = randomise(nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 5)))
    path = export_model(network, torch.zeros(2, 1, 8, 8), tmp_path / "model.pt2")
    draw = np.random.default_rng(0)
    x = draw.normal(size=(200, 1, 8, 8)).astype(np.float32)
    data = load(npz(tmp_path / "data.npz", x_train=x, x_test=x[:50], y_train=None, y_test=None), 0)
    job = spec("label_free", metric, pruner={"name": "taylorfo"}, recovery={"short_steps": 3})
    evaluator = Evaluator(path, data, job)
    assert all(float(each.sum()) > 0 for each in evaluator.found.scores)
    dense = evaluator.quality(evaluator.dense, data.test)
    assert dense.metric == pytest.approx(1 if metric == "agreement" else 0, abs=1e-6)
    outcome = evaluator.evaluate([6, 6])
    assert outcome.error is None
    assert outcome.metric is not None
    assert (outcome.metric < 1) if metric == "agreement" else (outcome.metric > 0)


CODE = """
def metric(outputs, labels):
    return (outputs.argmax(1) != labels).double().mean()

def loss(outputs, labels):
    return torch.nn.functional.multi_margin_loss(outputs, labels)
"""


@pytest.mark.parametrize("with_loss", [False, True])
def test_a_custom_task_is_reported_and_trained_by_its_code(tmp_path: Path, with_loss: bool) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = randomise(nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 5)))
    path = export_model(network, torch.zeros(2, 1, 8, 8), tmp_path / "model.pt2")
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(200, 1, 8, 8)).astype(np.float32), draw.integers(0, 5, 200)
    data = load(npz(tmp_path / "data.npz", x_train=x, x_test=x[:50], y_train=y, y_test=y[:50]), 0)
    task = {"type": "custom", "metric": "custom_error", "code": CODE if with_loss else CODE.partition("def loss")[0]}
    job = {"budget": {"ratio": 0.5}, "pruner": {"name": "taylorfo"}}
    custom, usual = (Evaluator(path, data, JobSpec.model_validate({**job, "task": each})) for each in (task, {}))
    one, other = (each.quality(each.dense, data.test) for each in (custom, usual))
    assert one.metric == pytest.approx(1 - other.metric)
    outcomes = [each.evaluate([6, 6]) for each in (custom, usual)]
    assert not [outcome.error for outcome in outcomes if outcome.error]
    if not with_loss:  # the criterion follows the dense network's answers, and training its outputs
        assert custom.passes.objective.learns_labels is False
    trainer = custom.trainer(custom.prune([6, 6]))
    labels = torch.tensor(data.train.y[:20])
    outputs = custom.dense(torch.tensor(data.train.x[:20])).detach()
    expected = nn.functional.multi_margin_loss if with_loss else nn.functional.cross_entropy
    assert torch.equal(custom.passes.objective.loss(outputs, labels), expected(outputs, labels))
    trainer.train(2)


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("def metric(outputs, labels):\n    return outputs.nonsense", "task.code failed with AttributeError: "),
        ("def metric(outputs, labels):\n    return 'many'", "task.code failed with ValueError: could not convert"),
        ("def metric(outputs, labels):\n    return float('nan')", "The custom score is not finite."),
        ("raise RuntimeError('no')\ndef metric(outputs, labels):\n    return 1", "task.code failed with RuntimeError: no."),
        ("def metric(outputs, labels):\n    while True: pass", "task.code took more than 0.2 s for one call."),
    ],
)
def test_code_that_fails_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, sentence: str) -> None:
    if "while" in code:
        monkeypatch.setattr("workers.objective.CALL_SECONDS", 0.2)
    path = export_model(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 2)), torch.zeros(2, 1, 8, 8), tmp_path / "m"
    )
    x = np.random.default_rng(0).normal(size=(20, 1, 8, 8)).astype(np.float32)
    split = Split(x, None)
    job = {"budget": {"ratio": 0.5}, "task": {"type": "custom", "code": code}}
    error = Evaluator(path, Splits(split, split, split), JobSpec.model_validate(job)).evaluate([2]).error
    assert error is not None
    assert sentence in error
