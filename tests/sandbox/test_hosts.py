"""More than one host: joining, sharing the work, cut cables, false certificates, leaving, and what each host holds."""

import shutil
import ssl
import subprocess
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import docker
import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from image_builder import BUSYBOX, ImageBuilder, busybox_layer, member, tar
from patience import until

from sandbox import actions, certificates, chambers, fleet, inspection, joining, leases, reaper, supply
from sandbox.conf import private_root
from sandbox.connection import Unreachable, why
from sandbox.engine import RUN, Engine
from sandbox.hosts import certificates_of, engine_of, swarm_of
from sandbox.joining import HostError
from sandbox.models import Copy, Gpu, Host, Image, Run, Slot
from tests.engines import NET, add_namespace, delete_namespace, unmount_below

ANSWER = "echo yes > /output/answer.txt"
NUMBER = 20
ADDRESS = f"{NET}.{NUMBER}"
URL = f"tcp://{ADDRESS}:2376"
NAMESPACE = "anomed-hosts20"
THROUGH = f"nsenter --net=/run/netns/{NAMESPACE}"  # as `ssh root@node2` would be


class Machine:
    """Another machine, as far as a network namespace is one. Nothing runs there yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def join(self, **more: Any) -> Host:
        """By the one command."""
        options = {"slots": 2, "through": THROUGH, "folder": str(self.folder), "seconds": 60} | more
        call_command("host_add", "node2", URL, **options)
        return Host.objects.get(name="node2")

    def cut(self) -> None:
        subprocess.run(["ip", "link", "set", f"anomed{NUMBER}", "down"], check=True)

    def mend(self) -> None:
        subprocess.run(["ip", "link", "set", f"anomed{NUMBER}", "up"], check=True)

    def processes(self) -> list[str]:
        """Command lines that name its folder."""
        commands = []
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                commands.append(file.read_text().replace("\0", " "))
            except OSError:  # it has just ended
                continue
        return [command for command in commands if f"{self.folder}/" in command]


@pytest.fixture
def machine(engine: Engine) -> Iterator[Machine]:
    folder = Path(f"/tmp/anomed-host-{uuid.uuid4().hex[:8]}")  # short: it is part of the paths of sockets
    add_namespace(NAMESPACE, ADDRESS, NUMBER)
    machine = Machine(folder)
    yield machine
    chambers.close()
    subprocess.run(["sh", "-s"], input=joining.leaving_script(Host(name="node2", url=URL), str(folder)), text=True)
    delete_namespace(NAMESPACE)
    unmount_below(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def node2(host: Host, machine: Machine) -> Host:
    """A second host with two slots, beside this machine's."""
    return machine.join()


def test_second_host_joins_by_one_command_takes_its_share_is_drained_and_leaves(
    host, machine, queue, make_image, start_worker
):
    node2 = machine.join()
    assert (node2.state, node2.complaint) == (Host.State.ACTIVE, "")
    assert "standard" in node2.walls
    assert node2.engine["ServerVersion"]

    image = make_image(f"sleep 1; {ANSWER}")
    runs = [queue(image) for _ in range(12)]
    workers = [start_worker() for _ in range(4)]
    for worker in workers:
        worker.wait(timeout=200)
    shares = {
        name: Run.objects.filter(state=Run.State.SUCCEEDED, host__name=name).count() for name in ("local", "node2")
    }
    assert sum(shares.values()) == len(runs)
    assert min(shares.values()) >= 3, shares
    assert Run.objects.filter(owner__in=[str(run.pk) for run in runs]).count() == len(runs)  # each settled once
    assert Copy.objects.filter(host=node2, image=image).exists()

    call_command("host", "node2", "drain")
    assert not Host.objects.usable(timezone.now()).filter(pk=node2.pk).exists()
    reaper.sweep()
    node2.refresh_from_db()
    assert node2.state == Host.State.DRAINED
    engine = engine_of(node2)
    assert (engine.containers(), engine.volumes(), engine.loaded_images()) == ([], [], set())
    assert engine._client.images(all=True) == []
    assert not node2.copies.exists()

    call_command("host", "node2", "retire", through=THROUGH)  # it knows the folder
    node2.refresh_from_db()
    assert node2.state == Host.State.RETIRED
    assert not node2.slots.exists()
    assert not certificates_of("node2").exists()
    assert not machine.folder.exists()
    assert machine.processes() == []
    assert str(machine.folder) not in Path("/proc/self/mounts").read_text()
    reaper.sweep()  # asks it no more
    assert reaper.remove_everything() == {}
    node2.refresh_from_db()
    assert node2.heartbeat is None


