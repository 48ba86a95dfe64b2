"""A network's model card: how it was made, in full. ``workers.replay`` makes the same bytes of it again."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from searchers.base import Training
from workers.spec import JobSpec

_PACKAGES = ("secateur", "torch", "numpy", "onnx", "onnxruntime")
_PROCESSORS = Path("/proc/cpuinfo")


class Source(BaseModel):
    """A file that was uploaded."""

    name: str
    sha256: str


class StepTraining(BaseModel):
    """How a step trained; see ``searchers.base.Training``."""

    schedule: str | None
    params: dict[str, int | float | str]
    retrain: int

    @property
    def training(self) -> Training:
        """The same for an evaluator."""
        return Training(self.schedule, tuple(self.params.items()), self.retrain)


class Step(BaseModel):
    """A cut: the trial that made it, the channels that it left to each group, how it trained, and why it was tried."""

    trial: int
    widths: list[int]
    training: StepTraining | None
    note: str


class CardFile(BaseModel):
    """One form of the network; ``metric`` where it computes a little otherwise than the network."""

    sha256: str
    size: int
    metric: float | None = None


class Card(BaseModel):
    """A network of a job.

    Attributes:
        version: of this form.
        job: id and name.
        model, dataset: what was uploaded.
        spec: all that was asked, seeds included, defaults filled in.
        steps: the cuts that led from the dense network here.
        tuned: epochs of training behind the last of them.
        layers: channels that every layer keeps.
        baseline, figures: the dense network and this one, measured; the metric on the test split.
        search: ``trials`` by state and the ``seconds`` that they took.
        environment: versions and kind of machine, which floating-point results depend on.
        files: by format.
    """

    version: Literal[1] = 1
    job: dict[str, str]
    model: Source
    dataset: Source
    spec: JobSpec
    steps: list[Step]
    tuned: int
    layers: dict[str, int]
    baseline: dict[str, Any]
    figures: dict[str, Any]
    search: dict[str, Any]
    environment: dict[str, str]
    files: dict[str, CardFile]

    def differences(self) -> list[str]:
        """In what its environment was another one than this process has, in words."""
        here = environment()
        there = self.environment.items()
        return [f"{name} {value} there, {here.get(name)} here" for name, value in there if here.get(name) != value]


def environment() -> dict[str, str]:
    """Versions, and the kind of machine."""
    versions = {package: version(package) for package in _PACKAGES}
    return {**versions, "python": platform.python_version(), "machine": platform.machine(), "processor": _processor()}


def _processor() -> str:
    """Its model, as Linux names it."""
    lines = _PROCESSORS.read_text().splitlines() if _PROCESSORS.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
