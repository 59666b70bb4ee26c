"""Reading hostile bytes where they can do no harm: in a short-lived child with little memory, little time, no secrets.

Each process that calls has one fork server (`sandbox.zygote`), started with an empty environment and without Django
set up, so its children hold no database connection and no key. What comes back is JSON, never a pickle.
"""

import array
import contextlib
import importlib.util
import json
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Literal

import structlog

from sandbox.conf import preload
from sandbox.reasons import Reason, Rejected, gettext_noop

log = structlog.get_logger(__name__)

MAX_ANSWER = 16 << 20
GRACE_SECONDS = 2  # the child's own alarm should come first
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "COVERAGE_PROCESS_START")


class IsolationFault(Exception):
    """The child could not be asked at all, or the function does not exist: a fault of the platform."""


class Broken(Exception):
    """The child came to no answer. `kind`: it ran out of time or memory, died, or the function raised an error."""

    def __init__(self, kind: Literal["time", "memory", "died", "error"]) -> None:
        super().__init__(kind)
        self.kind = kind


_LATE: Final = gettext_noop("Reading it took more than %(seconds)d seconds, or could not be finished.")
_COMPLAINTS: Final = {
    "time": _LATE,
    "died": _LATE,
    "memory": gettext_noop("Reading it needs more than %(memory_mb)d MB of memory."),
    "error": gettext_noop("It could not be read."),
}


def call(
    function: Callable[..., Any],
    *args: Any,
    seconds: float = 60,
    memory_mb: int = 2048,
    reason: Reason = Reason.OUTPUT_INVALID,
) -> Any:
    """Has a stranger's bytes read by `function`, as `ask` does: whatever goes wrong is the bytes' fault.

    Raises `Rejected` as the function does, or with `reason` when the child fails in any other way. Raises
    IsolationFault when the platform is at fault.
    """
    try:
        return ask(function, *args, seconds=seconds, memory_mb=memory_mb)
    except Broken as broken:
        limits = {"seconds": int(seconds), "memory_mb": memory_mb}
        raise Rejected(reason, _COMPLAINTS[broken.kind] % limits) from None


def ask(function: Callable[..., Any], *args: Any, seconds: float, memory_mb: int) -> Any:
    """Calls a module-level function in a child of its own; returns its result, which must be JSON-able.

    Raises `Rejected` as the function does, Broken when it came to no answer, IsolationFault when the child could not be
    asked.
    """
    begun = time.monotonic()
    request = pickle.dumps((function, args, seconds, memory_mb))
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            _server().hand_over(theirs)
        with contextlib.suppress(OSError):  # a child that is gone already shows in the answer
            ours.settimeout(seconds + GRACE_SECONDS)
            ours.sendall(struct.pack("<Q", len(request)) + request)
        answer = _listen(ours, time.monotonic() + seconds + GRACE_SECONDS)
    return _understand(answer, function.__name__, late=time.monotonic() - begun >= seconds)


def _listen(channel: socket.socket, deadline: float) -> bytes:
    """All that the child says until it hangs up. First its process id, so that it can be stopped when it is late."""
    said = bytearray()
    handle = -1
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    try:
        while len(said) <= MAX_ANSWER:
            piece = channel.recv(1 << 16) if poll.poll(max(0, 1000 * (deadline - time.monotonic()))) else b""
            said += piece
            if handle < 0 and len(said) >= 4:
                with contextlib.suppress(ProcessLookupError):
                    handle = os.pidfd_open(struct.unpack("<I", said[:4])[0])
            if not piece:
                break
    except ConnectionError:
        said.clear()
    finally:
        if handle >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.close(handle)
    return bytes(said[4:])


def _understand(answer: bytes, name: str, *, late: bool) -> Any:
    try:
        kind, value = json.loads(answer)
        if kind == "result":
            return value
        if kind == "rejected":
            raise Rejected(value[0], str(value[1]))
        if kind == "fault":
            raise IsolationFault(str(value))
        log.info("isolation.failed", function=name, kind=str(kind), error=str(value))
        raise Broken("memory" if kind == "memory" else "error")
    except (ValueError, TypeError, IndexError, RecursionError):
        log.info("isolation.died", function=name, late=late)
        raise Broken("time" if late else "died") from None


class _Server:
    """The fork server of this process."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        env = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        # one thread each: a fork takes no threads along, and the parent has other runs to serve
        env |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
        env |= {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONSAFEPATH": "1"}
        modules = [name for name in ("numpy", "pandas", "pyarrow.parquet", "pyarrow.csv", *preload()) if _exists(name)]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sandbox.zygote", str(theirs.fileno()), *modules],
                pass_fds=[theirs.fileno()],
                env=env,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the worker, which then hangs up
            )

    def alive(self) -> bool:
        """Whether it can be asked by this process."""
        return self.owner == os.getpid() and self._process.poll() is None

    def hand_over(self, channel: socket.socket) -> None:
        """Gives it the far end of a channel; it forks a child that reads the request from there."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [channel.fileno()]))]
        try:
            with self._lock:
                self._control.sendmsg([b"+"], rights)
        except OSError as error:
            raise IsolationFault("the fork server does not listen") from error

    def abandon(self) -> None:
        """Lets go of it: it ends by itself when it hears nobody."""
        self._control.close()


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


_current: _Server | None = None
_starting = threading.Lock()


def _server() -> _Server:
    global _current
    with _starting:
        if _current is None or not _current.alive():
            if _current is not None:
                _current.abandon()
            _current = _Server()
        return _current
