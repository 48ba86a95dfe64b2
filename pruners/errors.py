"""The errors that reach a user, each one clear sentence.

    SecateurError
    ├── InvalidInput          something the user sent: names the field, its value and the remedy
    │   └── UnsafeProgram     an archive that holds what a program file never needs (pickles, libraries, …)
    └── JobFailed             a job that cannot end well, with the reason its owner reads

Every layer above raises these or leaves of its own below ``SecateurError``; only ``service`` turns them into HTTP.
"""

from __future__ import annotations

_LONGEST_VALUE = 120  # characters of a value that an error repeats: enough to recognise it, too few to flood a terminal


class SecateurError(Exception):
    """Base of all errors whose text is meant for a user."""


class InvalidInput(SecateurError):
    """Input that cannot be used, said in one sentence: ``field value problem``.

    Args:
        field: what the user would change, by the name they typed it under (``budget.ratio``, ``model``).
        value: what they sent; shown shortened. ``None`` leaves it out (a file's bytes say nothing).
        problem: the rest of the sentence, what is wrong and what to do instead, without a closing full stop.
    """

    def __init__(self, field: str, value: object, problem: str) -> None:
        self.field = field
        self.value = value
        shown = "" if value is None else f" {quote(value)}"
        super().__init__(f"{field}{shown} {problem}.")
        self._problem = problem

    def __reduce__(self) -> tuple[type[InvalidInput], tuple[str, object, str]]:
        """An exception is pickled as a call with its text alone; this one travels from a worker as it was made."""
        return type(self), (self.field, self.value, self._problem)


class UnsafeProgram(InvalidInput):
    """A program archive with a part that could run code when loaded; such a part is named and never opened."""


class JobFailed(SecateurError):
    """A job that ends without a network, with the reason in words."""


def quote(value: object) -> str:
    """A value as errors show it: on one line, printable, shortened."""
    return _cut(repr(value))


def reason(error: BaseException) -> str:
    """The first line of an error, printable and shortened; its kind where it says nothing."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return _cut(lines[0].encode("ascii", "backslashreplace").decode().rstrip("."))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"
