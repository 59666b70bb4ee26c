"""Clusters that die or hang, and the supervisor that starts them again: an arena whose processes are ill-treated."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.arena import Arena, wait_for

pytestmark = pytest.mark.xdist_group("clusters")

SOON = 150  # a minute until it is noticed, and what a very busy machine needs on top


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    running = Arena(var=tmp_path_factory.mktemp("arena"))
    running.start()
    try:
        yield running
    finally:
        running.stop()


def titles(arena: Arena) -> dict[int, str]:
    """The processes of the `runs` cluster by what they say of themselves."""
    return {pid: Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace") for pid in arena.workers()}


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def leader(arena: Arena) -> int:
    """The process that the supervisor has started."""
    pids = arena.workers()
    return next(pid for pid in pids if parent(pid) not in pids)


def sentinel(arena: Arena) -> int:
    return next(pid for pid in arena.workers() if parent(pid) == leader(arena))


def children_of_the_sentinel(arena: Arena) -> list[int]:
    guard = sentinel(arena)
    return [pid for pid in arena.workers() if parent(pid) == guard]


def works(arena: Arena) -> bool:
    """Whether a wake-up is fetched and done with. One that a killed worker had stays in the books, locked."""

    def is_done_with() -> bool:
        before = arena.query("select coalesce(max(id), 0) from django_q_ormq")[0][0]
        arena.manage("shell", "-c", "from sandbox.tasks import send_wakeup; send_wakeup()")
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if not arena.query("select 1 from django_q_ormq where id > ?", before):
                return True
            time.sleep(0.2)
        return False

    return bool(wait_for(is_done_with, seconds=SOON, what="a wake-up is done with"))


def healthy(arena: Arena) -> bool:
    return httpx.get(f"{arena.url}/healthz", timeout=10).status_code == 200


def is_new(arena: Arena, old: int) -> bool:
    return not Path(f"/proc/{old}/stat").exists() and bool(arena.workers()) and leader(arena) != old


@pytest.mark.parametrize("frozen", ["the workers", "the sentinel"])
def test_cluster_that_stands_still_is_started_anew_within_a_minute(arena: Arena, frozen: str) -> None:
    wait_for(lambda: len(children_of_the_sentinel(arena)) >= 4, seconds=60, what="the cluster is there")
    assert works(arena)
    old = leader(arena)
    for pid in children_of_the_sentinel(arena) if frozen == "the workers" else [sentinel(arena)]:
        os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    wait_for(lambda: is_new(arena, old), seconds=SOON, what="it is started anew")
    assert time.monotonic() - began > 20  # what is only slow is given time
    assert works(arena)
    assert healthy(arena)


def test_killed_sentinel_leaves_no_orphans(arena: Arena) -> None:
    """Its workers would go on, side by side with those of the next."""
    wait_for(lambda: len(children_of_the_sentinel(arena)) >= 4, seconds=60, what="the cluster is there")
    old = arena.workers()
    os.kill(sentinel(arena), signal.SIGKILL)
    wait_for(lambda: not set(old) & set(arena.workers()) and arena.workers(), seconds=30, what="all are new")
    assert works(arena)


def test_queue_whose_lock_died_with_a_worker(arena: Arena) -> None:
    """Idle workers are killed until nothing gets through any more; nobody says a word, but the beats stop."""
    wait_for(lambda: len(children_of_the_sentinel(arena)) >= 4, seconds=60, what="the cluster is there")
    assert works(arena)
    old = leader(arena)
    for _ in range(2):
        for pid in children_of_the_sentinel(arena):
            os.kill(pid, signal.SIGKILL)
        time.sleep(1)
    killed = time.time()
    wait_for(lambda: is_new(arena, old) or _gets_through(arena, killed), seconds=SOON, what="it works again")
    assert works(arena)


def _gets_through(arena: Arena, since: float) -> bool:
    """Perhaps none of them held the lock: then there are beats."""
    beats = list((arena.var / "beats").glob("runs@*/beat"))
    return bool(beats) and beats[0].stat().st_mtime > since
