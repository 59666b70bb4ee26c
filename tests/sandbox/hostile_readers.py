"""Functions to be called in isolated children: an honest reader, and what hostile bytes can make a reader do."""

import mmap
import os
import socket
import time
from pathlib import Path
from typing import Any

from sandbox.reasons import Reason, Rejected


def read_answer(collected: str, result: str) -> dict[str, Any]:
    """Reads answer.txt, the one output that most tests ask for."""
    text = (Path(collected) / "answer.txt").read_text()
    if "wrong" in text:
        raise Rejected(Reason.OUTPUT_INVALID, "The answer is wrong.")
    (Path(result) / "answer.txt").write_text(text.strip())
    return {"length": len(text.strip())}


def add(one: int, two: int) -> int:
    return one + two


def environment() -> dict[str, str]:
    return dict(os.environ)


def loaded(module: str) -> bool:
    import sys

    return module in sys.modules


def reject() -> None:
    raise Rejected(Reason.OUTPUT_MISSING, "There is no answer.")


def break_down() -> None:
    raise ZeroDivisionError("secret content")


def sleep() -> None:
    time.sleep(60)


def spin() -> None:
    while True:
        pass


def eat() -> int:
    return len(mmap.mmap(-1, 8 << 30))


def allocate() -> int:
    return len(bytearray(8 << 30))


def die() -> None:
    os.kill(os.getpid(), 11)


def talk() -> str:
    return "x" * (40 << 20)


def not_json() -> object:
    return object()


def not_a_number() -> float:
    return float("nan")


def open_files() -> list[str]:
    return [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.exists()]


def open_socket() -> None:
    socket.socket(socket.AF_INET).connect(("127.0.0.1", 9))
