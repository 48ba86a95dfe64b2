"""A job as an object: wait for it, then take the network."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruners.errors import InvalidInput, JobFailed

if TYPE_CHECKING:
    from torch import nn
    from torch.fx import GraphModule

    from service.client.client import Client


class Job:
    """A job on a server.

    Args:
        client: talks to that server.
        id: the job's.
    """

    def __init__(self, client: Client, id: str) -> None:
        self.client = client
        self.id = id

    def __repr__(self) -> str:
        return f"Job({self.id!r})"

    def status(self) -> dict[str, Any]:
        """The job's JSON now: state, progress, baseline, best."""
        return self.client.job(self.id)

    def wait(self) -> dict[str, Any]:
        """Shows the progress until the job ends; its JSON then.

        Raises:
            JobFailed: it failed or was cancelled; says why.
        """
        from service.client.progress import watch

        job = watch(self.client, self.id)
        if job["state"] != "succeeded":
            raise JobFailed(f"Job {self.id} {job['state']}: {job['reason']}")
        return job

    def cancel(self) -> dict[str, Any]:
        """Ends the job at once."""
        return self.client.cancel(self.id)

    def pause(self) -> dict[str, Any]:
        """Releases its workers until ``resume``."""
        return self.client.pause(self.id)

    def resume(self) -> dict[str, Any]:
        """Goes on with a paused job."""
        return self.client.resume(self.id)

    def stop(self) -> dict[str, Any]:
        """Ends the search with the best network so far."""
        return self.client.stop(self.id)

    def download(self, path: str | Path, format: str = "pt2", trial: int | None = None) -> Path:
        """Pulls the best network, or that of another trial, into a file; see ``Client.download``."""
        return self.client.download(self.id, format, path, trial)

    def checkpoints(self) -> list[dict[str, Any]]:
        """The networks that it kept, the best one first; see ``Client.checkpoints``."""
        return self.client.checkpoints(self.id)

    def card(self, trial: int | None = None) -> dict[str, Any]:
        """How its best network, or that of another trial, was made; see ``Client.card``."""
        return self.client.card(self.id, trial)

    def report(self, path: str | Path) -> Path:
        """Pulls the report, one HTML file; see ``Client.report``."""
        return self.client.report(self.id, path)

    def checkpoint(self, trial: int | None = None) -> GraphModule:
        """The best network, or that of another trial: real ``nn`` modules under their original names, in eval mode.

        It is ready to train or export. Nothing in the file is executed: it goes through the same reader as uploads do.
        """
        from pruners.graph.modules import build_module
        from pruners.graph.program import read_program

        with tempfile.TemporaryDirectory(prefix="secateur-") as folder:
            return build_module(read_program(self.download(Path(folder) / "best.pt2", trial=trial)))

    def apply(self, model: nn.Module, attributes: Mapping[str, Mapping[str, Any]] | None = None) -> nn.Module:
        """The best network as an object of your own class, in eval mode; ``model`` itself is left as it is.

        Args:
            model: of the architecture that the job pruned; its weights do not matter.
            attributes: of modules by their paths, numbers in your code that count channels: ``{"layer2.0": {"pad": 4}}``.

        Raises:
            InvalidInput: it is of another one, or there are such numbers and ``attributes`` does not say them.
        """
        from service.client.apply_recipe import apply_recipe

        with tempfile.TemporaryDirectory(prefix="secateur-") as folder:
            recipe, weights = (self.download(Path(folder) / form, form) for form in ("recipe", "safetensors"))
            try:
                return apply_recipe(model, recipe, weights, attributes)
            except ValueError as error:
                raise InvalidInput("model", type(model).__name__, f"cannot be shrunk as job {self.id} did: {error}") from error
