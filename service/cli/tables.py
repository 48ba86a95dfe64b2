"""What commands show to people: tables that fit 80 columns, plain off a terminal. rich is imported when there is one."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from service.texts import best_text, budget_text, number_text

if TYPE_CHECKING:
    from rich.table import Table

Json = dict[str, Any]

_INDENT = "    "

_FIGURES = (
    ("MACs", "macs", "{:,}"),
    ("parameters", "params", "{:,}"),
    ("latency, ms", "latency_ms", "{:.3f}"),
    ("file, bytes", "size_bytes", "{:,}"),
)


def show_jobs(jobs: Sequence[Json]) -> None:
    """One line per job."""
    table = _table("job", "name", "state", "trials>", "result", "budget")
    table.columns[0].no_wrap = table.columns[2].no_wrap = True
    for job in jobs:
        progress, best = job["progress"], job["best"]
        result = "" if best is None else f"{job['metric']['name']} {number_text(best['metric'])}"
        budget = budget_text(job["spec"])
        table.add_row(job["id"], job["name"], job["state"], f"{progress['finished']}/{progress['planned']}", result, budget)
    _print(table if jobs else "There are no jobs yet; make one with 'secateur submit'.")


def show_job(job: Json) -> None:
    """A job's state, and dense against pruned."""
    progress = job["progress"]
    _print(f"{job['name']} ({job['id']})")
    _print(f"state   {job['state']}" + (f": {job['reason']}" if job["reason"] else ""))
    _print(f"budget  {budget_text(job['spec'])}")
    _print(f"trials  {progress['finished']} of {progress['planned']}, {progress['failed']} failed")
    _print(f"best    {best_text(job)}")
    if job["baseline"] is not None and job["best"] is not None:
        table = _table("", "dense>", "pruned>", "ratio>")
        metric, figures = job["metric"], [job[network]["metric"] for network in ("baseline", "best")]
        table.add_row(f"{metric['title']} ({metric['better']} is better)", *map(number_text, figures), "")
        for title, name, form in _FIGURES:
            dense, pruned = job["baseline"][name], job["best"][name]
            table.add_row(title, form.format(dense), form.format(pruned), f"{pruned / dense:.3f}" if dense else "")
        _print(table)
        if job["best"].get("max_drop") is not None:
            _print(f"The metric dropped by at most {number_text(job['best']['max_drop'])}, with 95 % confidence.")


def show_checkpoints(checkpoints: Sequence[Json], metric: str) -> None:
    """One line per network that a job kept."""
    table = _table("trial>", f"{metric}>", "MACs>", "params>", "ms>", "bytes>", "formats")
    for kept in checkpoints:
        forms = ", ".join(file["format"] for file in kept["files"])
        latency, size = f"{kept['latency_ms']:.3f}", f"{kept['size_bytes']:,}"
        costs = (f"{kept['macs']:,}", f"{kept['params']:,}", latency, size)
        table.add_row(str(kept["trial"]), number_text(kept["metric"]), *costs, forms)
    _print(table if checkpoints else "No networks yet; there are some once the job succeeded.")


def show_replay(files: Json) -> None:
    """One line per file that was made again."""
    for form, file in files.items():
        _print(f"{form}: {file['path']} is {'the same' if file['same'] else 'another file'}, sha256 {file['sha256']}")


def show_trials(trials: Sequence[Json], metric: str) -> None:
    """One line per trial of a job that reports this metric."""
    table = _table("trial>", "state", "score>", f"{metric}>", "MACs>", "params>", "s>", "note")
    for trial in trials:
        outcome = trial["outcome"] or {}
        table.add_row(
            str(trial["number"]),
            trial["state"],
            _number(outcome.get("score"), "{:.4g}"),
            "" if outcome.get("metric") is None else number_text(outcome["metric"]),
            _number(outcome.get("macs"), "{:,}"),
            _number(outcome.get("params"), "{:,}"),
            _number(trial["evaluate_seconds"], "{:.1f}"),
            outcome.get("error") or trial["note"],
        )
    _print(table if trials else "No trials yet.")


