"""The REST interface as methods; answers are the server's JSON as it is (``/docs`` describes it)."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import httpx2

from service.client.connection import Connection
from service.client.download import download
from service.client.job import Job
from service.client.upload import upload

if TYPE_CHECKING:
    import torch

_PAGE = "200"  # items per request of a list: fewer requests than the default, still small answers


class Client:
    """A Secateur server.

    Every method raises ``RequestRefused`` with the server's sentence where it says no, and ``ServerUnreachable`` where it
    says nothing. Lost connections and "try later" are retried first.

    Args:
        url: unset: ``SECATEUR_URL``, else ``http://127.0.0.1:8000``.
        token: unset: ``SECATEUR_TOKEN``, else the one that a server on this machine saved in ``SECATEUR_DATA_DIR/token``
            (``secateur-data/token`` below the current folder).
        transport: replaces the network in tests.
    """

    def __init__(self, url: str | None = None, token: str | None = None, transport: httpx2.BaseTransport | None = None) -> None:
        self._connection = Connection(url, token, transport)

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
    ) -> Job:
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
        from service.client.export import export_model, write_arrays  # imports torch

        with tempfile.TemporaryDirectory(prefix="secateur-") as folder:
            program = export_model(model, example_input, Path(folder) / "model.pt2")
            arrays = Path(data) if isinstance(data, str | Path) else write_arrays(data, Path(folder) / "data.npz")
            model_id = self.upload_model(program, name=type(model).__name__)["id"]
            dataset_id = self.upload_dataset(arrays)["id"]
        if budget is not None:
            spec["budget"] = dict(budget) if isinstance(budget, Mapping) else [dict(each) for each in budget]
        job = self.create_job({"model": model_id, "dataset": dataset_id, **spec})
        return Job(self, job["id"])

    def upload_model(self, model: str | Path | bytes, name: str | None = None) -> dict[str, Any]:
        """Uploads a ``.pt2`` file or its bytes; its id, costs and groups. ``name`` defaults to the file's."""
        if not isinstance(model, bytes):
            return self._upload("/models", Path(model), name)
        with tempfile.NamedTemporaryFile(prefix="secateur-", suffix=".pt2") as file:
            file.write(model)
            file.flush()
            return self._upload("/models", Path(file.name), name or "model")

    def upload_dataset(self, path: str | Path, name: str | None = None) -> dict[str, Any]:
        """Uploads an ``.npz``, ``.parquet`` or ``.tar`` file; its id, splits and shape. ``name`` defaults to the file's.

        A large one is sent in parts; one that broke off goes on where it ended when it is uploaded again.
        """
        return self._upload("/datasets", Path(path), name)

    def models(self) -> Iterator[dict[str, Any]]:
        """All models, newest first."""
        return self._pages("/models")

    def datasets(self) -> Iterator[dict[str, Any]]:
        """All data sets, newest first."""
        return self._pages("/datasets")

    def delete_model(self, model_id: str) -> None:
        """Forgets a model that no job has."""
        self._connection.json("DELETE", f"/models/{quote(model_id, safe='')}")

    def delete_dataset(self, dataset_id: str) -> None:
        """Forgets a data set that no job has."""
        self._connection.json("DELETE", f"/datasets/{quote(dataset_id, safe='')}")

    def create_job(self, spec: Mapping[str, Any], dry_run: bool = False) -> dict[str, Any]:
        """Creates a job from the JSON of ``POST /jobs``. ``dry_run`` makes none and returns what it would do."""
        key = {"Idempotency-Key": uuid.uuid4().hex}  # a repetition of this call must not make a second job
        return self._call("POST", "/jobs", params={"dry_run": "true"} if dry_run else None, body=spec, headers=key)

    def job(self, job_id: str) -> dict[str, Any]:
        """A job: state, progress, baseline and best."""
        return self._call("GET", _job_path(job_id))

    def jobs(self) -> Iterator[dict[str, Any]]:
        """All jobs, newest first, fetched as they are asked for."""
        return self._pages("/jobs")

    def trials(self, job_id: str) -> Iterator[dict[str, Any]]:
        """All trials of a job in the order in which they were proposed."""
        return self._pages(f"{_job_path(job_id)}/trials")

    def events(self, job_id: str) -> Iterator[dict[str, Any]]:
        """What happened to a job so far, oldest first."""
        return self._pages(f"{_job_path(job_id)}/events")

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Ends a job at once; the job afterwards. Asking twice does no harm."""
        return self._call("POST", f"{_job_path(job_id)}/cancel")

    def pause(self, job_id: str) -> dict[str, Any]:
        """Releases a job's workers; ``resume`` goes on from its finished trials. Asking twice does no harm."""
        return self._call("POST", f"{_job_path(job_id)}/pause")

    def resume(self, job_id: str) -> dict[str, Any]:
        """Queues a paused job again; the job afterwards. Asking twice does no harm."""
        return self._call("POST", f"{_job_path(job_id)}/resume")

    def stop(self, job_id: str) -> dict[str, Any]:
        """Ends a search with what it has found: the best network is finished and kept. Asking twice does no harm."""
        return self._call("POST", f"{_job_path(job_id)}/stop")

    def delete(self, job_id: str) -> None:
        """Forgets a job that has ended, with its trials and events."""
        self._connection.json("DELETE", _job_path(job_id))

    def download(self, job_id: str, format: str, path: str | Path, trial: int | None = None) -> Path:
        """Pulls a network into the file ``path``: its sha256 is verified, and a broken download goes on where it ended.

        Args:
            job_id: a job that has succeeded.
            format: ``pt2``, ``safetensors``, ``recipe``, ``onnx``, ``int8`` or ``card``.
            path: replaced if there is one.
            trial: of one of ``checkpoints``; ``None``: the best network.
        """
        params = {"format": format, **({} if trial is None else {"trial": str(trial)})}
        return download(self._connection, f"{_job_path(job_id)}/checkpoint", params, Path(path))

    def checkpoints(self, job_id: str) -> list[dict[str, Any]]:
        """The networks that a job kept, the best one first, with their figures and files."""
        return list(self._pages(f"{_job_path(job_id)}/checkpoints"))

    def card(self, job_id: str, trial: int | None = None) -> dict[str, Any]:
        """How a network was made, in full: the model card, which ``secateur replay`` takes."""
        params = {"format": "card", **({} if trial is None else {"trial": str(trial)})}
        return self._call("GET", f"{_job_path(job_id)}/checkpoint", params=params)

    def report(self, job_id: str, path: str | Path) -> Path:
        """Pulls a finished job's report, one HTML file, into the file ``path``, replaced if there is one."""
        return download(self._connection, f"{_job_path(job_id)}/report", {}, Path(path))

    def searchers(self) -> list[dict[str, Any]]:
        """The search algorithms with their parameters."""
        return list(self._pages("/searchers"))

    def pruners(self) -> list[dict[str, Any]]:
        """The pruning criteria with their parameters."""
        return list(self._pages("/pruners"))

    def me(self) -> dict[str, Any]:
        """Whose key this is, its scope, and what its user has and may have."""
        return self._call("GET", "/me")

    def create_key(self, user: str, scope: str = "submit", name: str | None = None) -> dict[str, Any]:
        """Makes an API key, for the administrator; ``["key"]`` is to be had this once.

        Where the answer was lost and the call repeated, ``keys`` lists one that nobody knows: revoke it.
        """
        body = {"user": user, "scope": scope, **({} if name is None else {"name": name})}
        return self._call("POST", "/keys", body=body)

    def keys(self) -> Iterator[dict[str, Any]]:
        """All API keys, newest first, for the administrator."""
        return self._pages("/keys")

    def revoke_key(self, key_id: str) -> dict[str, Any]:
        """Makes an API key useless, at once and for good."""
        return self._call("DELETE", f"/keys/{quote(key_id, safe='')}")

    def users(self) -> Iterator[dict[str, Any]]:
        """All users with what they have and may have, for the administrator."""
        return self._pages("/users")

    def set_quotas(self, user: str, quotas: Mapping[str, int | None]) -> dict[str, Any]:
        """Sets some of ``max_jobs``, ``max_trials`` and ``max_bytes``; ``None`` is no limit."""
        return self._call("PATCH", f"/users/{quote(user, safe='')}", body=quotas)

    def audit(self, after: int = 0) -> Iterator[dict[str, Any]]:
        """What users asked to be changed, oldest first, behind the entry of that number."""
        return self._pages("/audit", after=str(after))

    def close(self) -> None:
        """Ends the open connections; leaving a ``with`` block does it too."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _upload(self, path: str, file: Path, name: str | None) -> dict[str, Any]:
        return upload(self._connection, path, file, name or file.stem)

    def _call(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._connection.json(method, path, **request)
        return answer

    def _pages(self, path: str, **params: str) -> Iterator[dict[str, Any]]:
        params["limit"] = _PAGE
        while True:
            page = self._call("GET", path, params=params)
            yield from page["items"]
            if page["next"] is None:
                return
            params["after"] = page["next"]


def _job_path(job_id: str) -> str:
    """Quoted, so that whatever is typed as an id stays one segment of the path."""
    return f"/jobs/{quote(job_id, safe='')}"