class TestCertificates:
    def refusal(self, host: Host) -> str:
        engine_of(host).hang_up()
        fault = inspection.heartbeat(host)
        assert fault is not None
        host.refresh_from_db()
        assert host.complaint == why(fault)
        assert not Host.objects.usable(timezone.now()).filter(pk=host.pk).exists()
        return host.complaint

    def test_who_shows_none_or_a_false_one_is_refused(self, node2, settings, tmp_path):
        folder = certificates_of("node2")
        with pytest.raises(docker.errors.DockerException):
            docker.APIClient(base_url=URL, tls=docker.tls.TLSConfig(ca_cert=str(folder / "ca.pem"), verify=True))
        assert subprocess.run(["curl", "--insecure", "--silent", f"https://{ADDRESS}:2376/version"]).returncode

        of_a_host = certificates.for_host(ADDRESS)  # whoever takes over a host must not command others
        (folder / "cert.pem").write_text(of_a_host.certificate)
        (folder / "key.pem").write_text(of_a_host.key)
        assert self.refusal(node2) == why(ssl.SSLError())

        root, settings.PRIVATE_ROOT = settings.PRIVATE_ROOT, tmp_path / "another installation"
        certificates.write_ours("node2")
        foreign = certificates_of("node2")
        settings.PRIVATE_ROOT = root
        for name in ("cert.pem", "key.pem"):
            shutil.copy(foreign / name, folder / name)
        assert self.refusal(node2) == why(ssl.SSLError())

        certificates.write_ours("node2")
        engine_of(node2).hang_up()
        assert inspection.heartbeat(node2) is None

    def test_host_that_shows_another_ones_is_refused(self, node2, machine, monkeypatch):
        honest = certificates.for_host
        monkeypatch.setattr(certificates, "for_host", lambda address: honest(f"{NET}.{NUMBER + 1}"))
        with pytest.raises(CommandError, match="not the one that was made for this address"):
            call_command("host", "node2", "rejoin", through=THROUGH, folder=str(machine.folder), seconds=2)
        monkeypatch.undo()
        assert self.refusal(node2) == why(ssl.SSLCertVerificationError())
        call_command("host", "node2", "rejoin", through=THROUGH, seconds=30)
        assert inspection.heartbeat(node2) is None

    def test_the_environment_chooses_no_authority_and_the_end_is_told_in_time(self, node2, monkeypatch, tmp_path):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "nothing.pem"))
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
        engine_of(node2).hang_up()
        assert certificates.days_left("node2") > 1000
        monkeypatch.setattr(inspection, "WARN_DAYS", 10000)
        assert inspection.heartbeat(node2) is None
        node2.refresh_from_db()
        assert "rejoin" in node2.complaint
        assert node2.state == Host.State.ACTIVE

    def test_secrets_are_for_this_user_only(self):
        certificates.write_ours("node2")
        files = [private_root() / "authority.pem", *certificates_of("node2").iterdir()]
        assert len(files) == 4
        assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_cut_cable(host, node2, machine, queue, start_worker):
    """A few seconds without a word in the middle of a run: it ends once all the same."""
    fleet.cordon(host=host)
    run = queue(f"sleep 8; {ANSWER}")
    worker = start_worker()
    of_the_run = {RUN: str(run.pk)}
    until(lambda: any(found["State"] == "running" for found in engine_of(node2).containers(**of_the_run)), seconds=90)
    machine.cut()
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(timeout=5)
    machine.mend()
    worker.wait(timeout=100)
    run.refresh_from_db()
    assert run.state == Run.State.SUCCEEDED, run.detail
    assert run.host == node2
    assert Run.objects.filter(owner=str(run.pk)).count() == 1  # settled once


