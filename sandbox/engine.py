"""One Docker Engine, behind the few verbs that a run needs: prepare inputs, start, wait, collect, remove.

Everything goes through the engine's API, so a remote engine serves as well as a local one. Every call has a time-out,
and whatever goes wrong on the way is an `EngineFault`: a fault of the platform, never of the image.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import requests
import urllib3
from docker.errors import DockerException

from sandbox import holder, walls
from sandbox.conf import conf
from sandbox.connection import (
    INSTALLATION,
    EngineFault,
    NotThere,
    Unreachable,
    asking,
    guarded,
    ignoring_gone,
    ours,
    timed_out,
)
from sandbox.engine_images import EngineImages
from sandbox.engine_words import CANNOT_START, NO_RUNTIME, is_the_images_fault
from sandbox.reasons import Reason, Rejected
from sandbox.streams import tar_of

__all__ = [
    "ATTEMPT", "BORN", "HOLDER", "INSTALLATION", "OPTIONS", "RUN", "WORKER",
    "Chamber", "Ending", "Engine", "EngineFault", "NotThere", "Restarted", "Unreachable", "labels_of",
]  # fmt: skip

RUN, ATTEMPT, WORKER, HOLDER, BORN, CHAMBER, OPTIONS = (
    f"anomed.{name}" for name in ("run", "attempt", "worker", "holder", "born", "chamber", "options")
)
MOST_LINE = 1 << 12  # bytes of a line that is followed; a longer one is cut
LOOK_SECONDS = 60  # between looks at a container that is being waited for


class Restarted(EngineFault):
    """The engine was restarted under a run, through nobody's fault here."""


@dataclass(frozen=True)
class Chamber:
    """Two volumes for one run, kept by a holder that keeps some more: `number` is their place in it.

    `holder_id` names the holder in labels, `holder` is its container, `volumes` are all that it keeps, `hosts` is the
    file that the engine has written to be its /etc/hosts, by its path on the engine's machine.
    """

    holder_id: str
    holder: str
    number: int
    volumes: tuple[str, ...]
    output_mb: int
    born: float
    hosts: str

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
    """How a container ended: exit status, whether the kernel killed any of its processes for memory, seconds, when."""

    exit_code: int
    out_of_memory: bool
    seconds: float
    at: datetime


@dataclass(frozen=True)
class Progress:
    """What has become of a container: seconds since its start by the engine's own clock (0: it was not started yet),
    whether it is running, and its exit status if it has ended.
    """

    seconds: float
    running: bool
    exit_code: int


@dataclass(frozen=True)
class Trial:
    """What an engine made of a container: warnings, its account of it, and the exit status if it ended in time."""

    warnings: list[str]
    seen: dict[str, Any]
    exit_code: int | None


