"""What goes on although a worker, the engine, the database or the disk does not."""

import errno
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.utils import timezone
from patience import until

from sandbox import adoption, chambers, leases, reaper, troubles, wakeups, worker
from sandbox.engine import RUN, Engine, labels_of
from sandbox.hosts import engine_of
from sandbox.models import Host, Run, Slot
from sandbox.reasons import Reason
from sandbox.supply import supply
from sandbox.workers import worker_name
from tests.engines import SpareEngine

ANSWER = "echo yes > /output/answer.txt"
DEAD = worker_name().rpartition(":")[0] + ":1"  # this process id, but born at another time


@pytest.fixture(autouse=True)
def swept(leaves_nothing: None, host: Host) -> Iterator[None]:
    """What killed workers left goes with the reaper's next round."""
    yield
    chambers.close()
    reaper.sweep()


def container_of(engine: Engine, run: Run) -> dict[str, Any] | None:
    return next((found for found in engine.containers(**{RUN: str(run.pk)}) if found["State"] == "running"), None)


@pytest.fixture
def killed_under_way(
    queue: Callable[..., Run],
    engine: Engine,
    start_worker: Callable[[], "subprocess.Popen[str]"],
) -> Callable[..., tuple[Run, dict[str, Any]]]:
    """A run whose worker was killed while its container was at work; and that container."""

    def killed_under_way(script: str, **more: Any) -> tuple[Run, dict[str, Any]]:
        run = queue(script, **more)
        process = start_worker()
        container = until(lambda: container_of(engine, run), 60)
        process.send_signal(signal.SIGKILL)
        process.wait()
        return run, container

    return killed_under_way