class TestJoining:
    """Refused before anything is made."""

    @pytest.mark.parametrize("name", ["", "Node", "a b", "../x", "-a", "a-", "x" * 41, "a;b", "node\n"])
    def test_name(self, transactional_db, name):
        with pytest.raises(HostError, match="small letters"):
            fleet.add(name=name, url=URL, slots=1)

    @pytest.mark.parametrize(
        "url",
        ["", "unix:///x", "tcp://h", "tcp://:1", "tcp://h:0", "tcp://h:99999", "http://h:1", "tcp://u@h:1", "tcp://h:1/x",
         "tcp://$(id):1", "tcp://0.0.0.0:1", "tcp://h:1 "],
    )  # fmt: skip
    def test_address(self, transactional_db, url):
        with pytest.raises(HostError, match="tcp://ADDRESS:PORT"):
            fleet.add(name="node2", url=url, slots=1)

    @pytest.mark.parametrize("url", ["tcp://192.0.2.7:2376", "tcp://[2001:db8::1]:2376", "tcp://node-2.example.org:1"])
    def test_good_address(self, transactional_db, url):
        assert url.removeprefix("tcp://") in joining.joining_script(fleet.add(name="node2", url=url, slots=1))

    @pytest.mark.parametrize("folder", ["relative", "/", "/a/../b", "/a b", "/a;b", '/a"b', "/a/"])
    def test_folder(self, transactional_db, folder):
        with pytest.raises(CommandError, match="absolute path"):
            call_command("host_add", "node2", URL, slots=1, folder=folder)
        assert not Host.objects.exists()

    def test_taken(self, transactional_db):
        fleet.add(name="node2", url=URL, slots=1)
        with pytest.raises(HostError, match="already"):
            fleet.add(name="node2", url="tcp://192.0.2.7:1", slots=1)
        with pytest.raises(HostError, match="is that of the host node2"):
            fleet.add(name="node3", url=URL, slots=1)

    def test_no_answer(self, transactional_db, capsys):
        """It takes nothing until it answers, and can be retired."""
        with pytest.raises(CommandError, match="refused"):
            call_command("host_add", "node2", "tcp://127.0.0.1:9", slots=1, seconds=0)
        script = Path(capsys.readouterr().out.rpartition("< ")[2].strip())
        assert script.stat().st_mode & 0o777 == 0o600
        node2 = Host.objects.get()
        assert node2.joining
        for verb in (fleet.uncordon, fleet.drain):
            with pytest.raises(HostError, match="has not answered"):
                verb(host=node2)
        assert fleet.retire(host=node2)
        assert not script.exists()
        assert fleet.add(name="node2", url=URL, slots=3) == node2  # who is retired may come back
        assert node2.slots.count() == 3

    def test_answer_ends_joining_once(self, transactional_db, monkeypatch):
        """The script goes, with its key. Who cordons the host then is not overruled by a look that began before."""
        sound = {"engine": {}, "walls": ["standard"], "complaint": ""}
        monkeypatch.setattr(inspection, "look", lambda host: sound)
        node2 = fleet.add(name="node2", url=URL, slots=1)
        script = joining.keep_script(node2, "a key")
        seen_before = Host.objects.get()
        assert inspection.heartbeat(node2) is None
        assert not script.exists()
        assert Host.objects.get().state == Host.State.ACTIVE
        fleet.cordon(host=Host.objects.get())
        assert inspection.heartbeat(seen_before) is None
        assert Host.objects.get().state == Host.State.CORDONED

    def test_script_that_fails(self, transactional_db, tmp_path):
        """On a machine without Docker."""
        (tmp_path / "id").symlink_to(shutil.which("id"))
        with pytest.raises(CommandError, match=r"(?s)no dockerd.*rejoin"):
            call_command("host_add", "node2", URL, slots=1, through=f"env PATH={tmp_path} {BUSYBOX}")

    @pytest.mark.parametrize("through", ['ssh "root@node2', "/nowhere/ssh root@node2"])
    def test_command_that_cannot_be_run(self, transactional_db, through):
        with pytest.raises(CommandError, match=r"(?s)cannot be run: N.*rejoin"):
            call_command("host_add", "node2", URL, slots=1, through=through)

    def test_folder_of_somebody_else(self, transactional_db, tmp_path):
        """It would be emptied when the host leaves."""
        (tmp_path / "patients.csv").touch()
        with pytest.raises(CommandError, match="something else in"):
            call_command("host_add", "node2", URL, slots=1, through="env", folder=str(tmp_path))

    @pytest.mark.parametrize("room", ["0", "-1", "1000001", "many"])
    def test_room(self, transactional_db, room):
        with pytest.raises(CommandError, match="image-room"):
            call_command("host_add", "node2", URL, "--slots=1", f"--image-room={room}")


