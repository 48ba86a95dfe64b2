"""The ``secateur`` command. Starts quickly: each command imports what it needs when it runs."""

from __future__ import annotations

from service.cli import access, catalogue, jobs, local, operator
from service.cli.command import make_app

app = make_app(
    "Prunes trained PyTorch networks to a budget, as a service.",
    """\
Start a server, hand it a network and data, pull the smaller network:

  secateur serve
  secateur submit resnet20.pt2 --data cifar10.npz --budget macs=0.5 --watch
  secateur pull JOB -o smaller.pt2

SECATEUR_URL and SECATEUR_TOKEN say which server; without them it is the one
on this machine. Whatever shows something takes --json. Exit code: 0
succeeded, 1 failed or refused, 2 wrong usage, 130 interrupted.""",
)
for group in (local, jobs, catalogue, access, operator):
    group.register(app)


def main() -> None:
    """The console script."""
    app(prog_name="secateur")
