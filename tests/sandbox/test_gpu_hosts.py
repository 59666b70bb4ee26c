"""GPUs asked of a real engine, and given by it: up to the hook that would put them into the container."""

import signal
import uuid as uuids
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from django_q.models import OrmQ, Schedule
from gpu_stub import Toolkit, uuid
from image_builder import ImageBuilder, busybox_layer
from patience import until

from sandbox import actions, alarms, chambers, fleet, gpus, inspection, leases, reaper, tasks, worker
from sandbox.conf import conf
from sandbox.engine import RUN, Engine, EngineFault
from sandbox.hosts import engine_of
from sandbox.models import Alarm, Gpu, Host, Image, Run, Slot
from sandbox.reasons import Reason
from tests.engines import SpareEngine

ANSWER = "echo yes > /output/answer.txt"
ONE, TWO, THREE = (uuid(number) for number in (1, 2, 3))


@pytest.fixture(scope="module")
def toolkit(tmp_path_factory: pytest.TempPathFactory) -> Toolkit:
    toolkit = Toolkit(tmp_path_factory.mktemp("toolkit"))
    toolkit.install()
    return toolkit


@pytest.fixture(scope="module")
def spare(toolkit: Toolkit) -> Iterator[SpareEngine]:
    """An engine that finds the toolkit's hook."""
    with SpareEngine("gpu-hosts", 50, environment=toolkit.environment) as spare:
        yield spare


@pytest.fixture
def base(transactional_db: None, tmp_path: Path) -> Image:
    """A registered base image with a shell."""
    archive = ImageBuilder(layers=[busybox_layer()], config={"Cmd": ["/bin/sh"]}).docker_archive(tmp_path / "base.tar")
    return actions.register_base_image(archive=archive, name="shell")


@pytest.fixture
def gpu_host(spare: SpareEngine, base: Image, questions: Any, toolkit: Toolkit) -> Iterator[Host]:
    """The host of that engine, with two slots; it shows two GPUs, and has not been looked at."""
    toolkit.shows({1: 40960, 2: 16384})
    host = Host.objects.create(name="gpu-1", url=spare.url)
    for number in (1, 2):
        Slot.objects.create(host=host, number=number)
    assert inspection.note(host)
    yield host
    chambers.close()
    engine = engine_of(host)
    reaper.sweep_engine(engine, everything=True)
    engine.hang_up()


@pytest.fixture
def queue_gpu(gpu_host: Host, make_image: Callable[..., Image]) -> Callable[..., Run]:
    """Queues a run of a line of shell that wants GPUs."""

    def queue_gpu(script: str, **limits: Any) -> Run:
        limits = {"seconds": 30, "memory_mb": 64, "output_mb": 8, "pids": 64, "gpus": 1, **limits}
        return actions.queue(
            image=make_image(script),
            purpose="questions",
            step="attack",
            limits=limits,
            collect={"files": ["answer.txt"]},
            owner="ada",
            priority=0,
            private=True,
        )

    return queue_gpu


@pytest.fixture
def other_host(transactional_db: None) -> Host:
    """Another host that takes runs; nobody asks it anything here."""
    return Host.objects.create(name="other", url="unix:///nowhere")


def books(host: Host) -> dict[str, tuple[int, bool]]:
    """Memory of the host's GPUs, and whether they are there."""
    return {gpu.uuid: (gpu.memory_mb, gpu.lost_at is None) for gpu in host.gpus.all()}


