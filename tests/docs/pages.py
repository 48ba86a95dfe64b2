"""The documentation's snippets, and how they are run.

Each page is run from its first snippet to its last, the Python ones in one set of names, the shell ones with one set of
variables, all in one folder. A comment in the line above a snippet says what a reader has done beforehand,

    <!-- first: from tests.docs.small import model -->

in the snippet's own language, or why the snippet is not run:

    <!-- not run: posts to a server on the internet -->
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {path.name: path for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}

_SNIPPET = re.compile(r"(?:^<!-- (first|not run): ([^\n]+) -->\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_RUN = ("python", "bash")
_PORT = "http://127.0.0.1:8000"  # the default, which pages name


@dataclass(frozen=True)
class Snippet:
    """A piece of code in a page.

    Attributes:
        line: where it begins.
        language: ``python`` or ``bash``.
        code: with what comes first.
        skipped: why it is not run; ``None``: it is.
    """

    line: int
    language: str
    code: str
    skipped: str | None


def snippets(page: str) -> list[Snippet]:
    """Those of a page that can be run, and those that say why not."""
    text = PAGES[page].read_text()
    found = []
    for match in _SNIPPET.finditer(text):
        mark, said, language, code = match.groups()
        if language in _RUN:
            line = text.count("\n", 0, match.start(4)) + 1
            first = f"{said}\n" if mark == "first" else ""
            found.append(Snippet(line, language, first + code, said if mark == "not run" else None))
    return found


class Reader:
    """Somebody who does what a page says, in a folder of their own.

    Args:
        folder: where they are.
        url: of the service that they talk to, in place of the port that pages name; ``None``: there is none.
    """

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self._folder = folder
        self._url = url
        self.names: dict[str, object] = {"__name__": "snippets"}

    def run(self, page: str, *languages: str) -> None:
        """Does it; a snippet that fails raises what it raised, or ``AssertionError`` with what it printed."""
        for snippet in snippets(page):
            if snippet.skipped is None and snippet.language in (languages or _RUN):
                where = f"{page}:{snippet.line}"
                if snippet.language == "python":
                    exec(compile(snippet.code, where, "exec"), self.names)  # noqa: S102 - the page's own code
                else:
                    self._shell(snippet.code, where)

    def _shell(self, code: str, where: str) -> None:
        """In bash; what it assigns is there for the next one."""
        kept = self._folder / ".variables"
        kept.touch()
        code = code.replace(_PORT, self._url or _PORT)
        script = f"set -euo pipefail\nsource {kept}\nset -o allexport\n{code}\nexport -p > {kept}\n"
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
        ran = subprocess.run(
            ["bash", "-c", script], cwd=self._folder, env=environment, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, f"{where} failed:\n{ran.stdout}\n{ran.stderr}"