def test_fleet_that_cannot_be_formed(transactional_db):
    """Its hosts keep their slots."""
    node = fleet.add(name="node", url="tcp://127.0.0.1:9", slots=3)
    with pytest.raises(CommandError, match="could not be formed"):
        call_command("fleet_form", "ward", "node", slots=2)
    assert node.slots.count() == 3
    assert not Host.objects.filter(name="ward").exists()


def test_fleet_without_its_manager(transactional_db):
    """There is no way to it without certificates; nor does it leave while runs hold its room on nodes that answer."""
    row = Host.objects.create(name="ward", url="swarm+tcp://127.0.0.1:9", heartbeat=timezone.now())
    with pytest.raises(Unreachable, match="TLSParameterError"):
        swarm_of(row).nodes()
    node = Host.objects.create(name="node", url=URL, heartbeat=timezone.now())
    image = Image.objects.create(image_id="sha256:" + "0" * 64)
    until = timezone.now() + timedelta(minutes=1)
    run = Run.objects.create(purpose="questions", step="x", image=image, state="running", host=node, lease_until=until)
    slot = Slot.objects.create(host=row, number=1, run=run)
    with pytest.raises(HostError, match="1 runs under way"):
        fleet.retire(host=row)
    slot.refresh_from_db()
    assert slot.run == run


class TestStates:
    """With a second host that is not there: a port on which nobody listens."""

    @pytest.fixture
    def dead(self, host: Host) -> Host:
        dead = Host.objects.create(name="dead", url="tcp://127.0.0.1:9", walls=["standard"], heartbeat=timezone.now())
        Slot.objects.create(host=dead, number=1)
        Gpu.objects.create(host=dead, uuid="GPU-1", memory_mb=1000)
        return dead

    def test_cordoned_takes_nothing_and_keeps_what_it_has(self, host, queue):
        running, waiting = queue("true"), queue("true")
        claimed = leases.claim("me")
        fleet.cordon(host=host)
        assert leases.claim("me") is None
        assert leases.renew(claimed)
        fleet.uncordon(host=host)
        assert {claimed.pk, leases.claim("me").pk} == {running.pk, waiting.pk}

    def test_draining_waits_for_the_last_run(self, host, engine, queue):
        queue("true")
        claimed = leases.claim("me")
        fleet.drain(host=host)
        reaper.sweep()
        host.refresh_from_db()
        assert host.state == Host.State.DRAINING
        assert actions.cancel(run=claimed)
        reaper.sweep()
        host.refresh_from_db()
        assert host.state == Host.State.DRAINED
        fleet.uncordon(host=host)
        assert host.state == Host.State.ACTIVE

    def test_moves_that_make_no_sense(self, host):
        with pytest.raises(HostError, match="is active"):
            fleet.uncordon(host=host)
        with pytest.raises(HostError, match="this machine's own"):
            fleet.retire(host=host)

    def test_dead_host_is_retired_when_its_leases_are_over_and_its_runs_go_elsewhere(self, host, dead, queue):
        fleet.cordon(host=host)
        run = queue("true")
        claimed = leases.claim("a worker that dies")
        assert claimed.host == dead
        fleet.uncordon(host=host)
        with pytest.raises(HostError, match="under way"):
            fleet.retire(host=dead)
        dead.refresh_from_db()
        assert dead.state == Host.State.CORDONED
        Run.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
        assert "still there" in fleet.retire(host=dead)
        assert not Gpu.objects.exists()
        assert not leases.renew(claimed)  # should it wake up again
        again = leases.claim("me")
        assert (again.pk, again.host, again.lost_leases) == (run.pk, host, 1)
        assert Run.objects.get(pk=run.pk).attempt == claimed.attempt + 1

    def test_nobody_waits_for_a_dead_host(self, host, dead, queue):
        queue("true")
        reaper.sweep()
        dead.refresh_from_db()
        host.refresh_from_db()
        assert dead.complaint
        assert (host.complaint, host.avoid_until) == ("", None)
        assert leases.claim("me").host == host

    def test_host_that_was_not_heard_of_for_long_takes_nothing(self, host, queue):
        queue("true")
        Host.objects.update(heartbeat=timezone.now() - timedelta(hours=1))
        assert leases.claim("me") is None
        reaper.sweep()
        assert leases.claim("me").host == host


