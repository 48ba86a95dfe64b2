"""Commands that make, follow and end jobs, and fetch their networks."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from pruners.errors import InvalidInput
from service.cli.command import Json, answer, command, note, write_json
from service.cli.tables import show_checkpoints, show_job, show_jobs, show_plan, show_trials
from service.cli.values import parse_budget, parse_params
from service.jobs.formats import Format

Option = typer.Option
JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, as submit and jobs show it.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    command(app, "submit", _SUBMIT)(submit)
    command(app, "watch")(watch)
    command(app, "jobs")(jobs)
    command(app, "job")(job)
    command(app, "trials")(trials)
    command(app, "stop")(stop)
    command(app, "pause")(pause)
    command(app, "resume")(resume)
    command(app, "cancel")(cancel)
    command(app, "delete")(delete)
    command(app, "pull", _PULL)(pull)
    command(app, "checkpoints")(checkpoints)
    command(app, "report", _REPORT)(report)


_SUBMIT = """\
  secateur submit resnet20.pt2 --data cifar10.npz --budget macs=0.5 --watch
  secateur submit net.pt2 --data d.npz --budget params=120000
  secateur submit net.pt2 --data d.npz --budget macs=0.7 --budget macs=0.5
  secateur submit net.pt2 --data d.npz --max-drop 0.01
  secateur submit net.pt2 --data d.npz --budget latency_ms=0.7
  secateur submit net.pt2 --data d.npz --budget macs=0.3 \\
      --searcher netadapt --param NAME=VALUE --pruner l1 --final-epochs 5
  secateur submit net.pt2 --data d.npz --budget macs=0.3 --warm-start JOB
  secateur submit net.pt2 --data d.npz --budget macs=0.3 --watch \\
      --searcher fixed --pruner agp --pruner-param epochs=10

  secateur submit net.pt2 --data d.tar --task label_free --budget macs=0.5

