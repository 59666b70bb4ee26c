"""Exactly once: workers that race, are killed, lose their lease, or meet a cancelled run."""

import signal
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from patience import until

from sandbox import actions, chambers, leases, reaper, worker
from sandbox.engine import RUN, Chamber, Unreachable
from sandbox.models import Gpu, Host, Image, Run, Slot
from sandbox.reasons import Reason
from sandbox.workers import worker_name

ANSWER = "echo yes > /output/answer.txt"
DEAD = worker_name().rpartition(":")[0] + ":1"  # this process id, but born at another time


@pytest.fixture
def idle_image(transactional_db: None) -> Image:
    """An image that no test here starts."""
    return Image.objects.create(image_id="sha256:" + "0" * 64)


@pytest.fixture
def waiting(idle_image: Image) -> Callable[..., Run]:
    """A queued run that is only ever claimed."""

    def waiting(**fields: Any) -> Run:
        limits = fields.pop("limits", {})
        return Run.objects.create(
            **{
                "purpose": "questions",
                "step": "attack",
                "image": idle_image,
                "owner": "ada",
                "limits": limits,
                "gpus": limits.get("gpus", 0),
            }
            | fields
        )

    return waiting


def running_container(engine: Any, run: Run) -> Any:
    return next((found for found in engine.containers(**{RUN: str(run.pk)}) if found["State"] == "running"), None)


class TestOrder:
    def test_priority_then_fair_share_then_age(self, host, waiting):
        Slot.objects.create(host=host, number=3)
        Slot.objects.create(host=host, number=4)
        first = waiting(owner="ada")
        second = waiting(owner="ada")
        other = waiting(owner="ben")
        rehearsal = waiting(owner="ada", priority=10)
        assert [leases.claim("me") for _ in range(4)] == [rehearsal, other, first, second]
        assert leases.claim("me") is None

    def test_no_slot_no_claim(self, waiting, transactional_db):
        waiting()
        assert leases.claim("me") is None

    def test_draining_host_takes_nothing_new(self, host, waiting):
        waiting()
        Host.objects.update(state=Host.State.DRAINING)
        assert leases.claim("me") is None

    def test_runs_that_no_host_can_take_keep_nobody_waiting(self, host, waiting):
        """However many they are: more than are looked at in one go."""
        for _ in range(2 * leases.CANDIDATES + 1):
            waiting(walls=["userns"], priority=10)
        behind = waiting()
        assert leases.claim("me") == behind
        assert leases.claim("me") is None
        Host.objects.update(walls=["standard", "userns"])
        assert leases.claim("me").walls == ["userns"]

    def test_host_without_a_standard_protection_takes_no_run(self, host, waiting):
        """No rehearsal either: what breaks out of one waits on the host for the private data of others."""
        Host.objects.update(walls=["gvisor", "userns"])
        waiting(walls=["gvisor"])
        waiting(private=False, walls=["gvisor"])
        assert leases.claim("me") is None

    def test_gpus_are_leased_with_the_run(self, host, waiting):
        small = Gpu.objects.create(host=host, uuid="GPU-small", memory_mb=8000)
        large = Gpu.objects.create(host=host, uuid="GPU-large", memory_mb=40000)
        run = waiting(limits={"gpus": 1, "gpu_memory_mb": 16000})
        other = waiting(limits={"gpus": 1, "gpu_memory_mb": 16000})
        modest = waiting()

        claimed = leases.claim("me")
        assert claimed == run
        assert list(run.leased_gpus.all()) == [large]
        assert leases.claim("me") == modest  # the other one waits for the large GPU, and keeps nobody waiting
        leases.finish(claimed, reason=Reason.CRASHED)
        assert leases.claim("me") == other
        assert small.run is None


