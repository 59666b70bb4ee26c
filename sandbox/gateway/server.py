"""The servers on the loopback: HTTP as strangers speak it, for the routes of a plan and nothing else."""

from __future__ import annotations

import http.client
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any, BinaryIO
from urllib.parse import parse_qs, urlsplit

from .bodies import Refused
from .desk import Desk
from .plan import Answers, Record, Serve

CONNECTIONS = 32  # at once; more are sent away
IDLE_SECONDS = 60
PIECE = 1 << 18
MAX_HEAD = 1 << 15  # bytes of a request's first line and headers together
MAX_FIELDS = 20  # of a query
MAX_LINE = 1 << 10  # of a chunked body, but for the chunks
MAX_TRAILERS = 20
LINGER_BYTES, LINGER_SECONDS = 64 << 20, 5.0  # of a body that nobody wants, read so that its sender hears why

_SORRY = b'{"title": "Too many connections at once."}'
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(_SORRY), _SORRY)
)

Routes = dict[str, "Serve | Record | Answers"]


class Server(ThreadingHTTPServer):
    """A bounded server on the loopback."""

    daemon_threads = True
    request_queue_size = CONNECTIONS

    def __init__(self, port: int, routes: Routes, desk: Desk) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.routes, self.desk = routes, desk
        self._room = threading.BoundedSemaphore(CONNECTIONS)

    def server_bind(self) -> None:
        """Without asking anybody for the host's name."""
        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Says so where there is no room."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
            return
        try:
            request.send(_FULL)
        finally:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Gives the room back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A stranger that hangs up is nothing to speak of; all else is our own fault."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            self.desk.report.fault(error)


