"""Worker processes among each other: whether one on the same machine is still alive, and who may do what alone."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from sandbox.conf import private_root

_LISTEN_SECONDS = 0.005  # between two looks at a file's time, which cost next to nothing


@cache
def machine() -> str:
    """This machine since it was started, and the view that its processes have of each other.

    A name alone is not enough: machines are cloned, and containers share names while each counts processes anew.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    return f"{socket.gethostname()}/{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"


def worker_name() -> str:
    """This process."""
    return f"{machine()}:{os.getpid()}:{_birth(os.getpid())}"


def worker_is_gone(name: str) -> bool | None:
    """Whether that process has certainly ended; None if it belongs to another machine."""
    where, _colon, process = name.rpartition(":")[0].rpartition(":")
    if where != machine() or not process.isdigit():
        return None
    return _birth(int(process)) != name.rpartition(":")[2]


def _birth(process: int) -> str:
    """When a process was started, in clock ticks since boot; empty if there is none. Process ids are used again."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()
    return "" if state in "ZX" else fields[18]


@contextmanager
def alone(what: str) -> Iterator[bool]:
    """Whether no other process of this machine is at the same now. The lock dies with its process."""
    path = private_root() / f"{what}.lock"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def ring() -> None:
    """Tells whoever on this machine listens that a slot is free now, so that it need not ask the database so often."""
    with suppress(OSError):  # the disk is full: it will be found out a moment later
        _bell().touch()


def listen(seconds: float) -> None:
    """Waits until somebody rings, at most so long."""
    until = time.monotonic() + seconds
    heard = _rung()
    while time.monotonic() < until and _rung() == heard:
        time.sleep(_LISTEN_SECONDS)


def _rung() -> int:
    try:
        return _bell().stat().st_mtime_ns
    except OSError:
        return 0


def _bell() -> Path:
    return private_root() / "line.bell"
