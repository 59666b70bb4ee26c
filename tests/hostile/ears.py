"""Listeners outside of every container: none of them may ever hear one."""

import contextlib
import socket
import threading
import time
from typing import Any, Self

import docker

from tests.hostile.archives import BASE

BRIDGE = "172.17.0.1"
NEIGHBOUR_PORT = 9009
_NEIGHBOUR = f"""
import socket
ear = socket.create_server(("0.0.0.0", {NEIGHBOUR_PORT}))
print("listening", flush=True)
while True:
    caller, address = ear.accept()
    print("heard", address, flush=True)
    caller.close()
"""


class Ears:
    """TCP, UDP and vsock listeners on the host, and a neighbour container that listens. Use as a context manager."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self._sockets: list[socket.socket] = []
        self._neighbour: Any = None
        self.targets: dict[str, Any] = {}

    def __enter__(self) -> Self:
        engine = docker.from_env()
        bridge = engine.networks.get("bridge").attrs["IPAM"]["Config"][0].get("Gateway", BRIDGE)
        self.targets = {"bridge": bridge, "tcp": 9, "udp": 9, "vsock": 9, "neighbour_port": NEIGHBOUR_PORT}
        # On the two addresses that the cases call, and on no other: nobody outside is to reach, or to be, an ear.
        for name, kind in (("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)):
            self.targets[name] = self._open(name, socket.AF_INET, kind, (bridge, 0))
            self._open(name, socket.AF_INET, kind, ("127.0.0.1", self.targets[name]))
        with contextlib.suppress(OSError):  # a kernel without vsock has nothing to be reached there
            anywhere = (socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY)
            self.targets["vsock"] = self._open("vsock", socket.AF_VSOCK, socket.SOCK_STREAM, anywhere)
        self._neighbour = engine.containers.run(
            BASE, ["python", "-c", _NEIGHBOUR], detach=True, name=f"hostile-neighbour-{time.time_ns()}", init=True
        )
        self._neighbour.reload()
        self.targets["neighbour"] = self._neighbour.attrs["NetworkSettings"]["IPAddress"]
        self._test()
        return self

    def __exit__(self, *_: object) -> None:
        for ear in self._sockets:
            ear.close()
        self._neighbour.remove(force=True)

    def _open(self, name: str, family: int, kind: int, address: Any) -> int:
        """Listens there from now on; returns the port."""
        ear = socket.socket(family, kind)
        ear.bind(address)
        self._sockets.append(ear)
        if kind == socket.SOCK_STREAM:
            ear.listen()
        threading.Thread(target=self._listen, args=(name, ear), daemon=True).start()
        return int(ear.getsockname()[1])

    def _listen(self, name: str, ear: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                if ear.type == socket.SOCK_STREAM:
                    caller, address = ear.accept()
                    caller.close()
                else:
                    _data, address = ear.recvfrom(100)
                    ear.sendto(b"heard", address)
                self.heard.append(f"{name} from {address}")

    def _test(self) -> None:
        """An ear that hears nobody proves nothing: each is called once from here."""
        for address, port in (
            (self.targets["bridge"], self.targets["tcp"]),
            ("127.0.0.1", self.targets["tcp"]),
            (self.targets["neighbour"], NEIGHBOUR_PORT),
        ):
            deadline = time.monotonic() + 20
            while True:
                try:
                    socket.create_connection((address, port), timeout=2).close()
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.1)
        for address in (self.targets["bridge"], "127.0.0.1"):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as talk:
                talk.settimeout(10)
                talk.sendto(b"test", (address, self.targets["udp"]))
                assert talk.recv(100) == b"heard"
        deadline = time.monotonic() + 10
        while len(self.heard) < 4 or not self._neighbours_lines():
            assert time.monotonic() < deadline, f"heard {self.heard}, the neighbour {self._neighbours_lines()}"
            time.sleep(0.1)
        self.forget()

    def forget(self) -> None:
        """From here on whatever is heard counts."""
        self.heard.clear()
        self._lines = self._neighbours_lines()

    def _neighbours_lines(self) -> int:
        return self._neighbour.logs().count(b"heard")

    def all_heard(self) -> list[str]:
        """Who has called since `forget`."""
        return [*self.heard, *["the neighbour container"] * (self._neighbours_lines() - self._lines)]