class Engine(EngineImages):
    """One engine, as its line and its images are. May be shared by threads."""

    # -- chambers

    def prepare(self, holder_id: str, output_mb: int, worker: str, count: int) -> list[Chamber]:
        """Makes chambers: pairs of empty volumes, held by one container."""
        born = time.time()
        prefix = f"{self.prefix}-{holder_id}"
        labels = self._labels(**{HOLDER: holder_id, WORKER: worker, BORN: str(int(born))})
        settings = conf()
        options = walls.output_volume(output_mb, settings.inodes)
        volumes = _volumes(prefix, count)
        with asking("prepare chambers"):
            client = self._client
            for volume in volumes:
                driver_opts = options if volume.endswith("out") else None
                client.create_volume(volume, driver="local", driver_opts=driver_opts, labels=labels)
            config = walls.holder(
                image=self.holder_image(), program=holder.PROGRAM, volumes=volumes, labels=labels, conf=settings
            )
            container = str(client.create_container_from_config(config, name=f"{prefix}-holder")["Id"])
            client.start(container)
            hosts = str(client.inspect_container(container)["HostsPath"])
        return [Chamber(holder_id, container, number, volumes, output_mb, born, hosts) for number in range(count)]

    def put(self, chamber: Chamber, folder: Path) -> None:
        """Copies a folder's content to /input."""
        with asking("copy the inputs"):
            self._client.put_archive(chamber.holder, walls.held_input(chamber.number), ours(tar_of(folder)))

    def put_back(self, chamber: Chamber, folder: Path) -> None:
        """Copies a folder's content to where a run writes, so that its user, whoever that is, may go on writing it."""
        with asking("copy what was kept"):
            stream = ours(tar_of(folder, writable=True))
            self._client.put_archive(chamber.holder, walls.held_output(chamber.number), stream)

    @contextlib.contextmanager
    def outputs(self, chamber: Chamber, ended: datetime) -> Iterator[Iterable[bytes]]:
        """The content of /output as a tar stream, in pieces, of a run that `ended` then. To be read with suspicion.

        Raises EngineFault if the engine shows an empty folder in its place. One that was restarted does, although the
        holder lives on (live-restore): it has forgotten that the volume is mounted, and mounts another over it.
        """
        with asking("read the outputs"):
            stream, stat = self._client.get_archive(chamber.holder, walls.held_output(chamber.number) + "/.")
        try:
            if datetime.fromisoformat(stat["mtime"]) > ended:
                self.check_held(chamber)
                raise Restarted("the engine was restarted and has lost the outputs")
            yield guarded(stream, "read the outputs")
        finally:
            stream.close()  # or the engine goes on sending, and holds on to the container

    @contextlib.contextmanager
    def output(self, chamber: Chamber, path: str) -> Iterator[Iterable[bytes]]:
        """One file of /output as a tar stream, while the run goes on. To be read with suspicion."""
        with asking("read an output"):
            stream, _stat = self._client.get_archive(chamber.holder, f"{walls.held_output(chamber.number)}/{path}")
        try:
            yield guarded(stream, "read an output")
        finally:
            stream.close()

    def check_held(self, chamber: Chamber) -> None:
        """Raises EngineFault if the holder has ended: then so have the run's container and outputs, innocently."""
        if not self.running(chamber.holder):
            raise EngineFault("the holder has ended before the run")

    def chamber_of(self, labels: dict[str, str], output_mb: int) -> Chamber:
        """The chamber that a container with these labels uses. Raises EngineFault if its holder has ended."""
        holder_id, number = labels[HOLDER], int(labels[CHAMBER])
        containers = self.containers(**{HOLDER: holder_id})
        running = [found for found in containers if RUN not in found["Labels"] and found["State"] == "running"]
        if len(running) != 1:
            raise NotThere(f"the holder {holder_id} does not run")
        count = len(self.volumes(**{HOLDER: holder_id})) // 2
        volumes = _volumes(f"{self.prefix}-{holder_id}", count)
        with asking("look at the holder"):
            hosts = str(self._client.inspect_container(running[0]["Id"])["HostsPath"])
        born = float(running[0]["Labels"][BORN])
        return Chamber(holder_id, running[0]["Id"], number, volumes, output_mb, born, hosts)

    # -- containers

    def create(self, config: dict[str, Any], labels: dict[str, str], name: str = "") -> str:
        """Creates, without starting it, a container that carries these labels; returns its id.

        Unless it gets a name it has that of its run and attempt, which no other can have. Raises `Rejected` (crashed)
        when the image itself stands in the way.
        """
        try:
            with asking("create the container"):
                name = f"{self.prefix}-{name}" if name else self._name(labels[RUN], int(labels[ATTEMPT]))
                config = {**config, "Labels": self._labels(**labels)}
                return str(self._client.create_container_from_config(config, name=name)["Id"])
        except EngineFault as fault:
            if is_the_images_fault(fault):
                raise Rejected(Reason.CRASHED, CANNOT_START) from fault
            if NO_RUNTIME.search(str(fault)):  # gVisor was taken off the host since it was last looked at
                raise Unreachable(str(fault)) from fault
            raise

    def try_out(self, config: dict[str, Any], chamber: Chamber, seconds: float) -> Trial:
        """Runs a container of ours to its end, for so long at most, and says what the engine made of its options."""
        labels = self._labels(**{HOLDER: chamber.holder_id, BORN: str(int(chamber.born))})
        with asking("try the walls"):
            client = self._client
            created = client.create_container_from_config({**config, "Labels": labels}, name=None)
            container = str(created["Id"])
            try:
                client.start(container)
                ended = self.wait(container, seconds)
                seen = client.inspect_container(container)
            finally:
                ignoring_gone(client.remove_container, container, force=True, v=True)
        warnings = [str(warning) for warning in created.get("Warnings") or ()]
        return Trial(warnings, seen, int(seen["State"]["ExitCode"]) if ended else None)

    def _name(self, run: str, attempt: int) -> str:
        return f"{self.prefix}-{run}-{attempt}"

    def hand_over(self, container: str, run: str, attempt: int) -> None:
        """Makes a container that of another attempt: by its name, because labels cannot be changed."""
        with asking("hand the container over"):
            self._client.rename(container, self._name(run, attempt))

    def progress(self, container: str) -> Progress:
        """How far it has come."""
        with asking("look at the container"):
            state = self._client.inspect_container(container)["State"]
            started = datetime.fromisoformat(state["StartedAt"])
            now = datetime.fromisoformat(self._client.info()["SystemTime"])
        seconds = max(0.0, (now - started).total_seconds()) if started.year > 1 else 0.0
        return Progress(seconds, bool(state["Running"]), int(state["ExitCode"]))

    def start(self, container: str) -> None:
        """Starts it. Raises `Rejected` (crashed) when the image's own program cannot be started."""
        try:
            with asking("start the container"):
                self._client.start(container)
        except Unreachable:  # then there is nothing more to ask
            raise
        except EngineFault as fault:
            if is_the_images_fault(fault) or self._meets_a_file(container):
                raise Rejected(Reason.CRASHED, CANNOT_START) from fault
            raise

    def _meets_a_file(self, container: str) -> bool:
        """Whether the image has a file where a folder of ours goes: gVisor does not say why it cannot start.

        The engine mounts the volumes itself when it is asked for something in them, and does say why it cannot.
        """
        try:
            with asking("look for what it cannot start with"):
                stream, _stat = self._client.get_archive(container, walls.OUTPUT)
                stream.close()
        except EngineFault as fault:
            return str(fault).endswith("not a directory")
        return False

    def wait(self, container: str, seconds: float) -> bool:
        """Waits until it ends; False if it is still running after so many seconds. A cut line is picked up again.

        Looks in between, because a host that has lost its power says nothing at all: raises Unreachable then.
        """
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                self._client.wait(container, timeout=min(left, LOOK_SECONDS))
                return True
            except DockerException as error:
                raise EngineFault(f"wait for the container: {type(error).__name__}") from error
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
                if not timed_out(error):
                    self.cut_at = time.monotonic()
                if time.monotonic() < deadline and not self._still_running(container):
                    return True
        return False

    def _still_running(self, container: str) -> bool:
        """Whether it runs on. An engine that is just being started again is given a while."""
        patience = time.monotonic() + conf().engine_patience
        while True:
            try:
                return self.running(container)
            except Unreachable:
                if time.monotonic() > patience:
                    raise
                time.sleep(0.5)

    def running(self, container: str) -> bool:
        """Whether it has been started and has not ended."""
        with asking("look at the container"):
            return bool(self._client.inspect_container(container)["State"]["Running"])

    def kill(self, container: str) -> None:
        """Stops it at once. One that is not running is left alone."""
        with asking("stop the container"):
            ignoring_gone(self._client.kill, container)

    def ending(self, container: str) -> Ending:
        """How it ended. Raises EngineFault if it has not."""
        with asking("look at the container"):
            state = self._client.inspect_container(container)["State"]
        if state["Running"]:
            raise EngineFault("the container does not stop")
        began, ended = (datetime.fromisoformat(state[name]) for name in ("StartedAt", "FinishedAt"))
        seconds = (ended - began).total_seconds()
        return Ending(int(state["ExitCode"]), bool(state["OOMKilled"]), max(0.0, seconds), ended)

    def memory(self, container: str) -> int:
        """Most bytes that it has used so far, as far as the kernel says; 0 if it has ended."""
        with asking("look at the container's memory"):
            stats = self._brief.stats(container, stream=False, one_shot=True).get("memory_stats", {})
        return int(stats.get("max_usage") or stats.get("usage") or 0)

    def lines(self, container: str) -> Iterator[str]:
        """What it says on standard output, line by line, until it ends. EngineFault after a long silence."""
        rest = b""
        with asking("follow the container"):
            pieces = self._client.logs(container, stdout=True, stderr=False, stream=True, follow=True)
        for piece in guarded(pieces, "follow the container"):
            *whole, rest = (rest[:MOST_LINE] + piece).split(b"\n")
            yield from (line.decode("ascii", "replace") for line in whole)

    def log(self, container: str, target: Path, limit: int, *, stdout: bool = True) -> None:
        """Writes the last `limit` bytes of standard output, if that is wanted, and error to a file."""
        kept = bytearray()
        with asking("read the log"):
            for piece in self._client.logs(container, stdout=stdout, stderr=True, stream=True):
                kept += piece
                del kept[: max(0, len(kept) - limit)]
        target.write_bytes(kept)

    # -- what is left

    def containers(self, **labels: str) -> list[dict[str, Any]]:
        """All containers of this installation that carry these labels, running or not: `Id`, `Labels`, `State`.

        A run's container has the label of the attempt to which it was handed over.
        """
        wanted = [f"{name}={value}" for name, value in self._labels(**labels).items()]
        with asking("list the containers"):
            found = list(self._client.containers(all=True, filters={"label": wanted}))
        for container in found:
            if RUN in container["Labels"] and container["Names"]:
                container["Labels"][ATTEMPT] = container["Names"][0].rpartition("-")[2]
        return found

    def volumes(self, **labels: str) -> list[dict[str, Any]]:
        """All volumes of this installation that carry these labels: `Name`, `Labels`."""
        wanted = [f"{name}={value}" for name, value in self._labels(**labels).items()]
        with asking("list the volumes"):
            return list(self._client.volumes(filters={"label": wanted})["Volumes"] or [])

    def remove(self, containers: Iterable[str], volumes: Iterable[str]) -> None:
        """Removes them, running or not. What is gone already, or just going, is no error."""
        with asking("remove leftovers"):
            for container in containers:
                ignoring_gone(self._client.remove_container, container, force=True, v=True)
            for volume in volumes:
                ignoring_gone(self._client.remove_volume, volume, force=True)

    def remove_holder(self, holder_id: str) -> None:
        """Removes a holder with its volumes, and every container that uses them."""
        containers = [container["Id"] for container in self.containers(**{HOLDER: holder_id})]
        self.remove(containers, [volume["Name"] for volume in self.volumes(**{HOLDER: holder_id})])


def labels_of(run: str, attempt: int, worker: str, chamber: Chamber, config: dict[str, Any]) -> dict[str, str]:
    """What a run's container says about itself. `config`: with what options it is created."""
    return {
        RUN: run,
        ATTEMPT: str(attempt),
        WORKER: worker,
        HOLDER: chamber.holder_id,
        CHAMBER: str(chamber.number),
        OPTIONS: hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest(),
    }


def _volumes(prefix: str, count: int) -> tuple[str, ...]:
    """The names of a holder's volumes: input and output of its chambers in turn."""
    return tuple(f"{prefix}-{number}-{side}" for number in range(count) for side in ("in", "out"))