class TestLooking:
    def test_two_gpus(self, gpu_host, toolkit):
        assert gpus.look(gpu_host) == ""
        assert books(gpu_host) == {ONE: (40960, True), TWO: (16384, True)}
        assert {gpu.name for gpu in gpu_host.gpus.all()} == {"NVIDIA A100-PCIE-40GB"}
        (told,) = toolkit.told().values()
        assert set(told) == {"NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=utility"}
        assert engine_of(gpu_host).containers() == []

    def test_a_split_one_offers_its_slices_only(self, gpu_host, toolkit):
        toolkit.shows({1: 40960, 2: 40960, 3: 40960}, {1: ["1g.5gb", "3g.20gb"], 3: []})
        assert gpus.look(gpu_host) == ""
        small, large = uuid(100, "MIG"), uuid(101, "MIG")
        assert books(gpu_host) == {TWO: (40960, True), small: (5000, True), large: (20000, True)}
        assert Gpu.objects.get(uuid=large).name == "NVIDIA A100-PCIE-40GB 3g.20gb"

    def test_the_container_that_looks_is_closed(self, gpu_host, monkeypatch):
        seen = {}
        honest = Engine.ending

        def ending(self: Engine, container: str) -> Any:
            seen.update(self._client.inspect_container(container))
            return honest(self, container)

        monkeypatch.setattr(Engine, "ending", ending)
        gpus.look(gpu_host)
        options = seen["HostConfig"]
        assert seen["Config"]["User"] == "65534:65534"
        assert options["NetworkMode"] == "none"
        assert options["ReadonlyRootfs"] is True
        assert options["CapDrop"] == ["ALL"]
        assert "no-new-privileges:true" in options["SecurityOpt"]
        assert any(option.startswith("seccomp={") for option in options["SecurityOpt"])
        assert seen["Mounts"] == []
        assert [(request["Count"], request["Capabilities"]) for request in options["DeviceRequests"]] == [
            (-1, [["gpu", "utility"]])
        ]

    def test_a_host_without_the_toolkit_has_none(self, host, base):
        """This machine's own engine: what it says is what any engine without the toolkit says."""
        assert gpus.look(host) == ""
        assert books(host) == {}
        host.refresh_from_db()
        assert host.complaint == ""

    def test_one_that_should_have_gpus_says_what_is_missing(self, host, base, settings):
        settings.SANDBOX = {**settings.SANDBOX, "gpu_hosts": (host.name,)}
        sentence = gpus.look(host)
        assert "NVIDIA Container Toolkit is missing or not registered" in sentence
        assert "nvidia-ctk runtime configure" in sentence
        host.refresh_from_db()
        assert host.complaint == sentence
        inspection.heartbeat(host)
        host.refresh_from_db()
        assert host.complaint == sentence  # until it is mended
        alarms.look()
        assert Alarm.objects.get(kind="host_complaint").sentence.endswith(sentence)
        assert host.state == Host.State.ACTIVE  # it has lost nothing

    def test_without_a_base_image(self, host, settings):
        settings.SANDBOX = {**settings.SANDBOX, "gpu_hosts": (host.name,)}
        assert "base_image_add" in gpus.look(host)

    def test_an_engine_that_is_away_changes_nothing(self, base, other_host):
        Gpu.objects.create(host=other_host, uuid=ONE, memory_mb=1)
        gpus.look_at_all()
        assert books(other_host) == {ONE: (1, True)}