class TestAdoption:
    def test_container_goes_on_and_is_taken_over(self, killed_under_way, engine, questions):
        began = time.monotonic()
        run, _container = killed_under_way(f"sleep 5; cat /input/task.json; {ANSWER}")
        assert worker.work() == 1
        assert time.monotonic() - began < 60
        run.refresh_from_db()
        assert (run.state, run.attempt, run.lost_leases) == (Run.State.SUCCEEDED, 2, 1), run.detail
        assert run.seconds > 4.5  # of the one container that there was
        assert "create" not in run.timings
        assert run.log_path.read_text() == '{"step": "attack"}'
        assert Run.objects.filter(owner=str(run.pk)).count() == 1
        assert not Slot.objects.exclude(run=None).exists()

    def test_twice(self, killed_under_way, engine, start_worker):
        """The second worker adopts it and dies as well; the reaper comes by in between and leaves it alone."""
        run, _container = killed_under_way(f"sleep 12; {ANSWER}")
        second = start_worker()
        until(lambda: engine.containers(**{RUN: str(run.pk)})[0]["Labels"]["anomed.attempt"] == "2", 60)
        reaper.sweep()
        second.send_signal(signal.SIGKILL)
        second.wait()
        reaper.sweep()
        assert worker.work() == 1
        run.refresh_from_db()
        assert (run.state, run.attempt, run.lost_leases) == (Run.State.SUCCEEDED, 3, 2), run.detail
        assert run.seconds > 11

    def test_time_limit_counts_from_the_start(self, killed_under_way):
        run, _container = killed_under_way("sleep 60", limits={"seconds": 6})
        time.sleep(3)
        began = time.monotonic()
        assert worker.work() == 1
        assert time.monotonic() - began < 6
        run.refresh_from_db()
        assert (run.reason, run.attempt) == (Reason.TIMEOUT, 2)
        assert run.seconds < 10

    def test_one_that_ended_by_itself_but_too_late(self, killed_under_way, engine):
        run, _container = killed_under_way(f"sleep 5; {ANSWER}", limits={"seconds": 3})
        until(lambda: container_of(engine, run) is None, 30)
        assert worker.work() == 1
        run.refresh_from_db()
        assert (run.reason, run.attempt) == (Reason.TIMEOUT, 2)

    def test_one_that_ended_meanwhile(self, killed_under_way, engine):
        run, _container = killed_under_way(f"sleep 2; {ANSWER}; exit 0")
        until(lambda: container_of(engine, run) is None, 30)
        assert worker.work() == 1
        run.refresh_from_db()
        assert (run.state, run.attempt) == (Run.State.SUCCEEDED, 2)
        assert run.seconds > 1.5

    @pytest.mark.parametrize("unsound", ["killed", "holder dead", "other options", "worker alive"])
    def test_unsound_ones_are_removed_and_the_run_begins_anew(self, killed_under_way, engine, monkeypatch, unsound):
        run, container = killed_under_way(f"sleep 4; {ANSWER}")
        if unsound == "killed":
            engine.kill(container["Id"])
        elif unsound == "holder dead":
            engine.kill(next(found["Id"] for found in engine.containers() if RUN not in found["Labels"]))
        elif unsound == "other options":
            Run.objects.filter(pk=run.pk).update(limits=run.limits | {"pids": 63})
        else:  # at least not certainly dead
            monkeypatch.setattr(adoption, "worker_is_gone", lambda name: None)
            Run.objects.filter(pk=run.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
        assert worker.work() == 1
        run.refresh_from_db()
        assert (run.state, run.attempt, run.faults) == (Run.State.SUCCEEDED, 2, 0), run.detail
        assert run.timings["create"] > 0

    def test_created_but_never_started(self, queue, engine):
        """Its inputs may be half there."""
        run = queue(ANSWER)
        claimed = leases.claim(DEAD)
        attempt = worker.Attempt(claimed)
        [chamber] = engine.prepare("half", 8, DEAD, 1)
        supply(claimed.host, run.image)
        config = attempt._config(chamber)
        engine.create(config, labels_of(str(run.pk), 1, DEAD, chamber, config))
        assert worker.work() == 1
        run.refresh_from_db()
        assert (run.state, run.attempt) == (Run.State.SUCCEEDED, 2)
        assert run.timings["create"] > 0


class TestTroublesThatPass:
    @pytest.mark.parametrize("where", ["inputs", "judge"])
    def test_full_disk_costs_a_run_nothing(self, queue, questions, where):
        """However often it is met: it is no fault of the run."""
        full = iter(range(5))
        honest = getattr(questions, "write_inputs" if where == "inputs" else "judge")

        def write(*args: Any) -> Any:
            for _ in full:
                raise OSError(errno.ENOSPC, "no space left")
            return honest(*args)

        setattr(questions, "write_inputs" if where == "inputs" else "judge", write)
        run = queue(ANSWER)
        worker.work()
        run.refresh_from_db()
        assert (run.state, run.faults, run.attempt) == (Run.State.SUCCEEDED, 0, 6)
        assert len(questions.settled) == 1

    def test_books_that_are_closed_for_a_while(self, run, questions, monkeypatch):
        """The verdict is written down when they open again; nothing is run twice."""
        closed = iter(range(4))
        honest = questions.settle

        def settle(*args: Any) -> None:
            for _ in closed:
                raise OperationalError("the server closed the connection unexpectedly")
            honest(*args)

        questions.settle = settle
        monkeypatch.setattr(troubles, "PAUSE", 0.1)
        ended = run(ANSWER)
        assert (ended.state, ended.attempt, ended.faults) == (Run.State.SUCCEEDED, 1, 0)
        assert (ended.result_folder / "answer.txt").read_text() == "yes"  # though it was moved by the first try
        assert ended.log_path.exists()
        assert len(questions.settled) == 1

    def test_books_that_stay_closed(self, queue, questions, settings, monkeypatch):
        """The worker lives; the run is somebody's when its lease has ended."""
        settings.SANDBOX = {"lease_seconds": 2, "renew_seconds": 0.2}
        run = queue(ANSWER)
        claimed = leases.claim(worker_name())

        def closed(*args: Any, **more: Any) -> bool:
            raise OperationalError("no connection")

        with monkeypatch.context() as patch:
            for name in ("finish", "give_back", "renew"):
                patch.setattr(leases, name, closed)
            worker.drive(claimed)
        until(lambda: worker.work(), 20)
        run.refresh_from_db()
        assert (run.state, run.attempt, run.faults) == (Run.State.SUCCEEDED, 2, 0)
        assert len(questions.settled) == 1

    def test_mistakes_do_not_pass(self):
        with pytest.raises(OperationalError) as caught, connection.cursor() as cursor:
            cursor.execute("select nothing from sandbox_run")
        assert not troubles.will_pass(caught.value)
        full = OperationalError("database or disk is full")
        full.__cause__ = sqlite3.OperationalError("database or disk is full")
        full.__cause__.sqlite_errorname = "SQLITE_FULL"
        assert troubles.will_pass(full)
        assert not troubles.will_pass(OSError(errno.ENOENT, "no such file"))


class TestEngine:
    def test_chambers_without_their_holder_are_not_used(self, run, engine):
        """As after a restart of the engine while the worker was idle."""
        assert run(ANSWER).state == Run.State.SUCCEEDED
        for found in engine.containers():
            engine.kill(found["Id"])
        ended = run(ANSWER)
        assert (ended.state, ended.attempt) == (Run.State.SUCCEEDED, 1)

    @pytest.fixture
    def spare(self, host):
        """An engine that may be killed, as the only host."""
        with SpareEngine("chaos70", 70, config={"live-restore": True}) as spare:
            Host.objects.filter(pk=host.pk).update(url=spare.url)
            yield spare
            chambers.close()
            host.refresh_from_db()
            reaper.sweep_engine(engine_of(host), everything=True)

    @pytest.mark.parametrize("containers_survive", [True, False])
    def test_engine_is_killed_and_comes_back(self, spare, host, queue, questions, containers_survive):
        run = queue(f"sleep 6; {ANSWER}")
        host.refresh_from_db()
        thread = threading.Thread(target=lambda: (worker.work(), chambers.close(), connection.close()))
        thread.start()
        until(lambda: container_of(engine_of(host), run), 60)
        spare.kill()
        if not containers_survive:
            spare.config = {}
        spare.start()
        thread.join(60)
        assert not thread.is_alive()
        run.refresh_from_db()
        assert (run.state, run.faults) == (Run.State.SUCCEEDED, 0), run.detail
        # engines before 23 lose sight of the outputs of containers that survive; none may blame the participant
        assert run.attempt <= 3
        assert len(questions.settled) == 1

    def test_engine_that_is_away_for_long_is_no_fault_of_the_run(self, spare, host, queue, questions, settings):
        settings.SANDBOX = {"engine_patience": 1}
        run = queue(f"sleep 3; {ANSWER}")
        host.refresh_from_db()
        until(engine_of(host).answers)
        thread = threading.Thread(target=lambda: (worker.work(), chambers.close(), connection.close()))
        thread.start()
        until(lambda: container_of(engine_of(host), run), 60)
        spare.kill()
        thread.join(30)
        run.refresh_from_db()
        assert (run.state, run.faults) == (Run.State.QUEUED, 0)
        wakeups.tick()
        assert leases.claim("me") is None  # the host is left alone
        spare.start()
        wakeups.tick()
        assert worker.work() == 1
        run.refresh_from_db()
        assert (run.state, run.faults, run.attempt) == (Run.State.SUCCEEDED, 0, 2)
