"""Shuts the inspecting process in: no network, no other program, no file of anybody's to write.

On Linux the kernel refuses the calls themselves (a seccomp filter, which needs no privilege and cannot be lifted again). Python
refuses them as well, on every system, and there alone what can only be told apart by a path: where a file is written.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Sequence
from errno import EPERM
from pathlib import Path
from typing import Any

_SYSTEM_CALLS = {
    # socket, connect, accept, sendto, bind, listen, socketpair, accept4; execve, execveat; ptrace, process_vm_readv,
    # process_vm_writev, pidfd_getfd; kill, pidfd_send_signal; io_uring_setup, by which all of these could be had again.
    "x86_64": (0xC000003E, (41, 42, 43, 44, 49, 50, 53, 288, 59, 322, 101, 310, 311, 438, 62, 424, 425)),
    "aarch64": (0xC00000B7, (198, 203, 202, 206, 200, 201, 199, 242, 221, 281, 117, 270, 271, 438, 129, 424, 425)),
}
"""By machine: its audit number, and the calls that an inspection has no use for (linux/audit.h, asm/unistd.h)."""

_X32 = 0x40000000  # from here on the numbers of another table on x86_64, by which the same calls could be made
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # of the classic Berkeley packet filter
_NUMBER, _MACHINE = 0, 4  # where in seccomp_data they are
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | EPERM
_SET_SECCOMP, _FILTER, _SET_NO_NEW_PRIVILEGES = 22, 2, 38  # of prctl

_NEVER = ("socket.", "subprocess.", "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "pickle.find_class")
_CHANGING = ("os.remove", "os.rename", "os.link", "os.symlink", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "os.chown")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def refuse_system_calls() -> bool:
    """Has the kernel refuse them to this thread and all that it starts; whether it does."""
    machine, calls = _SYSTEM_CALLS.get(platform.machine(), (0, ()))
    if sys.platform != "linux" or not calls:
        return False
    # A step is an operation, how many steps to leave out if it holds and if not, and a number.
    checks = [(_IF_AT_LEAST, _X32), *((_IF_EQUAL, call) for call in calls)]
    steps = [(_LOAD, 0, 0, _MACHINE), (_IF_EQUAL, 0, len(checks) + 2, machine), (_LOAD, 0, 0, _NUMBER)]
    steps += [(kind, len(checks) - place, 0, number) for place, (kind, number) in enumerate(checks)]
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]
    return _installed(b"".join(struct.pack("HBBI", *step) for step in steps), len(steps))


def refuse_in_python(writable: Sequence[Path]) -> None:
    """Has Python refuse the like, and files opened for writing outside these folders and files; for good."""
    places = tuple(os.path.abspath(place) for place in writable)

    def is_ours(path: Any) -> bool:
        if isinstance(path, int):  # opened already
            return True
        own = os.path.abspath(os.fsdecode(path))
        return any(own == place or own.startswith(place + os.sep) for place in places)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(_NEVER):
            raise PermissionError(EPERM, f"An inspection may not do this: {event}")
        changes = event in _CHANGING or (event == "open" and bool((arguments[2] or 0) & _WRITING))
        if changes and not is_ours(arguments[0]):
            raise PermissionError(EPERM, f"An inspection may not change this: {event}", str(arguments[0]))

    sys.addaudithook(hook)


def _installed(program: bytes, steps: int) -> bool:
    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))

    system = ctypes.CDLL(None, use_errno=True)
    if system.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        return False
    return bool(system.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(Program(steps, program)), 0, 0) == 0)
