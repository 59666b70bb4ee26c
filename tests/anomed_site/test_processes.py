"""The supervisor's own doings, with real clusters: those that come and go with hosts of other machines."""

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.conf import settings

from anomed_site import heartbeat
from anomed_site.processes import Supervisor


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    """One that has not started anything yet. Its clusters find no tables, which they survive."""
    supervisor = Supervisor(host="127.0.0.1", port=9)
    supervisor.logs.mkdir(parents=True, exist_ok=True)
    yield supervisor
    for process in [*supervisor.processes, *supervisor._leaving]:
        process.kill()
        heartbeat.end(process.name)


def test_archives_of_strangers_are_checked_apart_from_the_reaper(supervisor):
    """Two that take as long as they may would keep both workers of `web` for ten minutes; then no host takes runs."""
    [checks] = [process for process in supervisor.processes if process.name == "checks"]
    supervisor._start(checks)
    sign = heartbeat.folder_of("checks") / heartbeat.SENTINEL
    begun = sign.stat().st_mtime
    until(lambda: sign.stat().st_mtime > begun)
    assert not settings.Q_CLUSTER["ALT_CLUSTERS"]["checks"]["scheduler"]  # or each round would come twice


def test_each_host_of_another_machine_brings_a_cluster_and_takes_it_along(supervisor):
    before = list(supervisor.processes)
    supervisor._elsewhere = {"node2": 1, "without-slots": 0}
    supervisor._follow_hosts()
    [cluster] = [process for process in supervisor.processes if process not in before]
    assert (cluster.name, cluster.workers) == ("runs-node2", 1)
    sign = heartbeat.folder_of("runs-node2") / heartbeat.SENTINEL
    begun = sign.stat().st_mtime
    until(lambda: sign.stat().st_mtime > begun)  # under its own name, though it serves the common queue
    assert "runs-node2" in heartbeat.expected()
    supervisor._follow_hosts()
    assert supervisor.processes == [*before, cluster]

    supervisor._elsewhere = {"node2": 2}
    supervisor._follow_hosts()
    [larger] = [process for process in supervisor.processes if process not in before]
    assert (larger.name, larger.workers) == ("runs-node2", 2)
    until(lambda: not cluster.alive)

    supervisor._elsewhere = {}
    supervisor._follow_hosts()
    assert supervisor.processes == before
    until(lambda: not larger.alive)
    supervisor._follow_hosts()
    assert "runs-node2" not in heartbeat.expected()


_STARTS_AND_WAITS = """
import sys, time
from pathlib import Path
from anomed_site.processes import Process
process = Process("sleep", ["sleep", "600"])
process.start(Path("/dev/null"))
print(process.popen.pid, flush=True)
time.sleep(600)
"""


def test_who_loses_its_supervisor_ends():
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "anomed_site.settings"}
    command = [sys.executable, "-c", f"import django; django.setup(){_STARTS_AND_WAITS}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as supervisor:
        assert supervisor.stdout is not None
        child = Path("/proc", supervisor.stdout.readline().strip())
        until(lambda: (child / "comm").read_text() == "sleep\n")
        supervisor.kill()
    until(lambda: not child.exists() or ") Z " in (child / "stat").read_text(), 30)


def test_a_disk_without_room_ends_no_process_that_lives(supervisor, monkeypatch):
    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    [_site, web, *_others] = supervisor.processes
    supervisor.processes = [web]
    with monkeypatch.context() as disk:
        disk.setattr(heartbeat, "begin", full)
        supervisor.mind()
    assert web.popen is None
    supervisor.mind()  # there is room again
    assert web.alive
