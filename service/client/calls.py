"""The REST interface as methods, for both clients; answers are the server's JSON as it is (``/docs`` describes it)."""

from __future__ import annotations

import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import quote

from service.client.connection import Connection
from service.client.download import download
from service.client.upload import upload

if TYPE_CHECKING:
    import torch

Json = dict[str, Any]

One = TypeVar("One")
Many = TypeVar("Many")
Listed = TypeVar("Listed")
File = TypeVar("File")
Done = TypeVar("Done")
Made = TypeVar("Made")

_PAGE = "200"  # items per request of a list: fewer requests than the default, still small answers


class Calls(ABC, Generic[One, Many, Listed, File, Done, Made]):
    """What both clients do; they differ in how one gets at what comes of it.

    The type parameters are what each kind of method returns: one document, a list that is fetched as it is asked for, a whole
    list, the path of a file, nothing, and a new job.
    """

    _connection: Connection

    @property
    def url(self) -> str:
        """The server's address."""
        return self._connection.url

    def submit(
        self,
        model: torch.nn.Module,
        example_input: torch.Tensor,
        data: Mapping[str, Any] | str | Path,
        budget: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        **spec: Any,
    ) -> Made:
        """Exports a network, uploads it with its data and creates the job.

        Args:
            model: stays as it is; its copy is exported in eval mode.
            example_input: ``[batch, ...]``, one input of the network; any batch size.
            data: ``x_train, y_train, x_test, y_test`` and optionally ``x_val, y_val`` (no ``y`` at all for a task without
                labels), or an ``.npz``, ``.parquet`` or ``.tar`` file.
            budget: such as ``{"metric": "macs", "ratio": 0.5}``, or several for a network of each size; ``None`` beside a
                ``constraint={"max_metric_drop": 0.01}``: as little as that allows.
            spec: any other field of ``POST /jobs``: ``name="half"``, ``searcher={"name": "auto"}``, …

        Raises:
            InvalidInput: a network that cannot be exported, or data that are no arrays.
        """
        if budget is not None:
            spec["budget"] = dict(budget) if isinstance(budget, Mapping) else [dict(each) for each in budget]
        return self._made(self._submitted(model, example_input, data, spec))

    def upload_model(self, model: str | Path | bytes, name: str | None = None) -> One:
        """Uploads a ``.pt2`` file or its bytes; its id, costs and groups. ``name`` defaults to the file's."""
        return self._one(self._uploaded_model(model, name))

    def upload_dataset(self, path: str | Path, name: str | None = None) -> One:
        """Uploads an ``.npz``, ``.parquet`` or ``.tar`` file; its id, splits and shape. ``name`` defaults to the file's.

        A large one is sent in parts; one that broke off goes on where it ended when it is uploaded again.
        """
        return self._one(self._upload("/datasets", Path(path), name))

    def models(self) -> Many:
        """All models, newest first."""
        return self._many("/models")

    def datasets(self) -> Many:
        """All data sets, newest first."""
        return self._many("/datasets")

    def delete_model(self, model_id: str) -> Done:
        """Forgets a model that no job has."""
        return self._done(self._connection.json("DELETE", f"/models/{_segment(model_id)}"))

    def delete_dataset(self, dataset_id: str) -> Done:
        """Forgets a data set that no job has."""
        return self._done(self._connection.json("DELETE", f"/datasets/{_segment(dataset_id)}"))

    def create_job(self, spec: Mapping[str, Any], dry_run: bool = False) -> One:
        """Creates a job from the JSON of ``POST /jobs``. ``dry_run`` makes none and returns what it would do."""
        return self._one(self._created(spec, dry_run))

    def job(self, job_id: str) -> One:
        """A job: state, progress, baseline and best."""
        return self._call("GET", _job(job_id))

    def jobs(self) -> Many:
        """All jobs, newest first, fetched as they are asked for."""
        return self._many("/jobs")

    def trials(self, job_id: str) -> Many:
        """All trials of a job in the order in which they were proposed."""
        return self._many(f"{_job(job_id)}/trials")

    def events(self, job_id: str) -> Many:
        """What happened to a job so far, oldest first."""
        return self._many(f"{_job(job_id)}/events")

    def cancel(self, job_id: str) -> One:
        """Ends a job at once; the job afterwards. Asking twice does no harm."""
        return self._call("POST", f"{_job(job_id)}/cancel")

    def pause(self, job_id: str) -> One:
        """Releases a job's workers; ``resume`` goes on from its finished trials. Asking twice does no harm."""
        return self._call("POST", f"{_job(job_id)}/pause")

    def resume(self, job_id: str) -> One:
        """Queues a paused job again; the job afterwards. Asking twice does no harm."""
        return self._call("POST", f"{_job(job_id)}/resume")

    def stop(self, job_id: str) -> One:
        """Ends a search with what it has found: the best network is finished and kept. Asking twice does no harm."""
        return self._call("POST", f"{_job(job_id)}/stop")

    def delete(self, job_id: str) -> Done:
        """Forgets a job that has ended, with its trials and events."""
        return self._done(self._connection.json("DELETE", _job(job_id)))

    def download(self, job_id: str, format: str, path: str | Path, trial: int | None = None) -> File:
        """Pulls a network into the file ``path``: its sha256 is verified, and a broken download goes on where it ended.

        Args:
            job_id: a job that has succeeded.
            format: ``pt2``, ``safetensors``, ``recipe``, ``onnx``, ``int8`` or ``card``.
            path: replaced if there is one.
            trial: of one of ``checkpoints``; ``None``: the best network.
        """
        return self._file(download(self._connection, f"{_job(job_id)}/checkpoint", wanted(format, trial), Path(path)))

    def checkpoints(self, job_id: str) -> Listed:
        """The networks that a job kept, the best one first, with their figures and files."""
        return self._listed(f"{_job(job_id)}/checkpoints")

    def card(self, job_id: str, trial: int | None = None) -> One:
        """How a network was made, in full: the model card, which ``secateur replay`` takes."""
        return self._call("GET", f"{_job(job_id)}/checkpoint", params=wanted("card", trial))

    def report(self, job_id: str, path: str | Path) -> File:
        """Pulls a finished job's report, one HTML file, into the file ``path``, replaced if there is one."""
        return self._file(download(self._connection, f"{_job(job_id)}/report", {}, Path(path)))

    def searchers(self) -> Listed:
        """The search algorithms with their parameters."""
        return self._listed("/searchers")

    def pruners(self) -> Listed:
        """The pruning criteria with their parameters."""
        return self._listed("/pruners")

    def me(self) -> One:
        """Whose key this is, its scope, and what its user has and may have."""
        return self._call("GET", "/me")

    def create_key(self, user: str, scope: str = "submit", name: str | None = None) -> One:
        """Makes an API key, for the administrator; ``["key"]`` is to be had this once.

        Where the answer was lost and the call repeated, ``keys`` lists one that nobody knows: revoke it.
        """
        body = {"user": user, "scope": scope, **({} if name is None else {"name": name})}
        return self._call("POST", "/keys", body=body)

    def keys(self) -> Many:
        """All API keys, newest first, for the administrator."""
        return self._many("/keys")

    def revoke_key(self, key_id: str) -> One:
        """Makes an API key useless, at once and for good."""
        return self._call("DELETE", f"/keys/{_segment(key_id)}")

    def users(self) -> Many:
        """All users with what they have and may have, for the administrator."""
        return self._many("/users")

    def set_quotas(self, user: str, quotas: Mapping[str, int | None]) -> One:
        """Sets some of ``max_jobs``, ``max_trials`` and ``max_bytes``; ``None`` is no limit."""
        return self._call("PATCH", f"/users/{_segment(user)}", body=quotas)

    def audit(self, after: int = 0) -> Many:
        """What users asked to be changed, oldest first, behind the entry of that number."""
        return self._many("/audit", after=str(after))

    @abstractmethod
    def _one(self, work: Coroutine[Any, Any, Json]) -> One: ...

    @abstractmethod
    def _many(self, path: str, **params: str) -> Many: ...

    @abstractmethod
    def _listed(self, path: str) -> Listed: ...

    @abstractmethod
    def _file(self, work: Coroutine[Any, Any, Path]) -> File: ...

    @abstractmethod
    def _done(self, work: Coroutine[Any, Any, None]) -> Done: ...

    @abstractmethod
    def _made(self, work: Coroutine[Any, Any, str]) -> Made: ...

    def _call(self, method: str, path: str, **request: Any) -> One:
        return self._one(self._connection.json(method, path, **request))

    async def _page(self, path: str, params: Mapping[str, str]) -> tuple[list[Json], dict[str, str] | None]:
        """A page of a list, and the parameters of the next one."""
        page = await self._connection.json("GET", path, params={**params, "limit": _PAGE})
        return page["items"], None if page["next"] is None else {"after": page["next"]}

    async def _created(self, spec: Mapping[str, Any], dry_run: bool = False) -> Json:
        key = {"Idempotency-Key": uuid.uuid4().hex}  # a repetition of this call must not make a second job
        params = {"dry_run": "true"} if dry_run else None
        made: Json = await self._connection.json("POST", "/jobs", params=params, body=spec, headers=key)
        return made

    async def _upload(self, path: str, file: Path, name: str | None) -> Json:
        return await upload(self._connection, path, file, name or file.stem)

    async def _uploaded_model(self, model: str | Path | bytes, name: str | None) -> Json:
        if not isinstance(model, bytes):
            return await self._upload("/models", Path(model), name)
        with tempfile.TemporaryDirectory(prefix="secateur-") as folder:
            file = Path(folder) / "model.pt2"
            await self._connection.line.work(lambda: file.write_bytes(model))
            return await self._upload("/models", file, name)

    async def _submitted(
        self, model: torch.nn.Module, example_input: torch.Tensor, data: Mapping[str, Any] | str | Path, spec: Json
    ) -> str:
        from service.client.export import export_model, write_arrays  # imports torch

        work = self._connection.line.work
        with tempfile.TemporaryDirectory(prefix="secateur-") as folder:
            program, arrays = Path(folder) / "model.pt2", Path(folder) / "data.npz"
            await work(lambda: export_model(model, example_input, program))
            if isinstance(data, str | Path):
                arrays = Path(data)
            else:
                await work(lambda: write_arrays(data, arrays))
            model_id = (await self._upload("/models", program, type(model).__name__))["id"]
            dataset_id = (await self._upload("/datasets", arrays, None))["id"]
        job = await self._created({"model": model_id, "dataset": dataset_id, **spec})
        return str(job["id"])


def wanted(format: str, trial: int | None) -> dict[str, str]:
    """Of a job's checkpoints: a form of the best network, or of another trial's."""
    return {"format": format, **({} if trial is None else {"trial": str(trial)})}


def _job(job_id: str) -> str:
    return f"/jobs/{_segment(job_id)}"


def _segment(name: str) -> str:
    """Quoted, so that whatever is typed as an id stays one segment of the path."""
    return quote(name, safe="")
