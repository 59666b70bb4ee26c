"""Engines that misbehave, and images on their way to an engine."""

import socket
import threading
from collections.abc import Iterator
from uuid import uuid4

import docker
import pytest
from image_builder import ImageBuilder, member, tar

from sandbox import actions, chambers, supply, worker
from sandbox.blobs import blob_path
from sandbox.conf import blob_root
from sandbox.engine import Engine, EngineFault, Unreachable
from sandbox.engine_images import HOLDER_TAG
from sandbox.models import Host, Image, Run
from sandbox.placement import NodesPlace
from sandbox.reasons import Reason, Rejected
from sandbox.swarm import Swarm


@pytest.fixture
def silent_engine() -> Iterator[str]:
    """Accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []

        def accept() -> None:
            while True:
                try:
                    held.append(server.accept())
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


class TestBadEngines:
    @pytest.mark.parametrize("url", ["tcp://127.0.0.1:9", "unix:///no/such/socket"])
    def test_nobody_there(self, url):
        with pytest.raises(Unreachable):
            Engine(url, "x").info()

    def test_manager_without_its_swarm_ends_no_run_on_the_nodes(self, settings):
        """The engine of this machine manages none, and answers as one does that has lost its leader."""
        swarm = Swarm(settings.DOCKER_HOST_URL, "x")
        with pytest.raises(Unreachable, match="swarm"):
            swarm.look("reservation")
        NodesPlace(Engine(settings.DOCKER_HOST_URL, "x"), swarm, "reservation").check()

    def test_one_that_hangs(self, silent_engine, settings):
        settings.SANDBOX = {"engine_timeout": 1}
        with pytest.raises(Unreachable):
            Engine(silent_engine, "x").info()

    def test_run_on_one_that_hangs_goes_back_and_the_host_is_avoided(self, queue, silent_engine, settings, questions):
        settings.SANDBOX = {"engine_timeout": 1, "retry_seconds": 0}
        run = queue("true")
        Host.objects.update(url=silent_engine)
        assert worker.work() == 1
        run.refresh_from_db()
        assert (run.state, run.faults) == (Run.State.QUEUED, 0)
        assert Host.objects.get().avoid_until is not None
        assert questions.settled == []


class TestImages:
    def test_foreign_tags_do_nothing(self, run, host, engine, tmp_path, settings):
        """An upload that claims a name of ours leaves that name where it was."""
        run("true", collect={})
        name = f"{engine.prefix}/holder:{HOLDER_TAG}"
        before = engine._client.inspect_image(name)["Id"]
        builder = ImageBuilder(config={"Cmd": ["/x"]}, tags=[name, "busybox:latest"])
        archive = builder.docker_archive(tmp_path / "thief.tar")
        image = actions.store_image(checked=actions.check_archive(archive=archive))
        supply.supply(host, image)
        assert engine._client.inspect_image(name)["Id"] == before
        tags = engine._client.inspect_image(image.image_id)["RepoTags"]
        assert tags == [f"{engine.prefix}/{image.image_id[7:]}:run"]

    def test_image_is_loaded_when_it_is_not_there(self, run, engine, make_image):
        image = make_image(f"echo yes > /output/answer.txt # {uuid4()}")  # which no other test has left here
        assert not engine.has_image(image.image_id)
        assert run(image).state == Run.State.SUCCEEDED
        assert engine.layers(image.image_id) == image.layers
        chambers.close()  # with all containers, which would keep the image
        engine.remove_image(image.image_id)
        assert not engine.has_image(image.image_id)
        assert run(image).state == Run.State.SUCCEEDED

    def test_only_missing_layers_travel(self, host, engine, tmp_path, monkeypatch):
        base = ImageBuilder(layers=[tar(member("base", b"b" * 5_000_000))], config={"Cmd": ["/x"]})
        archive = base.docker_archive(tmp_path / "base.tar")
        supply.supply(host, actions.register_base_image(archive=archive, name="base"))
        thin = ImageBuilder(layers=[*base.layers, tar(member("mine", b"1"))])
        archive = thin.docker_archive(tmp_path / "thin.tar", without=(0,))
        image = actions.store_image(checked=actions.check_archive(archive=archive))
        sent = []
        honest = Engine.load

        def load(self, stream, image_id):
            pieces = list(stream)
            sent.append(sum(map(len, pieces)))
            honest(self, iter(pieces), image_id)

        monkeypatch.setattr(Engine, "load", load)
        supply.supply(host, image)
        assert len(sent) == 1
        assert sent[0] < 100_000
        assert engine.layers(image.image_id) == image.layers

    def test_base_image_that_has_gone_from_the_engine(self, host, engine, tmp_path):
        base = ImageBuilder(config={"Cmd": ["/x"]})
        archive = base.docker_archive(tmp_path / "base.tar")
        actions.register_base_image(archive=archive, name="base")
        thin = ImageBuilder(layers=[*base.layers, tar(member("mine", b"2"))])
        archive = thin.docker_archive(tmp_path / "thin.tar", without=(0,))
        image = actions.store_image(checked=actions.check_archive(archive=archive))
        supply.supply(host, image)
        assert engine.layers(image.image_id) == image.layers

    def test_blob_that_is_gone_is_a_platform_fault(self, run, make_image):
        image = make_image("true")
        blob_path(blob_root(), image.layers[0]).unlink()
        ended = run(image)
        assert ended.reason == Reason.PLATFORM_FAULT

    def test_saved_by_the_engine_itself(self, host, engine, tmp_path):
        """A real `docker save`, as a participant makes it."""
        client = engine._client
        client.import_image_from_data(
            tar(member("hello", b"x")),
            repository=f"{engine.prefix}/mine",
            tag="1",
            changes=['CMD ["/hello"]'],
        )
        name = f"{engine.prefix}/mine:1"
        archive = tmp_path / "saved.tar"
        with archive.open("wb") as file:
            for piece in client.get_image(name):
                file.write(piece)
        checked = actions.check_archive(archive=archive)
        assert checked.image_id == client.inspect_image(name)["Id"]
        assert checked.command == ("/hello",)
        assert isinstance(actions.store_image(checked=checked), Image)

    def test_hung_engine_fault_says_what_it_was_doing(self):
        with pytest.raises(EngineFault, match="ask the engine for its version"):
            Engine("tcp://127.0.0.1:9", "x").info()


class TestLayersThatCannotBeUnpacked:
    """The engine tells them in words only. Each of these is what Docker 20.10 or a newer one says."""

    @pytest.fixture
    def load(self, engine, monkeypatch):
        def load(message):
            monkeypatch.setattr(docker.APIClient, "load_image", lambda self, data: [{"error": message}])
            engine.load([], "sha256:" + "0" * 64)

        return load

    @pytest.mark.parametrize(
        "message",
        [
            "Error processing tar file(exit status 1): link /nosuch /b: no such file or directory",
            "Error processing tar file(exit status 1): open /no space left on device: not a directory",
            "failed to register layer: link /nosuch /b: no such file or directory",
        ],
    )
    def test_are_the_images_fault(self, load, message):
        with pytest.raises(Rejected) as caught:
            load(message)
        assert caught.value.reason == Reason.IMAGE_INVALID

    @pytest.mark.parametrize(
        "message",
        [
            "Error processing tar file(exit status 1): write /bin/sh: no space left on device",
            "failed to register layer: write /bin/sh: No space left on device",
            "Error processing tar file(exit status 1): unexpected EOF",
            "Error processing tar file(signal: killed): ",
            "open /var/lib/docker/tmp/docker-import-1/manifest.json: no such file or directory",
        ],
    )
    def test_are_not_when_the_host_is_in_trouble(self, load, message):
        with pytest.raises(EngineFault):
            load(message)