MODEL.pt2 comes from torch.export.save with a dynamic batch dimension;
DATA is an .npz archive of x_train, y_train, x_test, y_test and optionally
x_val, y_val, a .parquet file of image and label, or a .tar of class
folders. Large files go in parts; the same command goes on where it broke off."""


def submit(
    model: Annotated[Path, typer.Argument(metavar="MODEL.pt2", exists=True, dir_okay=False, help="An exported network.")],
    data: Annotated[
        Path, Option(metavar="DATA", exists=True, dir_okay=False, help="Inputs and labels: .npz, .parquet or .tar.")
    ],
    budget: Annotated[
        list[str] | None,
        Option(
            metavar="METRIC=VALUE",
            help="What the network may cost in macs, params, size_bytes or latency_ms: below 1 a share of the dense network, "
            "else a maximum (of latency with its unit: latency_ms=0.8ms); repeatable, for a network of each size. "
            "METRIC alone beside --max-drop: as little as that allows.",
        ),
    ] = None,
    max_drop: Annotated[
        float | None, Option(help="The most that the metric may get worse by; confirmed on the test inputs.")
    ] = None,
    task: Annotated[
        str | None, Option(metavar="TYPE", help="classification, regression, label_free for data without labels, or custom.")
    ] = None,
    metric: Annotated[
        str | None, Option(help="What to report: top1, top5, cross_entropy; mse, mae; agreement, kl, relative_error.")
    ] = None,
    code: Annotated[
        Path | None, Option(metavar="FILE.py", exists=True, dir_okay=False, help="Of a custom task: metric and maybe loss.")
    ] = None,
    searcher: Annotated[str | None, Option(help="How to search; see 'secateur searchers'.")] = None,
    param: Annotated[list[str] | None, Option(metavar="NAME=VALUE", help="The searcher's parameter; repeatable.")] = None,
    warm_start: Annotated[
        str | None, Option(metavar="JOB", help="An earlier job on the same files, whose trials this one starts from.")
    ] = None,
    pruner: Annotated[str | None, Option(help="How to rank channels; see 'secateur pruners'.")] = None,
    pruner_param: Annotated[list[str] | None, Option(metavar="NAME=VALUE", help="The pruner's parameter; repeatable.")] = None,
    max_trials: Annotated[int | None, Option(help="Networks to try at most.")] = None,
    max_concurrent: Annotated[int | None, Option(help="Trials that run at once.")] = None,
    max_seconds: Annotated[int | None, Option(help="No trial starts after this long.")] = None,
    max_failed_trials: Annotated[int | None, Option(help="The job fails once so many trials have.")] = None,
    final_epochs: Annotated[int | None, Option(help="Epochs of fine-tuning of the best network.")] = None,
    seed: Annotated[int | None, Option(help="Every random choice derives from it.")] = None,
    name: Annotated[str | None, Option(help="For people.")] = None,
    webhook: Annotated[
        str | None, Option(metavar="URL", help="Is told how the job fares, signed with SECATEUR_WEBHOOK_SECRET if that is set.")
    ] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Check everything and show the plan, but make no job.")] = False,
    watch: Annotated[bool, Option("--watch", help="Follow the job to its end.")] = False,
    as_json: Json = False,
) -> None:
    """Uploads a network and its data and has it pruned to the budget."""
    spec = {
        "name": name,
        "task": _given(type=task, metric=metric, code=code and code.read_text(encoding="utf-8")),
        "budget": _budget(budget or [], max_drop is not None),
        "constraint": _given(max_metric_drop=max_drop),
        "searcher": _given(name=searcher, params={**parse_params(param or []), **_given(warm_start=warm_start)}),
        "pruner": _given(name=pruner, params=parse_params(pruner_param, "--pruner-param") if pruner_param else None),
        "recovery": _given(final_epochs=final_epochs),
        "limits": _given(
            max_trials=max_trials, max_concurrent=max_concurrent, max_seconds=max_seconds, max_failed_trials=max_failed_trials
        ),
        "seed": seed,
        "webhook": webhook and _given(url=webhook, secret=os.environ.get("SECATEUR_WEBHOOK_SECRET")),
    }
    from service.client import Client

    with Client() as client:
        uploads = {"model": client.upload_model(model)["id"], "dataset": client.upload_dataset(data)["id"]}
        made = client.create_job(_given(**spec, **uploads), dry_run=dry_run)
        if watch and not dry_run:
            _watch(client, made["id"], as_json)
        else:
            answer(made, as_json, show_plan if dry_run else _show_made)


def _show_made(job: dict[str, Any]) -> None:
    typer.echo(f"{job['id']} is {job['state']}; follow it with: secateur watch {job['id']}")


def watch(job: JobId, as_json: Json = False) -> None:
    """Shows a job's progress until it ends. Ctrl-C ends the watching, not the job."""
    from service.client import Client

    with Client() as client:
        _watch(client, job, as_json)


def jobs(
    limit: Annotated[int, Option(min=1, help="How many, the newest first.")] = 20,
    as_json: Json = False,
) -> None:
    """Lists the jobs."""
    from service.client import Client

    with Client() as client:
        found = list(islice(client.jobs(), limit))
    answer(found, as_json, show_jobs)


def job(job: JobId, as_json: Json = False) -> None:
    """Shows how far a job is, and its best network beside the dense one."""
    from service.client import Client

    with Client() as client:
        found = client.job(job)
    answer(found, as_json, show_job)


def trials(job: JobId, as_json: Json = False) -> None:
    """Lists a job's trials in the order of proposal."""
    from service.client import Client

    with Client() as client:
        found = list(client.trials(job))
        metric = "" if as_json else client.job(job)["metric"]["name"]
    answer(found, as_json, lambda trials: show_trials(trials, metric))


def stop(job: JobId, as_json: Json = False) -> None:
    """Ends a search with what it has found: running trials are heard, the best network is finished and kept."""
    _control("stop", job, as_json)


def pause(job: JobId, as_json: Json = False) -> None:
    """Releases a job's workers at once; trials that they were at run again after 'secateur resume'."""
    _control("pause", job, as_json)


def resume(job: JobId, as_json: Json = False) -> None:
    """Goes on with a paused job, from its finished trials."""
    _control("resume", job, as_json)


def cancel(job: JobId, as_json: Json = False) -> None:
    """Ends a job at once; no network is kept of it."""
    _control("cancel", job, as_json)


