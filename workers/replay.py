"""A network made again from its card: the same cuts and the same training of the same files give the same bytes."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pruners.errors import InvalidInput, JobFailed
from workers.card import Card
from workers.data import load
from workers.device import prepare
from workers.finish import finished, written
from workers.pruned import Pruned
from workers.weight_evaluator import make_evaluator


@dataclass(frozen=True)
class Replayed:
    """A file that was made again.

    Attributes:
        path: where it is.
        sha256: its own.
        same: whether it is the card's.
    """

    path: Path
    sha256: str
    same: bool


def replay(card: Card, model: Path, data: Path, folder: Path, progress: Callable[..., None]) -> dict[str, Replayed]:
    """Makes a card's network again.

    Args:
        card: of a network of a job that succeeded.
        model: the ``.pt2`` file that was uploaded.
        data: the data set that was.
        folder: where the files go.
        progress: told of every epoch.

    Returns:
        By format, all files of the card.

    Raises:
        InvalidInput: other files than the card's.
        JobFailed: a form of the network cannot be had here.
    """
    for field, file, source in (("model", model, card.model), ("data", data, card.dataset)):
        if (found := _sha256(file)) != source.sha256:
            problem = f"is not the file of the card, {source.name}, of which the sha256 is {source.sha256} and not {found}"
            raise InvalidInput(field, str(file), problem)
    spec = card.spec
    prepare(spec.resources)
    splits = load(data, spec.seed)
    evaluator = make_evaluator(model, splits, spec)
    pruned: Pruned | None = None
    for step in card.steps:
        training = None if step.training is None else step.training.training
        pruned = evaluator.prune(step.widths, pruned, training, progress)
    if pruned is None:
        raise InvalidInput("card", None, "has no steps that lead to its network; pull it again")
    with tempfile.TemporaryDirectory(prefix="secateur-") as saved:
        finished(spec, evaluator, splits, pruned, card.tuned, Path(saved) / "tuned", progress)
    exports = spec.exports.model_copy(update={form: form in card.files for form in ("onnx", "int8")})
    made = written(spec, evaluator, splits, pruned, card.steps[-1].widths, exports, folder, progress)
    paths = {artefact.format: artefact.path for artefact in made}
    if missing := sorted(card.files.keys() - paths.keys()):
        raise JobFailed(f"The card lists {', '.join(missing)}, which could not be made here.")
    hashes = {form: _sha256(paths[form]) for form in card.files}
    return {form: Replayed(paths[form], found, found == card.files[form].sha256) for form, found in hashes.items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
