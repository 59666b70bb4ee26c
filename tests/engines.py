"""Docker Engines beside this machine's own, each in a folder and a network namespace of its own: hosts for tests.

An engine has no bridge: our containers have no network anyway. It needs root, as does starting an engine at all.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker

BRIDGE, NET = "anomed0", "10.77.0"  # the cable between the namespaces; this machine is NET.1


@dataclass
class SpareEngine:
    """An engine at `url` (a unix socket) and in the namespace `anomed-NAME` at `address`. Use as a context manager."""

    name: str
    number: int  # the last byte of its address: 2 to 254, one for each engine of a test
    arguments: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)  # its daemon.json
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="anomed-engine-")))
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def namespace(self) -> str:
        return f"anomed-{self.name}"

    @property
    def inside(self) -> list[str]:
        """What makes a command run in its namespace. Unlike `ip netns exec` it leaves the cgroups mounted."""
        return ["nsenter", f"--net=/run/netns/{self.namespace}"]

    @property
    def address(self) -> str:
        return f"{NET}.{self.number}"

    @property
    def socket(self) -> Path:
        return self.folder / "docker.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def __enter__(self) -> "SpareEngine":
        try:
            add_namespace(self.namespace, self.address, self.number)
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        delete_namespace(self.namespace)
        unmount_below(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        self.folder.chmod(0o711)  # an engine that remaps users must pass as nobody
        config = self.folder / "daemon.json"
        config.write_text(json.dumps(dict(self.config)))
        command = [
            *self.inside, "dockerd", f"--config-file={config}", f"--host={self.url}",
            f"--data-root={self.folder}/data", f"--exec-root={self.folder}/exec", f"--pidfile={self.folder}/pid",
            "--bridge=none", "--iptables=false", *self.arguments,
        ]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            environment = {**os.environ, **self.environment}
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        deadline = time.monotonic() + 60
        while not self.answers():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError(
                    f"The engine {self.name} does not come up:\n{(self.folder / 'log').read_text()[-2000:]}"
                )
            time.sleep(0.1)

    def answers(self) -> bool:
        try:
            client = docker.APIClient(base_url=self.url, timeout=5)
        except docker.errors.DockerException:
            return False
        with contextlib.closing(client):
            return bool(client.ping())

    def kill(self) -> None:
        """SIGKILL to the engine alone, which takes its containerd along; containers may go on, as after a crash."""
        assert self.process is not None
        self.process.kill()  # nsenter has become dockerd itself
        self.process.wait()
        # a containerd that nobody has reaped yet would count as running
        (self.folder / "exec" / "containerd" / "containerd.pid").unlink(missing_ok=True)

    def stop(self) -> None:
        """Ends the engine in order, and then whatever is left of it."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=20)
        for pid in self._left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait(timeout=20)

    def _left(self) -> list[int]:
        """Processes whose command names this engine's own folder: dockerd, containerd and its shims."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (folder / "cmdline").read_bytes()
                if f"{self.folder}/".encode() in command and int(folder.name) != os.getpid():
                    found.append(int(folder.name))
        return found

    def receive(self, *images: str, source: str = "unix:///var/run/docker.sock") -> None:
        """Copies images by name from this machine's engine."""
        save = subprocess.Popen(["docker", f"--host={source}", "save", *images], stdout=subprocess.PIPE)
        subprocess.run(["docker", f"--host={self.url}", "load"], stdin=save.stdout, check=True, capture_output=True)
        if save.wait():
            raise RuntimeError(f"{images} could not be saved")


def _ip(*arguments: str, check: bool = True) -> None:
    subprocess.run(["ip", *arguments], check=check, capture_output=True)


def add_namespace(namespace: str, address: str, number: int) -> None:
    """A network namespace with a cable to this machine; left over ones of the same name go first."""
    delete_namespace(namespace)
    _ip("link", "add", BRIDGE, "type", "bridge", check=False)
    _ip("address", "add", f"{NET}.1/24", "dev", BRIDGE, check=False)
    _ip("link", "set", BRIDGE, "up")
    _let_engines_meet()
    _ip("netns", "add", namespace)
    _ip("link", "delete", f"anomed{number}", check=False)  # the kernel takes its time with a deleted namespace's cables
    _ip("link", "add", f"anomed{number}", "type", "veth", "peer", "name", "eth0", "netns", namespace)
    _ip("link", "set", f"anomed{number}", "master", BRIDGE, "up")
    for arguments in (("address", "add", f"{address}/24", "dev", "eth0"), ("link", "set", "eth0", "up")):
        _ip("-n", namespace, *arguments)
    _ip("-n", namespace, "link", "set", "lo", "up")
    _ip("neighbour", "flush", "to", address, "dev", BRIDGE, check=False)  # an earlier one had the address


def _let_engines_meet() -> None:
    """Lets frames cross the bridge: an engine with iptables drops what it does not know, on bridges too."""
    rule = ["FORWARD", "--in-interface", BRIDGE, "--out-interface", BRIDGE, "--jump", "ACCEPT"]
    if subprocess.run(["iptables", "--wait", "--check", *rule], check=False, capture_output=True).returncode:
        subprocess.run(["iptables", "--wait", "--insert", *rule], check=True, capture_output=True)


def delete_namespace(namespace: str) -> None:
    _ip("netns", "delete", namespace, check=False)


def unmount_below(folder: Path) -> None:
    """Takes off what a killed engine left mounted below its folder."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in sorted((mount for mount in mounts if mount.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)


@contextmanager
def spare_engines(count: int, **more: Any) -> Iterator[list[SpareEngine]]:
    """So many engines, numbered from 2."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(SpareEngine(f"spare{number}", number, **more)) for number in range(2, count + 2)]
