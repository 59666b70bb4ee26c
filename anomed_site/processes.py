"""Starting and minding the server's own processes: the site, the two clusters and the registry, on one machine."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import structlog
from django.conf import settings
from django.db import connection

from anomed_site import heartbeat
from sandbox import hosts, reaper, wakeups
from submissions import reckoning
from submissions.registry import conf as registry

log = structlog.get_logger("processes")

# A cluster that is told to stop first finishes the run that is under way; after this it is ended.
_STOP_SECONDS = 15.0
_RESTART_PAUSE = 1.0
_TICK = 3.0
# A cluster that gives no sign of life for so long, and still none after the second look, is started anew: together
# less than a minute. The second look is for clocks that were set and machines that were asleep.
_MOST_SILENT = 20.0
_SECOND_LOOK = 10.0
_FIRST_SIGN = 45.0  # after its start, which takes a while


@dataclass
class Process:
    """A command in a process group of its own, so that it can be ended with all its children."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    workers: int = 0  # of a cluster, which has to give signs of life
    popen: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    awake: bool = False  # whether it has given a sign of life since
    silent_since: float | None = None

    def start(self, output: Path) -> None:
        if self.workers:
            heartbeat.begin(self.name, self.workers)
        self.awake, self.silent_since = False, None
        with output.open("ab") as stream:
            self.popen = subprocess.Popen(
                # should the supervisor be killed, it stops in order: the next one would not know of it
                ["setpriv", "--pdeathsig", "TERM", "--", *self.command],
                env={**os.environ, heartbeat.NAME: self.name, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        self.started = time.monotonic()

    @property
    def alive(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    @property
    def status(self) -> int | None:
        return self.popen.returncode if self.popen else None

    @property
    def hangs(self) -> bool:
        """Whether it has given no sign of life for too long, seen twice."""
        if not self.workers:
            return False
        silent = heartbeat.signs(self.name).silent
        self.awake = self.awake or silent < time.monotonic() - self.started - 1
        if silent < (_MOST_SILENT if self.awake else _FIRST_SIGN):
            self.silent_since = None
            return False
        if self.silent_since is None:
            self.silent_since = time.monotonic()
        return time.monotonic() - self.silent_since > _SECOND_LOOK

    def signal(self, number: signal.Signals) -> None:
        """Signals the leader to stop in order, and the whole group to end at once."""
        if self.popen is None:
            return
        try:
            if number == signal.SIGKILL:
                os.killpg(self.popen.pid, number)
            else:
                self.popen.send_signal(number)
        except ProcessLookupError:
            pass

    def kill(self) -> None:
        """Ends it with all its children, also those that outlived their leader."""
        self.signal(signal.SIGKILL)
        if self.popen is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(_RESTART_PAUSE)


def _drivers(name: str, workers: int) -> Process:
    """A cluster of workers that drive runs."""
    command = [sys.executable, str(settings.BASE_DIR / "manage.py"), "qcluster"]
    return Process(name, command, {"Q_CLUSTER_NAME": "runs", "ANOMED_RUN_WORKERS": str(workers)}, workers)


class Supervisor:
    """Keeps site and the clusters `web`, `checks` and `runs` alive until it is left. Use as a context manager."""

    def __init__(self, *, host: str, port: int) -> None:
        python = sys.executable
        manage = str(settings.BASE_DIR / "manage.py")
        site = [python, "-m", "uvicorn", "anomed_site.asgi:application", "--host", host, "--port", str(port)]
        site += ["--no-access-log", "--timeout-graceful-shutdown", "3", "--no-server-header"]
        self.logs = Path(settings.VAR) / "logs"
        self._done = threading.Event()
        self._ticking = threading.Thread(target=self._tick, name="ticking", daemon=True)
        self.processes = [
            Process("site", site),
            Process("web", [python, manage, "qcluster"], {"Q_CLUSTER_NAME": "web"}, settings.WEB_WORKERS),
            Process("checks", [python, manage, "qcluster"], {"Q_CLUSTER_NAME": "checks"}, settings.CHECK_WORKERS),
            _drivers("runs", settings.RUN_SLOTS + 1),  # see sandbox.worker.work
        ]
        self._elsewhere: dict[str, int] = {}  # hosts of other machines, with their slots
        self._leaving: list[Process] = []
        if registry.enabled():
            self.processes.append(Process("registry", [python, manage, "registry"]))

    def __enter__(self) -> Self:
        self.logs.mkdir(parents=True, exist_ok=True)
        for process in self.processes:
            self._start(process)
        self._ticking.start()
        return self

    def mind(self) -> None:
        """Starts again what has ended or hangs, and keeps a worker for each slot. Call it about once a second."""
        self._follow_hosts()
        for process in self.processes:
            if time.monotonic() - process.started < _RESTART_PAUSE:
                continue
            if process.alive and not process.hangs:
                continue
            ending = {"hangs": vars(heartbeat.signs(process.name))} if process.alive else {"status": process.status}
            log.warning("process_ended", process=process.name, **ending)
            process.kill()
            self._start(process)

    def _follow_hosts(self) -> None:
        """Each host of another machine has a cluster of its own, which comes and goes with it.

        Its workers drive any run, not only those of that host.
        """
        wanted = {f"runs-{name}": slots for name, slots in self._elsewhere.items() if slots}
        for process in [found for found in self.processes if found.name.startswith("runs-")]:
            if wanted.get(process.name) == process.workers:
                del wanted[process.name]
                continue
            self.processes.remove(process)  # its host is gone, or has other slots now
            self._leaving.append(process)
            process.signal(signal.SIGTERM)  # what it drives it drives to its end
        for name, workers in wanted.items():
            process = _drivers(name, workers)
            self.processes.append(process)
            self._start(process)
        for process in [found for found in self._leaving if not found.alive]:
            self._leaving.remove(process)
            if process.name not in {found.name for found in self.processes}:
                heartbeat.end(process.name)

    def __exit__(self, *_exception: object) -> None:
        self._done.set()
        self.processes += self._leaving
        for process in self.processes:
            process.signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        while any(process.alive for process in self.processes) and time.monotonic() < deadline:
            time.sleep(0.1)
        for process in self.processes:
            process.kill()
            heartbeat.end(process.name)
        self._ticking.join(_STOP_SECONDS)
        # No worker is left: what one of them could not take away goes now, its runs are done again next time.
        for host, fault in reaper.leave().items():
            log.warning("engine_not_cleaned", host=host, fault=fault)

    def _tick(self) -> None:
        """Beside the minding, which must not wait for a database or an engine."""
        while not self._done.wait(_TICK):
            try:
                wakeups.tick()
                self._elsewhere = hosts.slots_elsewhere()
                reckoning.tick()
            except Exception:
                log.warning("no_tick", exc_info=True)
        connection.close()

    def _start(self, process: Process) -> None:
        try:
            process.start(self.logs / f"{process.name}.log")
        except OSError as error:  # the disk is full, or no process can be made: those that live must not end for it
            log.warning("process_not_started", process=process.name, error=type(error).__name__)
