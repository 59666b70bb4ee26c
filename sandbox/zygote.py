"""The fork server behind `sandbox.isolation`: imports what its children need, then forks one for each request.

Run as `python -m sandbox.zygote FD MODULE...`. It is told nothing but file descriptors of channels; a child reads its
request from its channel, limits itself, calls the function and answers in JSON.
"""

import ctypes
import errno
import importlib
import json
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import traceback
from typing import Any

from sandbox.reasons import Rejected

MEGABYTE = 1 << 20
# no bytes cause these
OUR_TROUBLES = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES, errno.EMFILE)
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
MAX_FILE_BYTES = 32 << 30  # larger than any unpacked layer that the image check would go on writing


def main() -> None:
    """Serves until the caller hangs up."""
    control = socket.socket(fileno=int(sys.argv[1]))
    for module in sys.argv[2:]:
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children vanish by themselves
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        message, descriptors, _flags, _address = socket.recv_fds(control, 1, 1)
        if not message:
            return
        with socket.socket(fileno=descriptors[0]) as channel:
            if os.fork() == 0:
                control.close()
                _child(channel)


def _child(channel: socket.socket) -> None:
    """One request, one answer, and the end. Nothing may leave this function."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        channel.sendall(struct.pack("<I", os.getpid()))
        channel.sendall(_in_json(_answer(channel)))
        status = 0
    except BaseException:
        status = 1
    finally:
        os._exit(status)


def _answer(channel: socket.socket) -> tuple[str, Any]:
    try:
        function, args, seconds, memory_mb = pickle.loads(_request(channel))  # noqa: S301  written by our own parent
    except Exception as error:
        return "fault", f"{type(error).__name__}: {error}"
    try:
        _limit(seconds, memory_mb)
        return "result", function(*args)
    except Rejected as rejected:
        return "rejected", (str(rejected.reason), rejected.detail)
    except OSError as error:
        kind = "fault" if error.errno in OUR_TROUBLES else "error"
        return kind, f"OSError {error.errno}"
    except MemoryError:
        return "memory", "MemoryError"
    except Exception as error:
        # where it happened, but not its message: that may quote what was read
        place = traceback.extract_tb(error.__traceback__)[-1]
        return "error", f"{type(error).__name__} at {place.filename}:{place.lineno}"


def _in_json(answer: tuple[str, Any]) -> bytes:
    try:
        return json.dumps(answer, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        return json.dumps(("fault", f"the function's result is not JSON: {error}")).encode()


def _request(channel: socket.socket) -> bytes:
    (size,) = struct.unpack("<Q", _exactly(channel, 8))
    return _exactly(channel, size)


def _exactly(channel: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = channel.recv(min(MEGABYTE, size - len(data)))
        if not piece:
            raise EOFError("the caller hung up")
        data += piece
    return bytes(data)


def _limit(seconds: float, memory_mb: int) -> None:
    """The walls of the child. Memory counts on top of what the fork brought along."""
    ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    with open("/proc/self/statm") as file:  # noqa: PTH123  no more imports than needed
        here = int(file.read().split()[0]) * resource.getpagesize()
    memory = here + memory_mb * MEGABYTE
    cpu = int(seconds) + 1
    for kind, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_FSIZE, MAX_FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 256),
    ):
        resource.setrlimit(kind, (value, value))
    os.umask(0o077)


if __name__ == "__main__":
    main()