class TestImagesOnHosts:
    @pytest.fixture
    def image(self, transactional_db: None, tmp_path: Path) -> Callable[..., Image]:
        """An image of a shell and some layers of so many bytes, each named by its content."""

        def image(**layers: int) -> Image:
            contents = [tar(member(name, name.encode() * (size // len(name)))) for name, size in layers.items()]
            builder = ImageBuilder([busybox_layer(), *contents], config={"Entrypoint": ["/bin/sh", "-c", "true"]})
            archive = builder.docker_archive(tmp_path / f"{uuid.uuid4().hex}.tar")
            return actions.store_image(checked=actions.check_archive(archive=archive))

        return image

    def held(self, host: Host) -> set[Image]:
        """By the books, which must agree with the engine."""
        images = {copy.image for copy in host.copies.all()}
        assert {image.image_id[7:] for image in images} == engine_of(host).loaded_images()
        return images

    def test_only_layers_travel_that_no_image_there_has(self, host, image, monkeypatch):
        supply.supply(host, image(common=3_000_000, first=1000))
        sent = []
        honest = Engine.load

        def load(self: Engine, stream: Any, image_id: str) -> None:
            pieces = list(stream)
            sent.append(sum(map(len, pieces)))
            honest(self, iter(pieces), image_id)

        monkeypatch.setattr(Engine, "load", load)
        supply.supply(host, image(common=3_000_000, second=1000))
        assert len(sent) == 1
        assert sent[0] < 100_000

    def test_least_recently_used_leave_and_what_is_needed_stays(self, host, image, queue, monkeypatch):
        monkeypatch.setattr(supply, "GIGABYTE", 1)  # so that the room is in bytes
        base, used, old, new = (image(**{name: 1_000_000}) for name in ("base", "used", "old", "new"))
        Image.objects.filter(pk=base.pk).update(is_base=True)
        host.image_room_gb = 10**9
        for held in (base, old, used, new):
            supply.supply(host, held)
        queue(used)
        leases.claim("me")
        queue(old)
        Copy.objects.filter(image=used).update(used_at=timezone.now() - timedelta(days=9))  # but a run needs it
        assert self.held(host) == {base, used, old, new}
        shell = supply._size_of(base.layers[:1])
        host.image_room_gb = shell + 3_200_000
        supply.make_room(host)
        assert self.held(host) == {base, used, new}
        coming = image(coming=1_000_000)
        supply.supply(host, coming)
        assert self.held(host) == {base, used, coming}
        host.image_room_gb = 0
        supply.make_room(host)
        assert self.held(host) == {used}

    def test_placing_a_run_counts_as_use(self, host, image, queue):
        needed = image(needed=1000)
        supply.supply(host, needed)
        long_ago = timezone.now() - timedelta(days=9)
        Copy.objects.update(used_at=long_ago)
        queue(needed)
        leases.claim("me")
        assert Copy.objects.get().used_at > long_ago

    def test_books_follow_the_engine(self, host, engine, image):
        gone, known = image(gone=1000), image(known=1000)
        for held in (gone, known):
            supply.supply(host, held)
        engine.remove_image(gone.image_id)
        Copy.objects.filter(image=known).delete()
        supply.look_over(host)
        assert self.held(host) == {known}

    def test_full_disk(self, host, machine, image):
        """Of a host, not of this server: the oldest image makes room, whatever its room is by the books."""
        machine.folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(machine.folder)], check=True)
        data = machine.folder / "node2"
        whole, machine.folder = machine.folder, data
        try:
            node2 = machine.join()
            images = [image(**{name: 24_000_000}) for name in ("first", "second", "third", "fourth")]
            for coming in images:
                supply.supply(node2, coming)
            assert images[-1] in self.held(node2)
            assert images[0] not in self.held(node2)
        finally:
            joining.send(joining.leaving_script(Host(name="node2", url=URL), str(data)), THROUGH)
            machine.folder = whole
            subprocess.run(["umount", "--lazy", str(whole)], check=True)