def delete(
    kept: Annotated[str, typer.Argument(metavar="ID", help="Of a job, a model or a data set, as they are listed.")],
    as_json: Json = False,
) -> None:
    """Forgets a job that has ended, with its trials, or a model or data set that no job has.

    'secateur gc' then frees its files' space.
    """
    from service.client import Client

    with Client() as client:
        forget = {"model": client.delete_model, "dataset": client.delete_dataset}.get(kept.partition("-")[0], client.delete)
        forget(kept)
    answer({"deleted": kept}, as_json, lambda _: typer.echo(f"{kept} is deleted"))


def _control(what: str, job: str, as_json: bool) -> None:
    from service.client import Client

    with Client() as client:
        ask = {"stop": client.stop, "pause": client.pause, "resume": client.resume, "cancel": client.cancel}[what]
        found = ask(job)
    answer(found, as_json, lambda job: typer.echo(f"{job['id']} is {job['state']}"))


_PULL = """\
  secateur pull JOB
  secateur pull JOB -o smaller.safetensors --format safetensors
  secateur pull JOB --format card

A broken download goes on where it ended when the command is run again."""


def pull(
    job: JobId,
    output: Annotated[Path | None, Option("--output", "-o", metavar="FILE", help="[JOB.pt2, …]")] = None,
    format: Annotated[
        Format, Option(help="recipe: what was removed, as JSON. card: how the network was made, in full.")
    ] = Format.PT2,
    trial: Annotated[int | None, Option(min=0, help="Another network that was kept; see 'secateur checkpoints'.")] = None,
    as_json: Json = False,
) -> None:
    """Downloads a job's best network, or another that it kept, and verifies its sha256."""
    from service.client import Client

    with Client() as client:
        name = job if trial is None else f"{job}-{trial}"
        target = output or Path(Path(f"{name}.{format.extension}").name)  # never another folder, whatever was typed
        _answer_file(client.download(job, format.value, target, trial), as_json)


def checkpoints(job: JobId, as_json: Json = False) -> None:
    """Lists the networks that a job kept: the best one, and others of other sizes."""
    from service.client import Client

    with Client() as client:
        found = client.checkpoints(job)
        metric = "" if as_json else client.job(job)["metric"]["name"]
    answer(found, as_json, lambda kept: show_checkpoints(kept, metric))


_REPORT = """\
  secateur report JOB
  secateur report JOB -o half.html"""


def report(
    job: JobId,
    output: Annotated[Path | None, Option("--output", "-o", metavar="FILE", help="[JOB.html]")] = None,
    as_json: Json = False,
) -> None:
    """Downloads a finished job's report: one HTML file with its figures, plots and how to load the network."""
    from service.client import Client

    with Client() as client:
        _answer_file(client.report(job, output or Path(Path(f"{job}.html").name)), as_json)


def _answer_file(path: Path, as_json: bool) -> None:
    found = {"path": str(path), "size": path.stat().st_size}
    answer(found, as_json, lambda file: typer.echo(f"{file['path']} ({file['size']:,} bytes)"))


def _watch(client: Any, job_id: str, as_json: bool) -> None:
    """Follows a job; its outcome becomes the command's."""
    from rich.console import Console

    from service.client.display import watch

    console = Console(highlight=False, markup=False, stderr=as_json)
    try:
        ended = watch(client, job_id, console)
    except KeyboardInterrupt:
        note(f"The job goes on; follow it with: secateur watch {job_id}")
        raise
    if as_json:
        write_json(ended)
    elif ended["state"] == "succeeded":
        typer.echo(f"Fetch the network with: secateur pull {job_id}")
    if ended["state"] != "succeeded":
        raise typer.Exit(1)


def _budget(typed: list[str], bounded: bool) -> Any:
    if not typed and not bounded:
        raise InvalidInput("--budget", None, "is missing; write --budget macs=0.5, or --max-drop with what the metric may lose")
    budgets = [parse_budget(text, bounded) for text in typed]
    return budgets[0] if len(budgets) == 1 else budgets or None


def _given(**fields: Any) -> dict[str, Any]:
    """What was asked for; the server's defaults stand for the rest."""
    return {name: value for name, value in fields.items() if value not in (None, {})}
