"""Troubles of the platform that pass by themselves and are no fault of any run: no database, no room on the disk."""

import errno
import sqlite3
import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from django.db import InterfaceError, OperationalError, connection

from sandbox.isolation import IsolationFault

log = structlog.get_logger(__name__)

T = TypeVar("T")

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
PAUSE = 0.5


def will_pass(error: BaseException | None) -> bool:
    """Whether the same may well succeed in a while, without anything having been mended."""
    if isinstance(error, OperationalError):
        cause = error.__cause__
        # SQLite calls a column that does not exist an operational error too
        return not isinstance(cause, sqlite3.Error) or cause.sqlite_errorname != "SQLITE_ERROR"
    if isinstance(error, OSError):
        return error.errno in NO_ROOM
    if isinstance(error, IsolationFault):
        return str(error) in {f"OSError {number}" for number in NO_ROOM}
    return isinstance(error, InterfaceError)


def insist(write: Callable[[], T], *, while_: Callable[[], bool]) -> T:
    """Calls it again and again while such a trouble lasts and `while_` is true. It must be all or nothing."""
    while True:
        try:
            return write()
        except Exception as error:
            if not will_pass(error) or not while_():
                raise
            log.warning("books.closed", error=type(error).__name__)
            connection.close()
            time.sleep(PAUSE)
