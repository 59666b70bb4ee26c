"""One Docker Engine, behind the few verbs that a run needs: prepare inputs, start, wait, collect, remove.

Everything goes through the engine's API, so a remote engine serves as well as a local one. Every call has a time-out,
and whatever goes wrong on the way is an `EngineFault`: a fault of the platform, never of the image.
"""

import contextlib
import errno
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import docker
import requests
import urllib3
from docker.errors import APIError, DockerException, NotFound

from sandbox import holder, walls
from sandbox.conf import conf
from sandbox.reasons import Reason, Rejected, gettext_noop
from sandbox.streams import tar_of
from sandbox.zygote import OUR_TROUBLES

INSTALLATION, RUN, ATTEMPT, WORKER, HOLDER, BORN = (
    f"anomed.{name}" for name in ("installation", "run", "attempt", "worker", "holder", "born")
)


class EngineFault(Exception):
    """The engine did not do what it was asked, through no fault of the image."""


class Unreachable(EngineFault):
    """The engine did not answer at all."""


class NotThere(EngineFault):
    """The engine has no such image, container or volume."""


@dataclass(frozen=True)
class Chamber:
    """Two volumes for one run, kept by a holder that keeps some more: `number` is their place in it.

    `holder_id` names the holder in labels, `holder` is its container, `volumes` are all that it keeps.
    """

    holder_id: str
    holder: str
    number: int
    volumes: tuple[str, ...]
    output_mb: int
    born: float

    @property
    def inputs(self) -> str:
        """The volume that becomes /input."""
        return self.volumes[2 * self.number]

    @property
    def outputs(self) -> str:
        """The volume that becomes /output."""
        return self.volumes[2 * self.number + 1]


@dataclass(frozen=True)
class Ending:
    """How a container ended: exit status, whether the kernel killed any of its processes for memory, seconds."""

    exit_code: int
    out_of_memory: bool
    seconds: float


@contextlib.contextmanager
def _asking(what: str) -> Iterator[None]:
    """Turns whatever may go wrong on the way to the engine into an EngineFault that says what was being done."""
    try:
        yield
    except NotFound as error:
        raise NotThere(f"{what}: {error.explanation}") from error
    except APIError as error:
        raise EngineFault(f"{what}: {error.explanation}") from error
    except (requests.RequestException, urllib3.exceptions.HTTPError, DockerException, OSError) as error:
        raise Unreachable(f"{what}: {type(error).__name__}") from error


