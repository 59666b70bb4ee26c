"""Writing what strangers send into /output, which holds only so much."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class NoRoom(Exception):
    """The place for what a stranger sends is full."""

    def __init__(self) -> None:
        super().__init__("there is no room for it")


def keep(pieces: Iterable[bytes | memoryview], target: Path) -> None:
    """Writes a file piece by piece; in the end it is there whole or not at all. Raises NoRoom."""
    target.parent.mkdir(exist_ok=True)
    try:
        with target.open("wb") as file:
            for piece in pieces:
                file.write(piece)
    except BaseException as error:
        target.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _FULL:
            raise NoRoom from error
        raise
