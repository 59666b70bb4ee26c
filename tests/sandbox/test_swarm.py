"""A fleet of three engines in network namespaces, placed by a real Docker Swarm.

There is no GPU here: the first two engines have the stub of the NVIDIA toolkit, which notes who was given which.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from multiprocessing.context import ForkProcess as Process
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections
from gpu_stub import Toolkit, uuid
from image_builder import ImageBuilder, busybox_layer
from patience import until

from sandbox import actions, chambers, gpus, inspection, reaper, swarm_nodes, worker
from sandbox.conf import scratch_root
from sandbox.engine import RUN
from sandbox.hosts import engine_of, swarm_of
from sandbox.limits import Limits
from sandbox.models import Gpu, Host, Image, Run, Slot
from tests.engines import SpareEngine

FORK = get_context("fork")
ANSWER = "echo yes > /output/answer.txt"
NAMES = ("swarm90", "swarm91", "swarm92")
GPUS = {"swarm90": 1, "swarm91": 2}
SETTINGS = {"retry_seconds": 1, "renew_seconds": 1, "lease_seconds": 10, "heartbeat_timeout": 10, "engine_patience": 3}


@pytest.fixture(scope="module")
def toolkits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Toolkit]:
    """What stands for the NVIDIA toolkit on each node that has a GPU."""
    toolkits = {name: Toolkit(tmp_path_factory.mktemp(name)) for name in GPUS}
    for name, toolkit in toolkits.items():
        toolkit.install()
        toolkit.shows({GPUS[name]: 40960})
    return toolkits


@pytest.fixture(scope="module")
def spares(toolkits: dict[str, Toolkit]) -> Iterator[dict[str, SpareEngine]]:
    """Three engines; two offer a GPU each, the third has gVisor."""
    gvisor = {"runtimes": {"runsc": {"path": "/usr/bin/runsc", "runtimeArgs": ["--platform=ptrace", "--network=none"]}}}
    with contextlib.ExitStack() as stack:
        spares = {}
        for name, number in zip(NAMES, (90, 91, 92), strict=True):
            gpu = GPUS.get(name)
            config = {"node-generic-resources": [f"gpu={uuid(gpu)}"]} if gpu else gvisor
            environment = toolkits[name].environment if gpu else {}
            spares[name] = stack.enter_context(SpareEngine(name, number, config=config, environment=environment))
        yield spares


@pytest.fixture
def base(transactional_db: None, tmp_path: Path) -> Image:
    """A registered base image with a shell, which looks for GPUs."""
    archive = ImageBuilder(layers=[busybox_layer()], config={"Cmd": ["/bin/sh"]}).docker_archive(tmp_path / "base.tar")
    return actions.register_base_image(archive=archive, name="shell")


@pytest.fixture
def fleet(spares: dict[str, SpareEngine], base: Image, questions: Any, settings: Any) -> Iterator[Host]:
    """The three as one fleet of five slots. In the end there is nothing left of this test on any of them."""
    settings.SANDBOX = SETTINGS
    for name in NAMES:
        host = Host.objects.create(name=name, url=spares[name].url)
        Slot.objects.create(host=host, number=1)
        assert inspection.note(host)
    for name in GPUS:
        assert gpus.look(Host.objects.get(name=name)) == ""
    nodes = [f"{name}={spares[name].address}" for name in NAMES]
    call_command("fleet_form", "fleet", *nodes, "--slots", "5", verbosity=0)
    fleet = Host.objects.get(name="fleet")
    yield fleet
    chambers.close()
    reaper.sweep()  # of workers that were killed
    hosts = [host for host in Host.objects.engines() if host.name in NAMES and engine_of(host).answers()]
    until(lambda: not swarm_of(fleet).reservations())
    for host in hosts:
        engine = engine_of(host)
        until(lambda engine=engine: not engine._client.containers(all=True), 30)  # tasks of the swarm neither
        until(lambda engine=engine: not engine.volumes(), 30)
        engine.hang_up()
    assert not Slot.objects.exclude(run=None).exists()
    assert not Gpu.objects.exclude(run=None).exists()
    assert list(scratch_root().glob("*")) == []


@pytest.fixture
def queue(fleet: Host, make_image: Callable[..., Image]) -> Callable[..., Run]:
    """Queues a run of a line of shell."""
    images: dict[str, Image] = {}

    def queue(script: str, walls: tuple[str, ...] = (), **limits: Any) -> Run:
        images.setdefault(script, make_image(script))
        limits = {"seconds": 60, "memory_mb": 64, "cpus": 0.5, "output_mb": 8, "pids": 64, **limits}
        return actions.queue(
            image=images[script],
            purpose="questions",
            step="attack",
            limits=limits,
            collect={"files": ["answer.txt"]},
            owner="ada",
            priority=0,
            private=True,
            walls=walls,
        )

    return queue


def _work() -> None:
    worker.work()


@pytest.fixture
def start_workers(fleet: Host) -> Iterator[Callable[[int], list[Process]]]:
    """Starts worker processes, forked like those of a cluster. They end when nothing is left to do."""
    processes: list[Process] = []

    def start_workers(number: int) -> list[Process]:
        chambers.close()  # a fork must not have threads of ours to wait for
        connections.close_all()
        started = [FORK.Process(target=_work) for _ in range(number)]
        for process in started:
            process.start()
        processes.extend(started)
        return started

    yield start_workers
    for process in processes:
        process.join(60)
        process.kill()
        process.join()


@pytest.fixture
def keep_working(start_workers: Callable[[int], list[Process]]) -> Callable[[int], bool]:
    """Starts workers, as wake-ups would, for runs that wait while fewer than so many workers are left."""
    started: list[Process] = []

    def keep_working(number: int) -> bool:
        time.sleep(0.3)
        if sum(process.is_alive() for process in started) < number and Run.objects.queued().exists():
            started.extend(start_workers(1))
        return True

    return keep_working


def ended(run: Run) -> Run | None:
    run.refresh_from_db()
    return run if run.ended else None


def under_way(run: Run) -> str:
    """The name of the node where its container is, once it is there."""
    run.refresh_from_db()
    if run.host is None or run.host.is_fleet:
        return ""
    found = engine_of(run.host).containers(**{RUN: str(run.pk)})
    return run.host.name if any(container["State"] == "running" for container in found) else ""


def work_until_ended(*runs: Run, seconds: float = 60) -> None:
    """Drives what is due, as wake-ups would have a worker do, until these runs have ended."""
    deadline = time.monotonic() + seconds
    while not all(ended(run) for run in runs):
        assert time.monotonic() < deadline, [(run.state, run.detail) for run in runs]
        worker.work()
        time.sleep(0.2)


class TestForming:
    def test_fleet_stands_for_its_nodes(self, fleet):
        assert fleet.state == Host.State.ACTIVE
        assert sorted(fleet.engine["Nodes"]) == list(NAMES)
        assert {"standard", "gvisor"} <= set(fleet.walls)
        assert fleet.complaint == ""
        assert [slot.host for slot in Slot.objects.all()] == [fleet] * 5
        assert reaper.sweep() is None
        fleet.refresh_from_db()
        assert fleet.avoid_until is None

    def test_done_again_it_changes_the_number_of_slots(self, fleet, spares):
        nodes = [f"{name}={spares[name].address}" for name in NAMES]
        call_command("fleet_form", "fleet", *nodes, "--slots", "2", verbosity=0)
        assert fleet.slots.count() == 2

    def test_refusals(self, fleet, spares):
        for arguments in (["fleet", "swarm91=x"], ["swarm90", "swarm90=x"], ["new", "nobody=x"], ["new", "swarm90"]):
            with pytest.raises(CommandError):
                call_command("fleet_form", *arguments, "--slots", "2")

    def test_node_that_has_no_row_is_complained_about(self, fleet):
        Host.objects.filter(name="swarm92").update(name="other")
        assert inspection.heartbeat(fleet) is None
        fleet.refresh_from_db()
        assert "names none of our hosts" in fleet.complaint
        assert sorted(fleet.engine["Nodes"]) == ["swarm90", "swarm91"]
        Host.objects.filter(name="other").update(name="swarm92")


class TestRuns:
    def test_go_to_several_nodes(self, queue, start_workers):
        runs = [queue(f"sleep 2; {ANSWER}", cpus=1) for _ in range(3)]
        start_workers(3)
        for run in runs:
            until(lambda run=run: ended(run), 60)
            assert run.state == Run.State.SUCCEEDED, run.detail
        assert len({run.host.name for run in runs}) >= 2
        assert {run.host.name for run in runs} <= set(NAMES)

    def test_wall_is_found_on_the_node_that_has_it(self, queue):
        run = queue(ANSWER, walls=("gvisor",))
        work_until_ended(run)
        assert (run.state, run.host.name) == (Run.State.SUCCEEDED, "swarm92")

    def test_too_large_for_every_node_waits_in_the_queue(self, queue, settings):
        settings.SANDBOX = {**SETTINGS, "placement_seconds": 1}
        run = queue(ANSWER, cpus=64)
        assert worker.work() == 1
        run.refresh_from_db()
        assert (run.state, run.faults) == (Run.State.QUEUED, 0)
        assert "insufficient resources" in run.detail
        actions.cancel(run=run)

    def test_reservation_is_a_trusted_sleeper_and_nothing_of_the_run(self, fleet, queue, start_workers):
        run = queue(f"sleep 4; {ANSWER}")
        start_workers(1)
        until(lambda: under_way(run), 60)
        client = engine_of(run.host)._client
        tasks = [client.inspect_container(found["Id"]) for found in client.containers()]
        [task] = [found for found in tasks if "com.docker.swarm.task.id" in found["Config"]["Labels"]]
        assert task["Image"] == engine_of(run.host).holder_image()
        assert task["Mounts"] == []
        assert task["Config"]["User"] == "65534:65534"
        assert task["HostConfig"]["CapDrop"]
        until(lambda: ended(run), 60)

    def test_cancelled_run_leaves_nothing(self, fleet, queue, start_workers):
        run = queue("sleep 50")
        start_workers(1)
        until(lambda: under_way(run), 60)
        assert len(swarm_of(fleet).reservations()) == 1
        actions.cancel(run=run)
        until(lambda: not swarm_of(fleet).reservations(), 60)


class TestGpus:
    def test_queue_and_no_two_runs_have_one_at_once(self, queue, start_workers, keep_working, toolkits):
        """Each run writes down when it began and ended; the stub wrote down who was given which GPU."""
        for name, toolkit in toolkits.items():
            toolkit.shows({GPUS[name]: 40960})
        runs = [
            queue(f"cat /proc/uptime; sleep 1; cat /proc/uptime; {ANSWER}", gpus=1, gpu_memory_mb=40000)
            for _ in range(5)
        ]
        start_workers(3)
        for run in runs:
            until(lambda run=run: keep_working(1) and ended(run), 120)
            assert (run.state, run.faults) == (Run.State.SUCCEEDED, 0), run.detail
        lines = {line for toolkit in toolkits.values() for told in toolkit.told().values() for line in told}
        assert {line for line in lines if "VISIBLE" in line} == {
            f"NVIDIA_VISIBLE_DEVICES={uuid(number)}" for number in GPUS.values()
        }
        for name in GPUS:
            logs = [run.log_path.read_text().split() for run in runs if run.host.name == name]
            assert logs
            spans = sorted((float(begin), float(end)) for begin, _idle, end, _idle_then in logs)
            assert all(first[1] < second[0] for first, second in pairwise(spans)), spans

    def test_swarm_itself_never_gives_one_out_twice(self, fleet):
        """Six reservations at once for two GPUs, each held for a moment."""
        swarm = swarm_of(fleet)
        image = engine_of(Host.objects.get(name="swarm90")).holder_image()
        for name in NAMES:
            assert engine_of(Host.objects.get(name=name)).holder_image() == image
        limits = Limits(memory_mb=16, cpus=0.1, gpus=1)
        held: dict[str, int] = {}

        def hold(number: int) -> list[str]:
            service = swarm.reserve(f"r{number}", 1, limits, image, [])
            found = until(lambda: (found := swarm.look(service)).running and found, 60)
            clash = [gpu for gpu in found.gpus if held.setdefault(gpu, number) != number]
            time.sleep(0.3)
            for gpu in found.gpus:
                del held[gpu]
            swarm.release(service)
            swarm.hang_up()
            return clash

        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(hold, range(6))) == [[]] * 6

    def test_one_that_the_books_have_leased_is_not_taken(self, fleet, queue):
        other = queue(ANSWER)
        Gpu.objects.update(run=other)
        run = queue(ANSWER, gpus=1)
        assert swarm_nodes.fitting(fleet, run, free=True) == []
        assert len(swarm_nodes.fitting(fleet, run)) == 2
        Gpu.objects.update(run=None)
        for waiting in (run, other):
            actions.cancel(run=waiting)


class TestDeaths:
    def test_worker_that_dies_leaves_its_room_to_the_next_one(self, fleet, queue, start_workers):
        run = queue(f"sleep 5; {ANSWER}")
        [first] = start_workers(1)
        until(lambda: under_way(run), 60)
        [(reserved, _labels)] = swarm_of(fleet).reservations()
        first.kill()
        first.join()
        start_workers(1)
        until(lambda: run.refresh_from_db() or run.attempt == 2, 60)
        until(lambda: under_way(run), 60)
        assert [service for service, _labels in swarm_of(fleet).reservations()] == [reserved]
        until(lambda: ended(run), 60)
        assert (run.state, run.attempt) == (Run.State.SUCCEEDED, 2), run.detail

    def test_reservation_of_a_run_that_is_over_is_released(self, fleet, queue, start_workers):
        run = queue("sleep 50")
        [first] = start_workers(1)
        until(lambda: under_way(run), 60)
        first.kill()
        first.join()
        actions.cancel(run=run)
        assert len(swarm_of(fleet).reservations()) == 1
        reaper.sweep()
        assert swarm_of(fleet).reservations() == []
        Slot.objects.update(run=None)  # which the reaper does when the lease is over

    def test_node_that_dies_takes_no_run_along(self, queue, start_workers, keep_working, spares):
        """Last, because the node stays dead. Not the manager: a fleet without one places nothing."""
        Host.objects.filter(name="swarm90").update(state=Host.State.CORDONED)
        run = queue(f"sleep 8; {ANSWER}")
        start_workers(1)
        name = until(lambda: under_way(run), 60)
        assert name != "swarm90"
        spares[name].stop()
        until(lambda: keep_working(1) and ended(run), 120)
        assert (run.state, run.faults) == (Run.State.SUCCEEDED, 0), run.detail
        assert run.attempt > 1
        assert run.host.name != name