class Engine:
    """The engine at `url`. May be shared by threads: each has a client of its own, as the SDK wants it."""

    def __init__(self, url: str, installation: str) -> None:
        self.url = url
        self.installation = installation
        self.prefix = f"anomed-{re.sub('[^a-z0-9]', '', installation.lower())[:8]}"  # of all names that we give
        self._local = threading.local()
        self._version: str | None = None
        self._holder_image: str | None = None

    @property
    def _client(self) -> Any:  # a docker.APIClient, many of whose methods have no types
        client = getattr(self._local, "client", None)
        if client is None:
            client = self._connect(conf().engine_timeout)
            self._local.client = client
        return client

    def _connect(self, timeout: int) -> Any:
        client: Any = docker.APIClient(base_url=self.url, version=self._version or "auto", timeout=timeout)
        self._version = client.api_version
        return client

    def hang_up(self) -> None:
        """Closes the connections of the calling thread, which the SDK would keep by the dozen."""
        client = self._local.__dict__.pop("client", None)
        if client is not None:
            client.close()

    def _labels(self, **more: str) -> dict[str, str]:
        return {INSTALLATION: self.installation, **more}

    def info(self) -> dict[str, Any]:
        """What the engine says of itself: version, kernel, cgroup version, security options, runtimes."""
        with _asking("ask the engine for its version"):
            answer = self._client.info()
        names = ("ServerVersion", "KernelVersion", "CgroupVersion", "SecurityOptions", "Runtimes", "NCPU", "MemTotal")
        return {name: answer.get(name) for name in names}

    # -- chambers

    def prepare(self, holder_id: str, output_mb: int, worker: str, count: int) -> list[Chamber]:
        """Makes chambers: pairs of empty volumes, held by one container."""
        born = time.time()
        prefix = f"{self.prefix}-{holder_id}"
        labels = self._labels(**{HOLDER: holder_id, WORKER: worker, BORN: str(int(born))})
        settings = conf()
        options = walls.output_volume(output_mb, settings.inodes)
        volumes = tuple(f"{prefix}-{number}-{side}" for number in range(count) for side in ("in", "out"))
        with _asking("prepare chambers"):
            client = self._client
            for volume in volumes:
                driver_opts = options if volume.endswith("out") else None
                client.create_volume(volume, driver="local", driver_opts=driver_opts, labels=labels)
            config = walls.holder(
                image=self._holder(), program=holder.PROGRAM, volumes=volumes, labels=labels, conf=settings
            )
            container = str(client.create_container_from_config(config, name=f"{prefix}-holder")["Id"])
            client.start(container)
        return [Chamber(holder_id, container, number, volumes, output_mb, born) for number in range(count)]

    def _holder(self) -> str:
        """The id of the holder's image, which is imported when the engine does not have it."""
        if self._holder_image is None:
            repository = f"{self.prefix}/holder"
            try:
                found = self._client.inspect_image(f"{repository}:1")
            except NotFound:
                self._client.import_image_from_data(holder.image_tar(), repository=repository, tag="1")
                found = self._client.inspect_image(f"{repository}:1")
            self._holder_image = str(found["Id"])
        return self._holder_image

    def forget_holder(self) -> None:
        """Looks the holder's image up again next time: somebody may have removed it."""
        self._holder_image = None

    def put(self, chamber: Chamber, folder: Path) -> None:
        """Copies a folder's content to /input."""
        with _asking("copy the inputs"):
            self._client.put_archive(chamber.holder, walls.held_input(chamber.number), _ours(tar_of(folder)))

    @contextlib.contextmanager
    def outputs(self, chamber: Chamber) -> Iterator[Iterable[bytes]]:
        """The content of /output as a tar stream, in pieces. To be read with suspicion."""
        with _asking("read the outputs"):
            stream, _stat = self._client.get_archive(chamber.holder, walls.held_output(chamber.number) + "/.")
        try:
            yield _guarded(stream, "read the outputs")
        finally:
            stream.close()  # or the engine goes on sending, and holds on to the container

    def check_held(self, chamber: Chamber) -> None:
        """Raises EngineFault if the holder has ended: then so have the run's container and outputs, innocently."""
        if not self._running(chamber.holder):
            raise EngineFault("the holder has ended before the run")

    # -- containers

    def create(self, config: dict[str, Any], labels: dict[str, str]) -> str:
        """Creates, without starting it, a container that carries these labels; returns its id."""
        with _asking("create the container"):
            name = f"{self.prefix}-{labels[RUN]}-{labels[ATTEMPT]}"
            config = {**config, "Labels": self._labels(**labels)}
            return str(self._client.create_container_from_config(config, name=name)["Id"])

    def start(self, container: str) -> None:
        """Starts it. Raises `Rejected` (crashed) when the image's own program cannot be started."""
        try:
            with _asking("start the container"):
                self._client.start(container)
        except EngineFault as fault:
            if _is_the_images_fault(fault):
                raise Rejected(Reason.CRASHED, _CANNOT_START) from fault
            raise

    def wait(self, container: str, seconds: float) -> bool:
        """Waits until it ends; False if it is still running after so many seconds. A cut line is picked up again."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                self._client.wait(container, timeout=left)
                return True
            except (requests.ConnectionError, requests.Timeout):
                if time.monotonic() < deadline and not self._running(container):
                    return True
            except (requests.RequestException, DockerException, OSError) as error:
                raise EngineFault(f"wait for the container: {type(error).__name__}") from error
        return False

    def _running(self, container: str) -> bool:
        with _asking("look at the container"):
            return bool(self._client.inspect_container(container)["State"]["Running"])

    def kill(self, container: str) -> None:
        """Stops it at once. One that is not running is left alone."""
        with _asking("stop the container"):
            _ignoring_gone(self._client.kill, container)

    def ending(self, container: str) -> Ending:
        """How it ended. Raises EngineFault if it has not."""
        with _asking("look at the container"):
            state = self._client.inspect_container(container)["State"]
        if state["Running"]:
            raise EngineFault("the container does not stop")
        seconds = (_instant(state["FinishedAt"]) - _instant(state["StartedAt"])).total_seconds()
        return Ending(int(state["ExitCode"]), bool(state["OOMKilled"]), max(0.0, seconds))

    def memory(self, container: str) -> int:
        """Most bytes that it has used so far, as far as the kernel says; 0 if it has ended."""
        with _asking("look at the container's memory"):
            stats = self._client.stats(container, stream=False, one_shot=True).get("memory_stats", {})
        return int(stats.get("max_usage") or stats.get("usage") or 0)

    def log(self, container: str, target: Path, limit: int) -> None:
        """Writes the last `limit` bytes of standard output and error to a file."""
        kept = bytearray()
        with _asking("read the log"):
            for piece in self._client.logs(container, stdout=True, stderr=True, stream=True):
                kept += piece
                del kept[: max(0, len(kept) - limit)]
        target.write_bytes(kept)

    # -- images

    def has_image(self, image_id: str) -> bool:
        """Whether the engine could start it now."""
        return self.layers(image_id) is not None

    def layers(self, image_id: str) -> list[str] | None:
        """The layers of an image that the engine holds; None if it does not."""
        try:
            with _asking("look for the image"):
                return list(self._client.inspect_image(image_id)["RootFS"]["Layers"])
        except NotThere:
            return None

    def load(self, stream: Iterable[bytes], image_id: str) -> None:
        """Loads a docker-archive that we wrote ourselves, and gives the image a private name so that it is kept.

        Raises `Rejected` (image_invalid) when a layer cannot be unpacked, through its own fault.
        """
        with _asking("load the image"):
            client = self._connect(conf().load_timeout)
            try:
                for message in client.load_image(_ours(stream)) or ():
                    if "error" in message:
                        _refuse_unusable_layer(message["error"])
                        raise EngineFault(f"load the image: {message['error']}")
                client.tag(image_id, f"{self.prefix}/{abbreviated(image_id)}", "run")
            finally:
                client.close()

    def remove_image(self, image_id: str) -> None:
        """Takes an image off the engine, by its private name first. One in use stays."""
        with contextlib.suppress(EngineFault), _asking("remove the image"):
            self._client.remove_image(f"{self.prefix}/{abbreviated(image_id)}:run")

    def loaded_images(self) -> set[str]:
        """The abbreviated ids of all images that were loaded for this installation."""
        with _asking("list the images"):
            names = [name for image in self._client.images(name=f"{self.prefix}/*") for name in image["RepoTags"] or ()]
        kept = re.compile(rf"{re.escape(self.prefix)}/([0-9a-f]{{12}}):run")
        return {match[1] for name in names if (match := kept.fullmatch(name))}

    # -- what is left

    def containers(self, **labels: str) -> list[dict[str, Any]]:
        """All containers of this installation that carry these labels, running or not: `Id`, `Labels`, `State`."""
        wanted = [f"{name}={value}" for name, value in self._labels(**labels).items()]
        with _asking("list the containers"):
            return list(self._client.containers(all=True, filters={"label": wanted}))

    def volumes(self, **labels: str) -> list[dict[str, Any]]:
        """All volumes of this installation that carry these labels: `Name`, `Labels`."""
        wanted = [f"{name}={value}" for name, value in self._labels(**labels).items()]
        with _asking("list the volumes"):
            return list(self._client.volumes(filters={"label": wanted})["Volumes"] or [])

    def remove(self, containers: Iterable[str], volumes: Iterable[str]) -> None:
        """Removes them, running or not. What is gone already, or just going, is no error."""
        with _asking("remove leftovers"):
            for container in containers:
                _ignoring_gone(self._client.remove_container, container, force=True, v=True)
            for volume in volumes:
                _ignoring_gone(self._client.remove_volume, volume, force=True)

    def remove_holder(self, holder_id: str) -> None:
        """Removes a holder with its volumes, and every container that uses them."""
        containers = [container["Id"] for container in self.containers(**{HOLDER: holder_id})]
        self.remove(containers, [volume["Name"] for volume in self.volumes(**{HOLDER: holder_id})])


def labels_of(run: str, attempt: int, worker: str, chamber: Chamber) -> dict[str, str]:
    """What a run's container says about itself."""
    return {RUN: run, ATTEMPT: str(attempt), WORKER: worker, HOLDER: chamber.holder_id}


