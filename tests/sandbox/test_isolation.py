"""Children that read hostile bytes: what comes back, and what does not."""

import os
import signal
import threading
import time

import hostile_readers
import pytest
from django.db import connection

from sandbox import isolation
from sandbox.isolation import IsolationFault
from sandbox.reasons import Reason, Rejected


def test_result():
    assert isolation.call(hostile_readers.add, 1, 2) == 3


def test_large_arguments():
    assert isolation.call(hostile_readers.add, "x" * 5_000_000, "y") == "x" * 5_000_000 + "y"


def test_a_call_is_quick_after_the_first():
    isolation.call(hostile_readers.add, 1, 2)
    begun = time.perf_counter()
    for _ in range(10):
        isolation.call(hostile_readers.add, 1, 2)
    assert (time.perf_counter() - begun) / 10 < 0.2


def test_from_several_threads():
    answers = {}

    def ask(number: int) -> None:
        answers[number] = isolation.call(hostile_readers.add, number, 1)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: number + 1 for number in range(8)}


def test_no_secrets_and_no_database(db, monkeypatch):
    connection.ensure_connection()
    monkeypatch.setenv("SECRET_KEY", "canary")
    names = isolation.call(hostile_readers.environment)
    assert not [name for name in names if "SECRET" in name or name.startswith(("DJANGO", "ANOMED", "DATABASE"))]
    assert isolation.call(hostile_readers.loaded, "django.conf") in (True, False)
    assert not isolation.call(hostile_readers.loaded, "anomed_site.settings")
    assert not [name for name in isolation.call(hostile_readers.open_files) if "sqlite" in name]


def test_rejection_comes_back_as_it_is():
    with pytest.raises(Rejected, match="There is no answer") as caught:
        isolation.call(hostile_readers.reject)
    assert caught.value.reason == Reason.OUTPUT_MISSING


@pytest.mark.parametrize(
    "function",
    [
        hostile_readers.break_down,
        hostile_readers.sleep,
        hostile_readers.spin,
        hostile_readers.eat,
        hostile_readers.allocate,
        hostile_readers.die,
        hostile_readers.talk,
    ],
)
def test_every_other_end_is_a_rejection(function):
    begun = time.monotonic()
    with pytest.raises(Rejected) as caught:
        isolation.call(function, seconds=1, memory_mb=256, reason=Reason.IMAGE_INVALID)
    assert caught.value.reason == Reason.IMAGE_INVALID
    assert "secret content" not in caught.value.detail
    assert time.monotonic() - begun < 10
    assert isolation.call(hostile_readers.add, 1, 2) == 3


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (hostile_readers.spin, "time"),
        (hostile_readers.sleep, "time"),
        (hostile_readers.allocate, "memory"),
        (hostile_readers.die, "died"),
        (hostile_readers.break_down, "error"),
    ],
)
def test_whoever_asks_learns_how_it_ended(function, kind):
    with pytest.raises(isolation.Broken) as caught:
        isolation.ask(function, seconds=2, memory_mb=256)
    assert caught.value.kind == kind


@pytest.mark.parametrize("function", [hostile_readers.not_json, hostile_readers.not_a_number])
def test_result_that_is_not_json_is_our_fault(function):
    with pytest.raises(IsolationFault):
        isolation.call(function)


def test_server_that_dies_is_started_anew():
    isolation.call(hostile_readers.add, 1, 2)
    server = isolation._server()
    os.kill(server._process.pid, signal.SIGKILL)
    server._process.wait()
    assert isolation.call(hostile_readers.add, 1, 2) == 3