class Head:
    """The stream of a connection: its lines may have `left` bytes in all, or http.client takes them for too long."""

    def __init__(self, stream: BinaryIO) -> None:
        self.left = MAX_HEAD
        self._stream = stream
        self.read, self.close = stream.read, stream.close

    def readline(self, size: int) -> bytes:
        """The next line, or its first `size` bytes."""
        line = self._stream.readline(min(size, self.left + 1))
        self.left -= len(line)
        if self.left < 0:
            raise http.client.LineTooLong("line")
        return line

    @property
    def closed(self) -> bool:
        """Whether there is anything to be read any more."""
        return self._stream.closed


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    timeout = IDLE_SECONDS
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "anomed", ""
    _unread = False  # whether a body was sent that nobody has read: then the connection is of no further use

    def setup(self) -> None:
        """As usual, with a measure for what is read."""
        super().setup()
        self._head = Head(self.rfile)  # type: ignore[arg-type]  # the stubs know only what it is at first
        self.rfile = self._head  # type: ignore[assignment]

    def handle(self) -> None:
        """All requests of the connection. A client that is not heard out might not hear the answer either."""
        super().handle()
        if self._unread:
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(LINGER_SECONDS)
            left, until = LINGER_BYTES, time.monotonic() + LINGER_SECONDS
            while left > 0 and time.monotonic() < until and (piece := self.connection.recv(PIECE)):
                left -= len(piece)

    def handle_one_request(self) -> None:
        """A request, whose head is no larger than it may be."""
        self._head.left = MAX_HEAD
        self.command = self.path = self.requestline = self.request_version = ""
        try:
            super().handle_one_request()
        except http.client.LineTooLong:  # the first line; others are dealt with above
            self.send_error(414)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What cannot be read as HTTP."""
        self._unread = self.close_connection = True
        self.request_version = self.protocol_version
        self._send(code, {"title": "The request cannot be read."})

    def do_GET(self) -> None:
        """A prepared file."""
        self._handle(self._give, Serve)

    def do_POST(self) -> None:
        """Something to be kept, or a question to the attacked defense."""
        self._handle(self._take, Record, Answers)

    def _other(self) -> None:
        self._handle(self._take)

    do_HEAD = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _other

    def _handle(self, act: Callable[[str, Any, dict[str, str]], None], *kinds: type) -> None:
        bodily = any(name in self.headers for name in ("Content-Length", "Transfer-Encoding"))
        self._unread = self.command != "GET" or bodily
        self.close_connection |= bodily and self.command == "GET"
        try:
            route, query = self._address()
            item = self.server.routes.get(route)
            if item is None:
                raise Refused(404, "There is no such route here.")
            if not isinstance(item, kinds):
                raise Refused(405, "This route is for another method.")
            act(route, item, query)
        except Refused as refused:
            self.close_connection |= self._unread
            self._send(refused.status, {"title": refused.sentence})

    def _address(self) -> tuple[str, dict[str, str]]:
        try:
            address = urlsplit(self.path)
            fields = parse_qs(address.query, max_num_fields=MAX_FIELDS)
        except ValueError as error:
            raise Refused(400, "The address makes no sense.") from error
        return address.path, {name: values[-1] for name, values in fields.items()}

    def _give(self, route: str, item: Serve, query: dict[str, str]) -> None:
        self._send_file(self.server.desk.fetch(item, query))

    def _take(self, route: str, item: Record | Answers, query: dict[str, str]) -> None:
        desk = self.server.desk
        with desk.spool(self._body(item.limit)) as body:
            self._unread = False
            if isinstance(item, Record):
                self._send(201, desk.post(item, query, body, self.headers.get("Content-Type", "")))
            else:
                self._send_bytes(201, desk.answer(route, body), "application/octet-stream")

    def _body(self, limit: int) -> Iterator[bytes]:
        """The request's body in pieces, whether it came whole or in chunks. Raises Refused."""
        too_large = Refused(413, f"At most {limit} bytes are taken here.")
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            while size := self._chunk():
                limit -= size
                if limit < 0:
                    raise too_large
                yield from self._read(size)
                self._line()
            for _trailer in range(MAX_TRAILERS):
                if not self._line().strip():
                    return
            raise Refused(400, "Too much comes after the body.")
        length = self.headers.get("Content-Length", "")
        if not length:
            raise Refused(411, "The request needs a Content-Length.")
        if not length.isascii() or not length.isdigit():
            raise Refused(400, "Its Content-Length is no number.")
        if len(length.lstrip("0")) > len(str(limit)) or int(length[-20:]) > limit:
            raise too_large
        yield from self._read(int(length))

    def _chunk(self) -> int:
        """The size of the next one."""
        digits = self._line().split(b";")[0].strip()
        try:
            size = int(digits, 16)
        except ValueError as error:
            raise Refused(400, "The chunks of the body cannot be read.") from error
        if size < 0:
            raise Refused(400, "The chunks of the body cannot be read.")
        return size

    def _line(self) -> bytes:
        self._head.left = MAX_LINE
        with _in_time():
            try:
                return self.rfile.readline(MAX_LINE)
            except http.client.LineTooLong as error:
                raise Refused(400, "The chunks of the body cannot be read.") from error

    def _read(self, size: int) -> Iterator[bytes]:
        while size:
            with _in_time():
                piece = self.rfile.read(min(size, PIECE))
            if not piece:
                raise Refused(400, "The body is shorter than it said.")
            size -= len(piece)
            yield piece

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        self._send_bytes(status, json.dumps(answer).encode(), "application/json", str(answer.get("title", "")))

    def _send_bytes(self, status: int, body: bytes, kind: str, note: str = "") -> None:
        self._begin(status, len(body), kind, note)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_file(self, path: Path) -> None:
        with path.open("rb") as file:
            self._begin(200, path.stat().st_size, "application/octet-stream")
            while piece := file.read(PIECE):
                self.wfile.write(piece)

    def _begin(self, status: int, length: int, kind: str, note: str = "") -> None:
        request = f"{self.command} {self.path}" if self.command else "something"
        self.server.desk.report.saw(request, status, note)
        self.send_response_only(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are logged by the report."""


@contextmanager
def _in_time() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise Refused(408, f"Nothing has come for {IDLE_SECONDS} seconds.") from error


def listen(port: int, routes: Routes, desk: Desk) -> Server:
    """A server at work in a thread of its own. Raises OSError if the port is taken."""
    server = Server(port, routes, desk)
    server.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.5}, daemon=True).start()
    return server
