"""Starting and minding the registry: the room it takes, the garbage it leaves.

`garbage-collect` must not run beside a registry that takes pushes: a layer between its upload and its manifest would
be taken for garbage. So the registry is stopped for it: at each start, once a day while nobody pushes, and at once
when the room is used up.
"""

import os
import subprocess
import time
from typing import Self

import structlog
from django.conf import settings

from submissions.registry import conf, configuration, pushes, room

log = structlog.get_logger("registry")

_LOOK_SECONDS = 20.0  # between two looks at the room
_STOP_SECONDS = 10.0


class Keeper:
    """A registry in order, until it is left. Use as a context manager and call `mind` about once a second."""

    def __init__(self) -> None:
        self._config = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._cleaned = self._looked = 0.0

    def __enter__(self) -> Self:
        self._config = configuration.write()
        self._restart()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stop()

    def mind(self) -> None:
        """Looks after room and garbage now and then; starts a registry again that has ended."""
        now = time.monotonic()
        if self._process is not None and self._process.poll() is not None:
            log.error("registry_ended", status=self._process.returncode)
            self._process = None
            if now - self._cleaned > _LOOK_SECONDS:  # it had run well; else something is in its way, perhaps for long
                self._looked = -_LOOK_SECONDS
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        is_due = now - self._cleaned > conf.conf().clean_seconds
        if room.is_full() or self._process is None or (is_due and room.is_quiet()):
            self._restart()

    def _restart(self) -> None:
        """Cleans, and starts the registry if there is room for pushes; else a later look does."""
        self._stop()
        if room.is_full():
            log.error("registry_full", used=room.used_bytes())
            room.drop_uploads()
        self._collect_garbage()
        if room.is_full():
            for repository in pushes.let_go():
                room.drop_repository(repository)
            self._collect_garbage()
        self._cleaned = self._looked = time.monotonic()
        if room.is_full():
            log.error("registry_closed_for_lack_of_room", used=room.used_bytes())
        else:
            self._process = self._start("serve")

    def _collect_garbage(self) -> None:
        if not room.has_repositories():
            return
        if status := self._start("garbage-collect", "--delete-untagged").wait():
            log.error("registry_garbage_not_collected", status=status)
        room.drop_empty_repositories()

    def _start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        # The registry itself knows no bound on a layer; the kernel does.
        bound = ["prlimit", f"--fsize={settings.SANDBOX['max_archive_bytes']}"]
        return subprocess.Popen(
            [*bound, conf.PROGRAM, *arguments, self._config],
            stdin=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"]},  # none of REGISTRY_..., which would override the configuration
        )

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
