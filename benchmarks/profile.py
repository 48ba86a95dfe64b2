"""Where the time of a job goes, by pyinstrument: the trials of a search and the searcher, without what runs them.

    python -m benchmarks.profile --data cifar10.npz --weights resnet20.safetensors --html profile.html

``--data`` and ``--weights`` are those of ``benchmarks.cifar``. The search is NetAdapt's with least squares at half of the MACs,
on one thread and without Ray, so that one process does all; shares are of wall time, each line with all that it calls.
"""

from __future__ import annotations

from pathlib import Path

import torch
from pyinstrument import Profiler
from pyinstrument.frame import Frame
from rich.table import Table

from benchmarks.cifar import command_line, exported
from benchmarks.report import report
from searchers.base import Done, Proposal
from workers.data import load
from workers.evaluator import Evaluator
from workers.plan import make_searcher
from workers.spec import JobSpec

_LINES = {
    "Evaluator.__init__": "loading: read, trace, score, moments",
    "Passes.recalibrate": "recalibration",
    "Passes.quality": "scoring",
    "reconstruct": "least squares",
    "shrink": "shrinking",
    "chain": "cutting into parts",
    "fingerprints": "hashes of parts",
    "fused": "BatchNorm into convolutions",
    "_VariableFunctionsClass.conv2d": "convolutions",
    "batch_norm": "BatchNorm while it is recalibrated",
    "NetAdapt.ask": "the searcher",
}


def shares(frame: Frame) -> dict[str, float]:
    """By line the share of the whole that it takes, with all that it calls."""
    seconds = dict.fromkeys(_LINES, 0.0)

    def visit(at: Frame, inside: frozenset[str]) -> None:
        name = at.function if at.function in _LINES else f"{at.class_name}.{at.function}" if at.class_name else at.function
        if name in _LINES and name not in inside:
            seconds[name] += at.time
            inside |= {name}
        for child in at.children:
            visit(child, inside)

    visit(frame, frozenset())
    return {_LINES[name]: value / frame.time for name, value in seconds.items()}


def main() -> None:
    """The command line."""
    parser = command_line(__doc__)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--html", type=Path, help="where to write the whole profile, to look at in a browser")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    spec = JobSpec.model_validate(
        {"budget": {"ratio": 0.5}, "recovery": {"least_squares": True}, "limits": {"max_trials": arguments.trials}}
    )
    with exported(arguments.weights) as model, Profiler(interval=0.002) as profiler:
        evaluator = Evaluator(model, load(arguments.data, 0), spec)
        searcher = make_searcher(evaluator.space(), spec)
        while not isinstance(proposal := searcher.ask(), Done):
            assert isinstance(proposal, Proposal)
            searcher.tell(proposal.id, evaluator.evaluate(proposal.widths))
    assert profiler.last_session is not None
    frame = profiler.last_session.root_frame()
    assert frame is not None
    found = shares(frame)
    shown = Table(title=f"{arguments.weights.stem}: {arguments.trials} trials of NetAdapt")
    shown.add_column("")
    shown.add_column("share of the time", justify="right")
    for line, share in found.items():
        shown.add_row(line, f"{share:.1%}")
    report(shown, {"seconds": frame.time, "shares": found}, arguments.output)
    if arguments.html:
        arguments.html.write_text(profiler.output_html())


if __name__ == "__main__":
    main()