class TestLoss:
    def test_a_lost_gpu_drains_its_host(self, gpu_host, other_host, toolkit):
        gpus.look(gpu_host)
        toolkit.shows({2: 16384})
        sentence = gpus.look(gpu_host)
        assert ONE in sentence
        assert TWO not in sentence
        assert books(gpu_host) == {ONE: (40960, False), TWO: (16384, True)}
        alarms.look()
        assert Alarm.objects.get(kind="gpu_lost").subject == ONE
        gpu_host.refresh_from_db()
        assert gpu_host.state == Host.State.DRAINING
        assert gpu_host.complaint == sentence

    def test_the_only_host_goes_on_without_it(self, gpu_host, toolkit):
        gpus.look(gpu_host)
        toolkit.shows({2: 16384})
        assert ONE in gpus.look(gpu_host)
        gpu_host.refresh_from_db()
        assert gpu_host.state == Host.State.ACTIVE

    def test_the_operator_puts_it_back_to_work(self, gpu_host, other_host, toolkit):
        gpus.look(gpu_host)
        toolkit.shows({2: 16384})
        gpus.look(gpu_host)
        Host.objects.filter(pk=gpu_host.pk).update(state=Host.State.ACTIVE)
        gpu_host.refresh_from_db()
        gpus.look(gpu_host)  # it is known: that does not drain the host again
        gpu_host.refresh_from_db()
        assert gpu_host.state == Host.State.ACTIVE
        toolkit.shows({1: 40960, 2: 16384})
        assert gpus.look(gpu_host) == ""
        gpu_host.refresh_from_db()
        assert gpu_host.complaint == ""
        assert books(gpu_host)[ONE] == (40960, True)

    @pytest.mark.parametrize(
        ("trouble", "words"),
        [
            (Toolkit.breaks, "driver not loaded"),
            (lambda toolkit: toolkit.shows({1: 40960}, code=15), "ended with status 15"),
            (lambda toolkit: toolkit.shows({1: 40960}, {1: ["a profile"]}), "makes no sense"),
        ],
    )
    def test_gpus_that_cannot_be_asked_count_as_lost(self, gpu_host, toolkit, trouble, words):
        gpus.look(gpu_host)
        trouble(toolkit)
        assert words in gpus.look(gpu_host)
        assert books(gpu_host) == {ONE: (40960, False), TWO: (16384, False)}
        toolkit.shows({1: 40960, 2: 16384})
        assert gpus.look(gpu_host) == ""

    @pytest.mark.parametrize("code", [2, 127, 137])
    def test_a_look_that_fails_by_itself_loses_nothing(self, gpu_host, toolkit, code):
        """127: the base image lacks what `nvidia-smi` needs. 137: it was killed."""
        gpus.look(gpu_host)
        toolkit.shows({1: 40960}, code=code)
        assert f"ended with status {code}" in gpus.look(gpu_host)
        assert books(gpu_host) == {ONE: (40960, True), TWO: (16384, True)}

    def test_nor_does_one_without_a_base_image(self, gpu_host, base):
        gpus.look(gpu_host)
        Image.objects.filter(pk=base.pk).update(is_base=False)
        assert "base_image_add" in gpus.look(gpu_host)
        assert books(gpu_host) == {ONE: (40960, True), TWO: (16384, True)}

    def test_nor_does_an_engine_with_other_troubles(self, gpu_host, monkeypatch):
        """Its disk is full, say: that is not tried on an engine that others use."""
        gpus.look(gpu_host)

        def start(self: Engine, container: str) -> None:
            raise EngineFault("start the container: mkdir: no space left on device")

        monkeypatch.setattr(Engine, "start", start)
        with pytest.raises(EngineFault):
            gpus.look(gpu_host)
        assert books(gpu_host) == {ONE: (40960, True), TWO: (16384, True)}
        assert engine_of(gpu_host).containers() == []

    def test_a_damaged_rom_does_no_harm(self, gpu_host, toolkit):
        toolkit.shows({1: 40960}, code=14)
        assert gpus.look(gpu_host) == ""
        assert books(gpu_host) == {ONE: (40960, True)}

    def test_a_card_moves_to_another_host(self, gpu_host, other_host):
        Gpu.objects.create(host=other_host, uuid=ONE, memory_mb=1, lost_at=timezone.now())
        Gpu.objects.create(host=other_host, uuid=TWO, memory_mb=1)
        assert "are both the same machine?" in gpus.look(gpu_host)
        assert books(gpu_host) == {ONE: (40960, True)}
        assert books(other_host) == {TWO: (1, True)}