def engine_at(url: str, installation: str) -> Engine:
    """The engine at that address, the same object each time, so that its connections are used again."""
    return _engine(url, installation, os.getpid())  # a forked process must not share its parent's connections


@lru_cache(maxsize=64)
def _engine(url: str, installation: str, process: int) -> Engine:
    return Engine(url, installation)


def _guarded(stream: Iterable[bytes], what: str) -> Iterator[bytes]:
    """The pieces of a stream. Only its own troubles become faults of the engine, not those of whoever reads it."""
    with _asking(what):
        yield from stream


def _ours(stream: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces of a stream that we send. A file of ours that is gone is not the engine's silence."""
    try:
        yield from stream
    except OSError as error:
        raise EngineFault(f"a file of ours could not be read: {type(error).__name__}") from error


def abbreviated(image_id: str) -> str:
    """As much of an image's id as its private name has."""
    return image_id.removeprefix("sha256:")[:12]


_CANNOT_UNPACK = gettext_noop(
    "A layer of the image cannot be unpacked: it has a link to a file that is not there, or a file in a place where "
    "none can be. Build the image anew and save it with `docker save IMAGE`."
)
# how the engine says that unpacking failed: the programs that it starts for it have ended by themselves
_UNPACKING = re.compile(r"(?:Error processing tar file\(exit status \d+\)|failed to register layer): ")
_TROUBLES_OF_A_HOST = (*(os.strerror(number).lower() for number in (*OUR_TROUBLES, errno.ENOMEM)), "unexpected eof")


def _refuse_unusable_layer(message: str) -> None:
    """Raises `Rejected` if a layer's content made the engine say this.

    What happened comes last in the message; before that it may quote paths, which are the participant's.
    """
    if _UNPACKING.match(message) and not message.strip().lower().endswith(_TROUBLES_OF_A_HOST):
        raise Rejected(Reason.IMAGE_INVALID, _CANNOT_UNPACK)


_CANNOT_START = gettext_noop(
    "The image's program could not be started. Check its working directory, and that it has no files at /input, "
    "/output and /tmp."
)


def _is_the_images_fault(fault: EngineFault) -> bool:
    text = str(fault)
    return "OCI runtime" in text and any(word in text for word in ("not a directory", "cwd", "working directory"))


def _ignoring_gone(remove: Callable[..., Any], name: str, **options: Any) -> None:
    try:
        remove(name, **options)
    except APIError as error:
        if error.status_code not in (404, 409):  # 409: not running, or somebody else is removing it right now
            raise


def _instant(text: str) -> datetime:
    """The engine's time stamps have nanoseconds, and Python reads at most microseconds."""
    seconds, _dot, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{seconds}.{fraction[:6]:0<6}+00:00")
