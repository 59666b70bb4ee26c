"""Resumable upload, the participants' side of tus 1.0: HEAD tells the offset, PATCH sends the next chunk from there."""

import random
import time
from collections.abc import Callable, Iterator
from typing import IO

from anomed.api import Api
from anomed.problems import Problem, Refused, Unreachable

CHUNK = 16 << 20
PIECE = 1 << 18  # what is read and counted at a time
TRIES = 8  # in a row without a byte of progress; with the pauses below about two minutes
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
PROTOCOL = {"Tus-Resumable": "1.0.0"}


def send(
    api: Api,
    url: str,
    file: IO[bytes],
    size: int,
    *,
    seen: Callable[[int], None],
    chunk: int = CHUNK,
    tries: int = TRIES,
) -> None:
    """Sends what the server lacks of the file's `size` bytes; `seen(offset)` is told how far it is.

    A broken connection or a busy server is tried again with growing pauses. Raises Unreachable after `tries` times
    without progress.
    """
    offset: int | None = None
    best, failures = -1, 0
    while True:
        try:
            if offset is None:
                offset = _offset(api, url)
            if offset > best:
                best, failures = offset, 0
            seen(offset)
            if offset >= size:
                return
            offset = _patch(api, url, file, offset, min(chunk, size - offset), seen)
        except (Unreachable, Refused) as problem:
            if isinstance(problem, Refused) and not problem.passing:
                raise
            failures += 1
            if failures > tries:
                raise Unreachable(f"The upload stopped after {best if best > 0 else 0} bytes. {problem}") from problem
            time.sleep(_pause(failures, problem))
            offset = None


def _offset(api: Api, url: str) -> int:
    return _header(api.request("HEAD", url, headers=PROTOCOL).headers.get("Upload-Offset"))


def _patch(api: Api, url: str, file: IO[bytes], offset: int, length: int, seen: Callable[[int], None]) -> int:
    headers = PROTOCOL | {
        "Content-Type": "application/offset+octet-stream",
        "Content-Length": str(length),
        "Upload-Offset": str(offset),
    }
    response = api.request("PATCH", url, headers=headers, content=_pieces(file, offset, length, seen))
    return _header(response.headers.get("Upload-Offset"))


def _pieces(file: IO[bytes], offset: int, length: int, seen: Callable[[int], None]) -> Iterator[bytes]:
    file.seek(offset)
    end = offset + length
    while offset < end:
        piece = file.read(min(PIECE, end - offset))
        if not piece:
            raise Problem("The archive became shorter while it was being sent. Submit it anew.")
        yield piece
        offset += len(piece)
        seen(offset)


def _header(value: str | None) -> int:
    if value is None or not value.isdecimal():
        raise Problem(
            "The server's upload does not speak tus 1.0 (no Upload-Offset). Is there a proxy that changes it?"
        )
    return int(value)


def _pause(failures: int, problem: Problem) -> float:
    """Seconds: what the server asks for, else doubling, spread a little so that not all clients come back at once."""
    if isinstance(problem, Refused) and problem.retry_after is not None:
        return min(problem.retry_after, LONGEST_PAUSE)
    return min(FIRST_PAUSE * 2.0 ** (failures - 1), LONGEST_PAUSE) * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