class TestRuns:
    def test_gets_exactly_what_it_has_leased(self, gpu_host, queue_gpu, toolkit, monkeypatch):
        gpus.look(gpu_host)
        toolkit.shows({1: 40960, 2: 16384})
        seen = {}
        honest = Engine.ending

        def ending(self: Engine, container: str) -> Any:
            seen.update(self._client.inspect_container(container))
            return honest(self, container)

        monkeypatch.setattr(Engine, "ending", ending)
        run = queue_gpu(ANSWER, gpu_memory_mb=10000)
        assert worker.work() == 1
        run.refresh_from_db()
        assert run.state == Run.State.SUCCEEDED, run.detail
        assert [request["DeviceIDs"] for request in seen["HostConfig"]["DeviceRequests"]] == [[TWO]]
        told = toolkit.told()[seen["Id"]]
        assert set(told) == {f"NVIDIA_VISIBLE_DEVICES={TWO}", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"}
        assert seen["HostConfig"]["ReadonlyRootfs"] is True
        assert seen["HostConfig"]["NetworkMode"] == "none"

    def test_two_never_share_one(self, gpu_host, queue_gpu, toolkit):
        gpus.look(gpu_host)
        toolkit.shows({1: 40960, 2: 16384})
        for _ in range(3):
            queue_gpu(ANSWER)
        first, second, third = (leases.claim("me") for _ in range(3))
        assert third is None
        worker.drive(first)
        worker.drive(second)
        devices = {item for told in toolkit.told().values() for item in told if "VISIBLE" in item}
        assert devices == {f"NVIDIA_VISIBLE_DEVICES={ONE}", f"NVIDIA_VISIBLE_DEVICES={TWO}"}

    def test_crashes_on_a_gpu_that_got_lost(self, gpu_host, queue_gpu, toolkit):
        """It is no fault of the image, and the next attempt gets another GPU."""
        gpus.look(gpu_host)
        run = queue_gpu("exit 1")
        claimed = leases.claim("me")
        assert claimed.leased_gpus.get().uuid == TWO
        toolkit.shows({1: 40960})
        worker.drive(claimed)
        run.refresh_from_db()
        assert run.state == Run.State.QUEUED
        assert TWO in run.detail
        assert leases.claim("me").leased_gpus.get().uuid == ONE

    def test_crashes_by_its_own_fault(self, gpu_host, queue_gpu):
        gpus.look(gpu_host)
        run = queue_gpu("exit 1")
        worker.work()
        run.refresh_from_db()
        assert run.reason == Reason.CRASHED

    def test_what_a_lost_worker_left_on_the_gpu_goes_first(self, gpu_host, queue_gpu):
        """A container whose lease is over, but which nobody could stop: the engine would let both have the GPU."""
        gpus.look(gpu_host)
        Gpu.objects.filter(uuid=ONE).delete()
        engine = engine_of(gpu_host)
        run = queue_gpu(ANSWER)
        worker.work()
        left = engine.create(
            {"Image": run.image.image_id, "Entrypoint": ["/bin/sh", "-c", "while :; do :; done"]},
            {gpus.label(TWO): ""},
            f"left-{uuids.uuid4().hex}",
        )
        engine.start(left)
        run = queue_gpu(ANSWER)
        assert worker.work() == 1
        run.refresh_from_db()
        assert run.state == Run.State.SUCCEEDED, run.detail
        assert left not in [container["Id"] for container in engine.containers()]

    def test_a_killed_worker_leaves_its_gpu_to_the_same_run(self, gpu_host, queue_gpu, start_worker):
        """Nobody else gets the GPU before that run has ended, though its worker is dead and its container goes on."""
        gpus.look(gpu_host)
        Gpu.objects.filter(uuid=ONE).delete()
        engine = engine_of(gpu_host)
        first, second = queue_gpu(f"sleep 5; {ANSWER}"), queue_gpu(ANSWER)
        killed = start_worker()
        until(lambda: [found for found in engine.containers(**{RUN: str(first.pk)}) if found["State"] == "running"], 60)
        killed.send_signal(signal.SIGKILL)
        killed.wait()

        Run.objects.filter(pk=first.pk).update(worker="elsewhere:1:2")  # nobody here can see that it is dead
        assert leases.claim("me") is None
        Run.objects.filter(pk=first.pk).update(lease_until=timezone.now())
        again = leases.claim("me")
        assert (again.pk, again.attempt) == (first.pk, 2)
        assert again.leased_gpus.get().uuid == TWO
        assert leases.claim("they") is None
        worker.drive(again)
        again.refresh_from_db()
        assert again.state == Run.State.SUCCEEDED, again.detail
        claimed = leases.claim("they")
        assert claimed.pk == second.pk
        assert claimed.leased_gpus.get().uuid == TWO

    def test_the_toolkit_is_gone(self, host, base, queue):
        """A run that was promised a GPU waits, and the operator reads why."""
        Gpu.objects.create(host=host, uuid=ONE, memory_mb=8000)
        run = queue(ANSWER, limits={"gpus": 1})
        worker.work()
        run.refresh_from_db()
        assert run.state == Run.State.QUEUED
        assert "could not select device driver" in run.detail
        host.refresh_from_db()
        assert "NVIDIA Container Toolkit is missing" in host.complaint
        reaper.sweep()
        run.refresh_from_db()
        assert run.detail.startswith("No host can take this run:")


class TestSchedule:
    @pytest.mark.django_db
    def test_every_five_minutes(self):
        schedule = Schedule.objects.get(func="sandbox.tasks.look_at_gpus")
        assert (schedule.cluster, schedule.minutes) == ("web", gpus.MINUTES)

    def test_an_engine_that_is_new_was_away_or_changed_is_looked_at(self, host):
        def looks() -> int:
            OrmQ.objects.all().delete()
            host.refresh_from_db()
            inspection.heartbeat(host)
            return sum(message.func() == "sandbox.tasks.look_at_gpus" for message in OrmQ.objects.all())

        assert looks() == 1
        assert looks() == 0
        Host.objects.update(avoid_until=timezone.now())
        assert looks() == 1
        Host.objects.update(engine={**host.engine, "ServerVersion": "19.03"})
        assert looks() == 1
        assert looks() == 0

    def test_a_host_that_is_put_back_to_work_is_looked_at(self, gpu_host):
        fleet.drain(host=gpu_host)
        OrmQ.objects.all().delete()
        fleet.uncordon(host=gpu_host)
        looks = [message.task["args"] for message in OrmQ.objects.all() if "gpus" in message.func()]
        assert looks == [(gpu_host.pk,)]

    def test_the_task_looks(self, gpu_host):
        tasks.look_at_gpus(gpu_host.pk)
        assert len(books(gpu_host)) == 2

    def test_a_drained_host_is_left_alone(self, gpu_host, toolkit):
        Host.objects.update(state=Host.State.DRAINED)
        tasks.look_at_gpus()
        assert toolkit.told() == {}


class TestCommand:
    def test_prints_what_there_is(self, gpu_host, capsys):
        call_command("host_gpus", "gpu-1")
        assert capsys.readouterr().out.splitlines() == [
            f"{ONE}\tNVIDIA A100-PCIE-40GB\t40960 MB",
            f"{TWO}\tNVIDIA A100-PCIE-40GB\t16384 MB",
        ]

    def test_forgets_what_is_gone_for_good(self, gpu_host, toolkit, capsys):
        gpus.look(gpu_host)
        toolkit.shows({1: 40960})
        with pytest.raises(CommandError, match=TWO):
            call_command("host_gpus", "gpu-1")
        call_command("host_gpus", "gpu-1", "--forget")
        assert books(gpu_host) == {ONE: (40960, True)}
        gpu_host.refresh_from_db()
        assert gpu_host.complaint == ""

    def test_says_why_there_is_none(self, host, base):
        with pytest.raises(CommandError, match="NVIDIA Container Toolkit is missing"):
            call_command("host_gpus", host.name)
        with pytest.raises(CommandError, match="no host nobody"):
            call_command("host_gpus", "nobody")


def test_the_image_that_looks_can_be_named(gpu_host, base, settings):
    settings.SANDBOX = {"gpu_probe_image": "another"}
    assert conf().gpu_probe_image == "another"
    with pytest.raises(gpus.Unusable, match="base_image_add"):
        gpus.find(gpu_host)
    settings.SANDBOX = {"gpu_probe_image": base.name}
    assert len(gpus.find(gpu_host)) == 2
