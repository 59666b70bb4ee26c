"""Signs of life of the clusters on this machine.

Of a cluster two things must go on. Its sentinel starts dead workers again: it reports twice a second, through the
broker. And work must get from the pusher to a worker and from there to the monitor: the pusher slips a beat among the
messages every few seconds, and the monitor marks it; workers that are busy say so themselves. A worker killed while it
held the lock of the queue stops exactly that, for all of them and without a word.

Each sign is the age of a file in a folder of the cluster's own. Nothing here needs the database.
"""

import contextlib
import os
import re
import shutil
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection
from django.utils import timezone
from django_q.brokers.orm import ORM
from django_q.conf import Conf
from django_q.signing import SignedPackage

BEAT_SECONDS = 5.0
PAUSE = 1.0  # of the pusher, while the database is away

NAME = "ANOMED_CLUSTER"  # in the environment of a cluster: what it is called here
SENTINEL, BEAT, BUSY = "sentinel", "beat", "busy-"


def folder_of(cluster: str) -> Path:
    """Where the cluster of that name on this machine leaves its signs. Machines may share the disk."""
    machine = re.sub(r"[^\w.-]", "_", socket.gethostname())
    return Path(settings.VAR) / "beats" / f"{cluster}@{machine}"


def begin(cluster: str, workers: int) -> None:
    """Expects signs of life of that cluster from now on."""
    end(cluster)
    folder = folder_of(cluster)
    folder.mkdir(mode=0o700, parents=True)
    (folder / "workers").write_text(str(workers))
    for name in (SENTINEL, BEAT):
        (folder / name).touch()


def end(cluster: str) -> None:
    """Expects none any more."""
    shutil.rmtree(folder_of(cluster), ignore_errors=True)


def expected() -> list[str]:
    """The clusters that should be alive on this machine."""
    ending = folder_of("").name
    return sorted(path.name.removesuffix(ending) for path in folder_of("").parent.glob(f"*{ending}"))


@dataclass(frozen=True)
class Signs:
    """Seconds since each sign of a cluster: of its sentinel; of work that gets through to its workers."""

    sentinel: float
    work: float

    @property
    def silent(self) -> float:
        """For how long the cluster has not been quite alive."""
        return max(self.sentinel, self.work)


def signs(cluster: str) -> Signs:
    """How long ago the cluster gave its last signs; infinity if it never was begun."""
    folder = folder_of(cluster)
    now = time.time()
    ages = {}
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            with contextlib.suppress(OSError):
                ages[path.name] = max(0.0, now - path.stat().st_mtime)
    work = ages.get(BEAT, float("inf"))
    with contextlib.suppress(OSError, ValueError):
        # with every worker busy nobody is free for a beat: then it is as old as the oldest that belongs to them
        busy = sorted(age for name, age in ages.items() if name.startswith(BUSY))
        workers = int((folder / "workers").read_text())
        if len(busy) >= workers:
            work = min(work, busy[workers - 1])
    return Signs(ages.get(SENTINEL, float("inf")), work)


def _own() -> str:
    """The name of the cluster that this process belongs to. Several may work on the same queue."""
    return os.environ.get(NAME) or str(Conf.CLUSTER_NAME)


def _mark(name: str) -> None:
    with contextlib.suppress(OSError):  # the disk is full, or nobody expects signs
        os.utime(folder_of(_own()) / name)


def beat() -> None:
    """What a worker does with a beat: to hand it on is all that it takes."""


class Broker(ORM):  # type: ignore[misc]
    """The database as the queue, with signs of life; survives its absence."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._beaten = 0.0

    def dequeue(self) -> Any:
        """As the pusher calls it, a few times a second."""
        if time.monotonic() - self._beaten > BEAT_SECONDS:
            self._beaten = time.monotonic()
            return [(BEAT, _beat_package())]
        try:
            return super().dequeue()
        except (DatabaseError, InterfaceError):  # else the pusher would leave, and be missed for ten seconds
            connection.close()
            time.sleep(PAUSE)
            return None

    def acknowledge(self, task_id: Any) -> None:
        """As the monitor calls it when a worker is done with a message."""
        if task_id == BEAT:
            _mark(BEAT)
        else:
            super().acknowledge(task_id)

    def set_stat(self, key: str, value: str, timeout: int) -> None:
        """As the sentinel calls it in each of its rounds."""
        _mark(SENTINEL)


def _beat_package() -> str:
    """A message that never was in the database, and leaves nothing there."""
    name = f"{__name__}.beat"
    task = {"id": os.urandom(16).hex(), "name": "beat", "func": name, "args": (), "kwargs": {}, "save": False}
    return str(SignedPackage.dumps({**task, "started": timezone.now(), "ack_failure": True}))


class _Busy:
    """Says of this worker process that it lives while it works on something, from a thread beside the work."""

    def __init__(self) -> None:
        self._working = threading.Event()
        self._process = 0

    def begin(self, **kwargs: Any) -> None:
        if self._process != os.getpid():
            self._process = os.getpid()
            _forget_the_dead()
            threading.Thread(target=self._say, name="busy", daemon=True).start()
        self._working.set()

    def end(self, **kwargs: Any) -> None:
        self._working.clear()

    def _say(self) -> None:
        path = folder_of(_own()) / f"{BUSY}{os.getpid()}"
        while self._working.wait():
            with contextlib.suppress(OSError):
                if path.parent.exists():
                    path.touch()
            time.sleep(BEAT_SECONDS)


def _forget_the_dead() -> None:
    for path in folder_of(_own()).glob(f"{BUSY}*"):
        if not Path("/proc", path.name.removeprefix(BUSY)).exists():
            path.unlink(missing_ok=True)


busy = _Busy()