def show_inspection(model: Json) -> None:
    """A network's cost and its groups."""
    _print(f"{model['macs']:,} MACs for one input, {model['params']:,} parameters")
    _print(f"{model['size_bytes']:,} bytes of weights, {model['activation_bytes']:,} bytes of layer outputs for one input")
    for kind in ("inputs", "outputs"):
        shapes = ", ".join(_shape(value["shape"]) for value in model[kind])
        _print(f"{kind}: {shapes}")
    table = _table("group", "width>", "step>", "layers>", "", "not pruned because")
    for group in model["groups"]:
        residual = "residual" if group["residual"] else ""
        width, step = str(group["width"]), str(group["divisor"])
        table.add_row(group["name"], width, step, str(len(group["layers"])), residual, group["frozen_reason"] or "")
    _print(table)


def show_plan(plan: Json) -> None:
    """What a job would do."""
    _print(f"{plan['metric']}: {plan['dense']:,} now, at most {plan['limit']:,} wanted, {plan['least']:,} within reach")
    known = f", {plan['given_trials']} are known from the earlier job" if plan["given_trials"] else ""
    _print(f"at most {plan['planned_trials']} trials{known}")


def show_algorithms(algorithms: Sequence[Json]) -> None:
    """Names, what they do, their parameters with defaults."""
    for algorithm in algorithms:
        _wrapped(f"{algorithm['name']}: {algorithm['description']}")
        if algorithm["reference"]:
            _wrapped(algorithm["reference"], _INDENT)
        for name, schema in algorithm["params"].get("properties", {}).items():
            default = f" [{schema['default']}]" if "default" in schema else ""
            _wrapped(f"{name}{default}: {schema.get('description', schema.get('type', ''))}", _INDENT)


def show_uploads(uploads: Sequence[Json]) -> None:
    """One line per model or data set."""
    table = _table("id", "name", "bytes>", "uploaded")
    table.columns[0].no_wrap = True
    for upload in uploads:
        table.add_row(upload["id"], upload["name"], f"{upload['size']:,}", upload["created_at"][:16])
    _print(table if uploads else "Nothing was uploaded yet.")


def show_keys(keys: Sequence[Json]) -> None:
    """One line per key."""
    table = _table("key", "user", "scope", "name", "last used")
    table.columns[0].no_wrap = True
    for key in keys:
        used = "revoked" if key["revoked_at"] else (key["last_used_at"] or "never")[:16]
        table.add_row(key["id"], key["user"], key["scope"], key["name"], used)
    _print(table if keys else "There are no keys yet; make one with 'secateur keys create'.")


def show_users(users: Sequence[Json]) -> None:
    """One line per user: what they have of what they may have."""
    table = _table("user", "jobs>", "trials>", "bytes>")
    for user in users:
        pairs = [(user["usage"][name], user[f"max_{name}"]) for name in ("jobs", "trials", "bytes")]
        table.add_row(user["name"], *(f"{used:,}" if most is None else f"{used:,} of {most:,}" for used, most in pairs))
    _print(table)


def show_audit(entries: Sequence[Json]) -> None:
    """One line per call."""
    table = _table("entry>", "at", "user", "from", "call", "answer>", "made")
    for entry in entries:
        call = f"{entry['method']} {entry['path']}"
        place = entry["address"] or ""
        table.add_row(str(entry["id"]), entry["at"][:19], entry["user"], place, call, str(entry["status"]), entry["made"] or "")
    _print(table if entries else "Nothing was done yet.")


def _table(*headings: str) -> Table:
    """Columns by heading; a trailing ``>`` aligns to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        right = heading.endswith(">")
        table.add_column(heading.removesuffix(">"), justify="right" if right else "left", overflow="fold", no_wrap=right)
    return table


def _print(shown: Table | str) -> None:
    """Without markup: names are the users' own and may hold brackets."""
    from rich.console import Console

    Console(highlight=False, markup=False).print(shown, soft_wrap=isinstance(shown, str))


def _wrapped(text: str, indent: str = "") -> None:
    """A paragraph in lines of the terminal's width."""
    from rich.console import Console

    for line in wrap(text, Console().width, initial_indent=indent, subsequent_indent=indent + _INDENT):
        _print(line)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _shape(sizes: Sequence[int | None]) -> str:
    return "[" + ", ".join("batch" if size is None else str(size) for size in sizes) + "]"
