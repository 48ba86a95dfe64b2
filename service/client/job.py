"""A job as an object: wait for it, then take the network."""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pruners.errors import InvalidInput, JobFailed
from service.client.calls import Calls, File, Json, Listed, One, wanted
from service.client.download import download
from service.client.line import run

if TYPE_CHECKING:
    from torch import nn
    from torch.fx import GraphModule

    from service.client.client import AsyncClient, Client

Graph = TypeVar("Graph")
Module = TypeVar("Module")


class JobMethods(Generic[One, Listed, File, Graph, Module]):
    """What both kinds of job do; the type parameters are what methods return: JSON, lists of it, a path, and networks."""

    client: Calls[One, Any, Listed, File, Any, Any]
    id: str

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"

    def status(self) -> One:
        """The job's JSON now: state, progress, baseline, best."""
        return self.client.job(self.id)

    def wait(self, show: bool = True) -> One:
        """Waits until the job ends; its JSON then.

        Args:
            show: the progress on the way: a bar on a terminal or in a notebook, lines elsewhere.

        Raises:
            JobFailed: it failed or was cancelled; says why.
        """
        return self.client._one(self._ended(show))

    def cancel(self) -> One:
        """Ends the job at once."""
        return self.client.cancel(self.id)

    def pause(self) -> One:
        """Releases its workers until ``resume``."""
        return self.client.pause(self.id)

    def resume(self) -> One:
        """Goes on with a paused job."""
        return self.client.resume(self.id)

    def stop(self) -> One:
        """Ends the search with the best network so far."""
        return self.client.stop(self.id)

    def download(self, path: str | Path, format: str = "pt2", trial: int | None = None) -> File:
        """Pulls the best network, or that of another trial, into a file; see ``Client.download``."""
        return self.client.download(self.id, format, path, trial)

    def checkpoints(self) -> Listed:
        """The networks that it kept, the best one first; see ``Client.checkpoints``."""
        return self.client.checkpoints(self.id)

    def card(self, trial: int | None = None) -> One:
        """How its best network, or that of another trial, was made; see ``Client.card``."""
        return self.client.card(self.id, trial)

    def report(self, path: str | Path) -> File:
        """Pulls the report, one HTML file; see ``Client.report``."""
        return self.client.report(self.id, path)

    def checkpoint(self, trial: int | None = None) -> Graph:
        """The best network, or that of another trial: real ``nn`` modules under their original names, in eval mode.

        It is ready to train or export. Nothing in the file is executed: it goes through the same reader as uploads do.
        """
        return self._graph(self._with_files(["pt2"], _read, trial))

    def apply(self, model: nn.Module, attributes: Mapping[str, Mapping[str, Any]] | None = None) -> Module:
        """The best network as an object of your own class, in eval mode; ``model`` itself is left as it is.

        Args:
            model: of the architecture that the job pruned; its weights do not matter.
            attributes: of modules by their paths, numbers in your code that count channels: ``{"layer2.0": {"pad": 4}}``.

        Raises:
            InvalidInput: it is of another one, or there are such numbers and ``attributes`` does not say them.
        """

        def shrink(recipe: Path, weights: Path) -> nn.Module:
            from service.client.apply_recipe import apply_recipe

            try:
                return apply_recipe(model, recipe, weights, attributes)
            except ValueError as error:
                raise InvalidInput("model", type(model).__name__, f"cannot be shrunk as job {self.id} did: {error}") from error

        return self._module(self._with_files(["recipe", "safetensors"], shrink))

    @abstractmethod
    def _graph(self, work: Coroutine[Any, Any, GraphModule]) -> Graph: ...

    @abstractmethod
    def _module(self, work: Coroutine[Any, Any, nn.Module]) -> Module: ...

    async def _ended(self, show: bool) -> Json:
        from service.client.display import display
        from service.client.progress import follow

        job = await follow(self.client._connection, self.id, display() if show else None)
        if job["state"] != "succeeded":
            raise JobFailed(f"Job {self.id} {job['state']}: {job['reason']}")
        return job

    async def _with_files(self, formats: list[str], use: Callable[..., Any], trial: int | None = None) -> Any:
        """What becomes of a network's files in these formats."""
        connection = self.client._connection
        with tempfile.TemporaryDirectory(prefix="secateur-") as folder:
            files = [
                await download(connection, f"/jobs/{self.id}/checkpoint", wanted(form, trial), Path(folder) / form)
                for form in formats
            ]
            return await connection.line.work(lambda: use(*files))


class Job(JobMethods[Json, list[Json], Path, "GraphModule", "nn.Module"]):
    """A job on a server.

    Args:
        client: talks to that server.
        id: the job's.
    """

    def __init__(self, client: Client, id: str) -> None:
        self.client = client
        self.id = id

    def _graph(self, work: Coroutine[Any, Any, GraphModule]) -> GraphModule:
        return run(work)

    def _module(self, work: Coroutine[Any, Any, nn.Module]) -> nn.Module:
        return run(work)


class AsyncJob(
    JobMethods[Awaitable[Json], Awaitable[list[Json]], Awaitable[Path], "Awaitable[GraphModule]", "Awaitable[nn.Module]"]
):
    """A job on a server, for asyncio: ``Job``, whose methods are awaited.

    Args:
        client: talks to that server.
        id: the job's.
    """

    def __init__(self, client: AsyncClient, id: str) -> None:
        self.client = client
        self.id = id

    def _graph(self, work: Coroutine[Any, Any, GraphModule]) -> Awaitable[GraphModule]:
        return work

    def _module(self, work: Coroutine[Any, Any, nn.Module]) -> Awaitable[nn.Module]:
        return work


def _read(file: Path) -> GraphModule:
    from pruners.graph.modules import build_module
    from pruners.graph.program import read_program

    return build_module(read_program(file))
