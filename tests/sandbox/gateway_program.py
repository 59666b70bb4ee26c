"""The gateway as a process of its own, and servers to be called by it that say exactly what a test wants."""

from __future__ import annotations

import http.client
import io
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SANDBOX = Path(__file__).resolve().parents[2] / "sandbox"
# As in its container: the folder is a package of its own, and nothing else of the platform can be imported.
PROGRAM = f"import sys; sys.path.insert(0, {str(SANDBOX)!r}); from gateway.main import main; main()"
ALIVE = b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"message": "alive"}'
DONE = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}"

# What a server says to one request: bytes of HTTP, or whatever it does with the connection itself.
Script = Callable[[bytes, socket.socket], bytes | None]


def pack(**arrays: Any) -> bytes:
    """An npz as the published packages write it."""
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    return packed.getvalue()


def answer(status: int, body: bytes = b"{}", head: str = "") -> bytes:
    """An HTTP/1.1 answer."""
    return f"HTTP/1.1 {status} Said\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode() + body


class Participant:
    """A server on the loopback that plays scripts by request; what it has no script for is answered by 404."""

    def __init__(self, scripts: Mapping[str, Script]) -> None:
        self.seen: list[str] = []
        self._scripts = {"GET /": lambda body, connection: ALIVE, **scripts}
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                stream = connection.makefile("rb")
                request = stream.readline().decode().rsplit(" ", 1)[0]
                head = http.client.parse_headers(stream)
                body = stream.read(int(head.get("Content-Length", 0)))
                self.seen.append(request)
                script = self._scripts.get(request)
                said = script(body, connection) if script else answer(404)
                if said is not None:
                    connection.sendall(said)
            except OSError:
                pass  # the gateway has hung up

    def close(self) -> None:
        self._listener.close()


@dataclass
class Outcome:
    """How a gateway ended."""

    status: int
    log: str
    asked: list[str]
    output: Path
    seconds: float
    participant: Participant

    @property
    def report(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads((self.output / "exchange.json").read_text())
        return told


@dataclass
class Program:
    """Starts gateways on ports of their own."""

    folder: Path
    output_folder: Path | None = None  # another place for /output
    files: dict[str, bytes] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def inputs(self) -> Path:
        return self.folder / "input"

    def play(self, scripts: Mapping[str, Script], *, patience: float = 60, **plan: Any) -> Outcome:
        """One exchange to its end."""
        self.inputs.mkdir(exist_ok=True)
        output = self.output_folder or self.folder / "output"
        output.mkdir(exist_ok=True)
        for name, content in self.files.items():
            (self.inputs / name).write_bytes(content)
        (self.inputs / "plan.json").write_text(json.dumps({"contract": "web/1", "seconds": 30, "calls": [], **plan}))
        participant = Participant(scripts)
        self.ports = {"server": participant.port, "challenge": free_port(), "target": free_port()} | self.ports
        ports = [part for name, port in self.ports.items() for part in (f"--{name}", str(port))]
        command = [sys.executable, "-I", "-c", PROGRAM, "--input", str(self.inputs), "--output", str(output), *ports]
        began = time.monotonic()
        ended = subprocess.run(command, capture_output=True, text=True, timeout=patience)
        took = time.monotonic() - began
        participant.close()
        return Outcome(ended.returncode, ended.stderr, ended.stdout.splitlines(), output, took, participant)

    def request(
        self, method: str, route: str, body: bytes | None = None, *, target: bool = False, **headers: str
    ) -> tuple[int, bytes]:
        """What the participant's program does: one request to the challenge, or to the target."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.ports["target" if target else "challenge"], timeout=20
        )
        try:
            connection.request(method, route, body, {name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def raw(self, *pieces: bytes, target: bool = False) -> bytes:
        """All that is answered to bytes that are no request of any library."""
        port = self.ports["target" if target else "challenge"]
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            try:
                for piece in pieces:
                    connection.sendall(piece)
                connection.shutdown(socket.SHUT_WR)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it has heard enough, and may have said why
            said = b""
            try:
                while piece := connection.recv(1 << 16):
                    said += piece
            except ConnectionResetError:
                pass
            return said


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
