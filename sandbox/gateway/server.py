"""What the stranger's server may fetch and post: the routes of its plan, and nothing else."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from .answers import OWN_BYTES, Refused, Target
from .bodies import Array, BadBody, arrays, parts
from .plan import Answers, Mark, Plan, Record, Serve
from .report import Report

CONNECTIONS = 32  # at once; more are hung up on
BODIES = 2  # that are held in memory at once
IDLE_SECONDS = 60
PIECE = 1 << 20
MAX_LINE = 1 << 10  # of a chunked body

Routes = dict[str, "Serve | Record | Answers"]


class Desk:
    """What is served on the challenge's port and on the target's, and what has been posted. Used by all threads."""

    def __init__(self, plan: Plan, inputs: Path, outputs: Path, report: Report) -> None:
        self.inputs, self.outputs, self.report = inputs, outputs, report
        self.bodies = threading.BoundedSemaphore(BODIES)
        self._plan = plan
        self._posted: set[str] = set()
        self._lock = threading.Lock()
        self._targets = {
            route: Target(item, inputs, outputs, self._count)
            for route, item in plan.target.items()
            if isinstance(item, Answers)
        }

    def missing(self) -> list[str]:
        """Routes to which the stranger has to post and has not."""
        wanted = ((route, set(item.to.values()) - {None}) for route, item in self._plan.record.items() if item.required)
        return [route for route, names in wanted if names - self._posted]

    def fetch(self, item: Serve, query: dict[str, str]) -> Path:
        """The file of a served route. Raises Refused."""
        name: str = _choice(item.files, item.by, query)
        return self.inputs / name

    def post(self, item: Record, query: dict[str, str], body: bytes, content_type: str) -> dict[str, Any]:
        """Takes a post; returns what it is answered with. Raises Refused, BadBody."""
        value = query.get(item.by, "") if item.by else ""
        name = _choice(item.to, item.by, query)
        files = parts(body, content_type) if item.parts else {"": body}
        if missing := [part for part in item.parts if part not in files]:
            raise BadBody(f"The form has no part {missing[0]}.")
        answer = self._mark(item.mark[value], body, item.limit) if value in item.mark else {}
        if name is not None:
            with self._lock:
                if name in self._posted:
                    raise Refused(403, "This was posted before, and only the first counts.")
                self._posted.add(name)
            for part in item.parts or ("",):
                target = self.outputs / (f"{name}.{part}" if part else name)
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(files[part])
        return answer

    def answer(self, route: str, body: bytes) -> bytes:
        """What the attacked defense says. Raises Refused, BadBody."""
        return self._targets[route].answer(body)

    def _count(self, queries: int, live: int) -> None:
        with self._lock:
            self.report.queries += queries
            self.report.live += live

    def _mark(self, mark: Mark, body: bytes, limit: int) -> dict[str, float]:
        truth = arrays((self.inputs / mark.truth).read_bytes(), OWN_BYTES)["y"]
        said = arrays(body, limit).get("prediction")
        if said is None or said.shape != truth.shape:
            raise BadBody(f"It must hold an array prediction of {len(truth)} values.")
        return measure(mark.measure, truth, said)


def measure(kind: str, truth: Array, said: Array) -> dict[str, float]:
    """How well predictions agree with the truth, [n] each. `membership`: rates of FP / (FP + TN) and TP / (TP + FN)."""
    marks = {"accuracy": float(np.mean(said == truth))}
    if kind == "membership":
        member, guessed = truth.astype(bool), said.astype(bool)
        marks["tpr"] = float(guessed[member].mean()) if member.any() else 0.0
        marks["fpr"] = float(guessed[~member].mean()) if (~member).any() else 0.0
    return marks


def _choice(names: dict[str, Any], by: str, query: dict[str, str]) -> Any:
    value = query.get(by, "") if by else ""
    if value not in names:
        raise Refused(400, f"{by} must be one of {', '.join(names)}.")
    return names[value]


class Server(ThreadingHTTPServer):
    """A bounded server on the loopback."""

    daemon_threads = True
    request_queue_size = CONNECTIONS

    def __init__(self, port: int, routes: Routes, desk: Desk) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.routes, self.desk = routes, desk
        self._room = threading.BoundedSemaphore(CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Hangs up where there is no room."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Gives the room back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A stranger that hangs up is nothing to speak of."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    timeout = IDLE_SECONDS
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "anomed", ""

    def do_GET(self) -> None:
        """A prepared file."""
        self._handle(lambda item, query: self._send_file(self.server.desk.fetch(item, query)), Serve)

    def do_POST(self) -> None:
        """Something to be kept, or a question to the attacked defense."""
        self._handle(self._take, Record, Answers)

    def _handle(self, act: Callable[[Any, dict[str, str]], None], *kinds: type) -> None:
        address = urlsplit(self.path)
        item = self.server.routes.get(address.path)
        try:
            if item is None:
                raise Refused(404, "There is no such route here.")
            if not isinstance(item, kinds):
                raise Refused(405, "This route is for another method.")
            query = {name: values[-1] for name, values in parse_qs(address.query, max_num_fields=20).items()}
            act(item, query)
        except Refused as refused:
            self._send(refused.status, {"title": refused.sentence})
        except BadBody as bad:
            self._send(400, {"title": str(bad)})
        except (ValueError, OverflowError):
            self._send(400, {"title": "The request makes no sense."})

    def _take(self, item: Record | Answers, query: dict[str, str]) -> None:
        with self.server.desk.bodies:
            body = self._body(item.limit)
            if isinstance(item, Record):
                content_type = self.headers.get("Content-Type", "")
                self._send(201, self.server.desk.post(item, query, body, content_type))
            else:
                answer = self.server.desk.answer(urlsplit(self.path).path, body)
                self._send_bytes(201, answer, "application/octet-stream")

    def _body(self, limit: int) -> bytes:
        """The request's body, whole or in chunks. Raises Refused if it is larger than `limit` bytes."""
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            pieces = list(self._chunks(limit))
        else:
            length = self.headers.get("Content-Length", "")
            if not length.isdigit():
                raise self._hang_up(411, "The request needs a Content-Length.")
            if int(length) > limit:
                raise self._hang_up(413, f"At most {limit} bytes are taken here.")
            pieces = [self.rfile.read(int(length))]
            if len(pieces[0]) != int(length):
                raise self._hang_up(400, "The body is shorter than it said.")
        return b"".join(pieces)

    def _chunks(self, limit: int) -> Any:
        while size := int(self.rfile.readline(MAX_LINE).split(b";")[0], 16):
            limit -= size
            if limit < 0 or size < 0:
                raise self._hang_up(413, "The body is larger than what is taken here.")
            piece = self.rfile.read(size)
            if len(piece) != size:
                raise self._hang_up(400, "The body is shorter than it said.")
            yield piece
            self.rfile.readline(MAX_LINE)
        self.rfile.readline(MAX_LINE)

    def _hang_up(self, status: int, sentence: str) -> Refused:
        self.close_connection = True  # what follows is a body that nobody reads
        return Refused(status, sentence)

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        self._send_bytes(status, json.dumps(answer).encode(), "application/json", str(answer.get("title", "")))

    def _send_bytes(self, status: int, body: bytes, kind: str, note: str = "") -> None:
        self._begin(status, len(body), kind, note)
        self.wfile.write(body)

    def _send_file(self, path: Path) -> None:
        with path.open("rb") as file:
            self._begin(200, path.stat().st_size, "application/octet-stream")
            while piece := file.read(PIECE):
                self.wfile.write(piece)

    def _begin(self, status: int, length: int, kind: str, note: str = "") -> None:
        self.server.desk.report.saw(f"{self.command} {self.path}", status, note)
        self.send_response_only(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are logged by the report; what could not be read as HTTP is not."""


def listen(port: int, routes: Routes, desk: Desk) -> Server:
    """A server at work in a thread of its own. Raises OSError if the port is taken."""
    server = Server(port, routes, desk)
    server.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.5}, daemon=True).start()
    return server