class TestRaces:
    def test_two_claimers_never_get_the_same(self, host, waiting):
        """Eight threads, each with its own connection, for two slots and one GPU."""
        gpu = Gpu.objects.create(host=host, uuid="GPU-1", memory_mb=8000)
        for _ in range(10):
            Run.objects.all().delete()
            for _ in range(4):
                waiting(limits={"gpus": 1})
            claimed: list[Run | None] = []
            barrier = threading.Barrier(4)

            def claim(barrier=barrier, claimed=claimed) -> None:
                try:
                    barrier.wait()
                    claimed.append(leases.claim("me"))
                finally:
                    connection.close()

            threads = [threading.Thread(target=claim) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            winners = [run for run in claimed if run is not None]
            gpu.refresh_from_db()
            assert len(winners) == 1
            assert gpu.run == winners[0]
            assert Slot.objects.exclude(run=None).count() == 1


class TestLeases:
    def test_only_the_holder_finishes(self, host, waiting, questions):
        run = waiting()
        mine = leases.claim("me")
        Run.objects.filter(pk=run.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
        theirs = leases.claim("they")

        assert mine is not None
        assert theirs is not None
        assert theirs.attempt == 2
        assert not leases.renew(mine)
        assert not leases.finish(mine, reason=None)
        assert questions.settled == []
        assert leases.finish(theirs, reason=Reason.CRASHED)
        assert not leases.finish(theirs, reason=Reason.CRASHED)
        assert [settled for settled, _verdict in questions.settled] == [run]

    def test_lease_that_holds_is_not_taken(self, host, waiting):
        waiting()
        assert leases.claim("me")
        assert leases.claim("they") is None

    def test_run_of_a_worker_that_is_certainly_dead_is_taken_at_once(self, host, waiting):
        run = waiting()
        assert leases.claim(DEAD) == run
        taken = leases.claim(worker_name())
        assert taken == run
        assert (taken.attempt, taken.lost_leases) == (2, 1)
        assert leases.claim("they") is None  # this worker lives

    def test_worker_of_another_machine_is_waited_for(self, host, waiting):
        """Even if its process had the number of one that is dead here."""
        waiting()
        assert leases.claim(DEAD.replace("/", "-elsewhere/"))
        assert leases.claim("they") is None

    def test_settling_fails_nothing_is_written(self, host, waiting, questions):
        run = waiting()
        claimed = leases.claim("me")
        questions.settle = lambda run, verdict: 1 / 0
        with pytest.raises(ZeroDivisionError):
            leases.finish(claimed, reason=None)
        run.refresh_from_db()
        assert run.state == Run.State.RUNNING
        assert Slot.objects.get(run=run)

    def test_run_whose_workers_keep_dying_ends(self, host, waiting, questions):
        run = waiting(lost_leases=20)
        leases.claim(DEAD)
        assert worker.work() == 1
        run.refresh_from_db()
        assert run.reason == Reason.PLATFORM_FAULT

    def test_run_that_takes_engines_down_ends(self, host, waiting, engine, questions):
        """An engine that cannot be reached is not the run's fault. One that always falls under the same run may be."""
        run = waiting(lost_leases=19)
        claimed = leases.claim("me")
        away = worker.Attempt(claimed)
        worker._fault(away, Unreachable("it was away before"))
        Host.objects.update(avoid_until=None)
        run.refresh_from_db()
        assert (run.state, run.faults, run.lost_leases) == (Run.State.QUEUED, 0, 19)
        for state in (Run.State.QUEUED, Run.State.FAILED):
            attempt = worker.Attempt(leases.claim("me"))
            attempt._chambers.append(Chamber("holder", "container", 0, (), 1, 0, "hosts"))
            worker._fault(attempt, Unreachable("it has just gone"))
            Host.objects.update(avoid_until=None)
            run.refresh_from_db()
            assert (run.state, run.faults, run.lost_leases) == (state, 0, 20)
        assert run.reason == Reason.PLATFORM_FAULT


class TestKilledWorkers:
    @pytest.fixture(autouse=True)
    def short_leases(self, settings):
        settings.SANDBOX = {"lease_seconds": 4, "renew_seconds": 0.5, "retry_seconds": 0}

    def test_sigkill_in_the_middle_of_a_run(self, queue, engine, questions, start_worker):
        """The next worker takes over, removes what is left, and the run ends exactly once."""
        run = queue(f"sleep 3; {ANSWER}")
        killed = start_worker()
        old = until(lambda: running_container(engine, run), 60)
        killed.send_signal(signal.SIGKILL)
        killed.wait()

        assert worker.work() == 1  # the lease still holds, but here one sees that nobody does
        run.refresh_from_db()

        assert (run.state, run.attempt, run.lost_leases) == (Run.State.SUCCEEDED, 2, 1)
        assert Run.objects.filter(owner=str(run.pk)).count() == 1
        assert not Slot.objects.exclude(run=None).exists()
        chambers.close()  # which waits for what is being removed
        assert old["Id"] not in [found["Id"] for found in engine.containers()]

    def test_sigkill_at_any_moment(self, queue, make_image, engine, start_worker):
        """Six runs, and a worker killed every moment: each run is settled exactly once."""
        image = make_image(ANSWER)
        runs = [queue(image) for _ in range(6)]
        pause = 1.5
        for _ in range(6):
            process = start_worker()
            time.sleep(pause)
            pause += 0.7
            process.send_signal(signal.SIGKILL)
            process.wait()
        until(
            lambda: (
                worker.work() is not None
                and not Run.objects.filter(pk__in=[run.pk for run in runs]).exclude(state=Run.State.SUCCEEDED).exists()
            ),
            60,
        )
        for run in runs:
            assert Run.objects.filter(owner=str(run.pk)).count() == 1
        assert not Slot.objects.exclude(run=None).exists()
        chambers.close()
        reaper.sweep()
        assert engine.containers() == []
        assert engine.volumes() == []

    def test_worker_that_stood_still_too_long_stops_its_container(self, queue, engine, start_worker):
        """SIGSTOP, not SIGKILL: when it wakes up, its attempt counts no more, whatever it does."""
        run = queue(f"sleep 4; {ANSWER}")
        frozen = start_worker()
        until(lambda: running_container(engine, run), 60)
        frozen.send_signal(signal.SIGSTOP)
        until(lambda: worker.work(), 30)
        frozen.send_signal(signal.SIGCONT)
        frozen.communicate(timeout=60)
        run.refresh_from_db()
        assert (run.state, run.attempt) == (Run.State.SUCCEEDED, 2)
        assert Run.objects.filter(owner=str(run.pk)).count() == 1


class TestCancel:
    def test_queued(self, queue, questions):
        run = queue(ANSWER)
        assert actions.cancel(run=run)
        assert not actions.cancel(run=run)
        assert worker.work() == 0
        assert run.state == Run.State.CANCELLED
        assert questions.settled == []

    def test_under_way(self, queue, engine, settings, questions, leaves_nothing):
        settings.SANDBOX = {"renew_seconds": 0.2}
        run = queue("sleep 60", limits={"seconds": 120})
        thread = threading.Thread(target=lambda: (worker.work(), connection.close()))
        thread.start()
        until(lambda: running_container(engine, run))
        actions.cancel(run=run)
        thread.join(15)
        assert not thread.is_alive()
        run.refresh_from_db()
        assert run.state == Run.State.CANCELLED
        assert not Slot.objects.exclude(run=None).exists()
        assert questions.settled == []

    def test_while_its_worker_is_dead(self, host, waiting):
        run = waiting()
        assert leases.claim("a worker that dies")
        actions.cancel(run=run)
        reaper.free_forgotten()
        assert Slot.objects.exclude(run=None).exists()  # perhaps it is not dead
        Run.objects.update(finished_at=timezone.now() - timedelta(minutes=1))
        reaper.free_forgotten()
        assert not Slot.objects.exclude(run=None).exists()


class TestVacating:
    """A slot is for a container: reading what came out of it needs none."""

    def test_the_next_run_has_the_slot_while_the_last_ones_outputs_are_read(self, queue, make_image, host):
        image = make_image("true")
        *_others, third = [queue(image) for _ in range(3)]
        claimed = leases.claim("a")
        leases.claim("b")
        assert leases.claim("c") is None
        assert leases.line_up()
        leases.vacate(claimed)
        assert not leases.line_up()
        assert leases.claim("c").pk == third.pk
        assert leases.finish(claimed, reason=Reason.CRASHED)
        assert Slot.objects.get(run=third)

    def test_only_its_own_attempt_vacates(self, queue, make_image, host):
        queue(make_image("true"))
        claimed = leases.claim("a")
        Run.objects.filter(pk=claimed.pk).update(attempt=7)
        leases.vacate(claimed)
        assert Slot.objects.filter(run=claimed).exists()

    def test_a_run_that_is_taken_over_after_that_needs_a_new_slot(self, queue, make_image, host):
        image = make_image("true")
        runs = [queue(image) for _ in range(3)]
        claimed = leases.claim("a")
        leases.vacate(claimed)
        leases.claim("b")
        leases.claim("c")
        Run.objects.filter(pk=claimed.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
        assert leases.claim("d") is None
        Slot.objects.filter(run=runs[1]).update(run=None)
        again = leases.claim("d")
        assert (again.pk, again.attempt) == (claimed.pk, 2)
        assert Slot.objects.filter(run=claimed).exists()
