"""Calling the stranger's server: wait until it is there, then call by call, each bounded in bytes and time."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from . import files
from .plan import Call
from .report import Report, plain

READY_SECONDS = 0.05  # between two looks whether it is there
LOOK_SECONDS = 10.0  # that one look may take
START_SECONDS = 120.0  # that a server may need to be there
AGAIN_SECONDS = 1.0
MAX_READY = 1 << 16  # bytes of the answer that says so
MAX_SAID = 200  # bytes of another answer that are logged
PIECE = 1 << 16
# A proxy that answers 502 at once has not passed the request on: nginx does so for ten seconds after a look in vain.
BAD_GATEWAY, PASSED_ON_SECONDS, PROXY_SECONDS = 502, 2.0, 20.0
# A proxy that answers so has given up waiting for the server, which goes on.
PROXY_TIMEOUT = 504
# What the server says while it goes on, or its proxy for it: that it is not fitted, and when it is asked something.
NOT_FITTED = (400, 503)
NO_ANSWER_YET = (500, 502, 503, 504)


class CallFailed(Exception):
    """The server did not do what it was asked; the message says what it did."""


class NeverReady(CallFailed):
    """It did not even answer."""


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; status 0: there was none, and `said` tells why. Else it is how the answer begins."""

    status: int
    said: bytes = b""
    refused: bool = False  # the connection: the request has certainly not arrived

    def __str__(self) -> str:
        return f"was answered by {self.status}" if self.status else f"failed: {self.said.decode()}"


class Caller:
    """Makes the calls of a plan, until a time on the monotonic clock."""

    def __init__(self, port: int, inputs: Path, outputs: Path, report: Report, deadline: float) -> None:
        self._port, self._inputs, self._outputs = port, inputs, outputs
        self._report, self._deadline = report, deadline
        self.goes_on = False  # perhaps: a proxy gave up waiting for what the server was told to do

    def wait_until_ready(self, route: str) -> None:
        """A welcome page is no answer: nginx has one of its own. Raises NeverReady."""
        look = Call("GET", route, limit=MAX_READY)
        last = Answer(0)
        until = min(self._deadline, time.monotonic() + START_SECONDS)
        while (now := time.monotonic()) < until:
            last = self._ask(look, None, min(until, now + LOOK_SECONDS))
            if last.status == look.expected and _is_json(last.said):
                self._report.called(look.name, last.status)
                return
            time.sleep(READY_SECONDS)
        self._report.called(look.name, last.status, plain(last.said.decode("ascii", "replace"), MAX_SAID))
        raise NeverReady(f"It never answered {look.name} with status {look.expected} and JSON.")

    def call(self, call: Call) -> None:
        """Raises CallFailed, unless the call is optional."""
        began = time.monotonic()
        answer = self._persist(call)
        took = f"{time.monotonic() - began:.2f} s"
        if call.is_command and answer.status == PROXY_TIMEOUT:
            self.goes_on = True
            self._report.called(call.name, answer.status, f"{took}; it may go on behind its proxy")
        elif answer.status == call.expected:
            self.goes_on = False
            self._report.called(call.name, answer.status, took)
        else:
            said = plain(answer.said.decode("ascii", "replace"), MAX_SAID)
            self._report.called(call.name, answer.status, f"{took}; {said}" if said else took)
            if not call.optional:
                raise CallFailed(f"{call.name} {answer}.")

    def _persist(self, call: Call) -> Answer:
        """The first answer that is the application's own. Nothing is sent twice that may have arrived, but for
        questions, and for a command that the server was not fitted for yet.
        """
        body = (self._inputs / call.body).read_bytes() if call.body else None
        patience = time.monotonic() + PROXY_SECONDS
        while True:
            began = time.monotonic()
            answer = self._ask(call, body, self._deadline)
            now = time.monotonic()
            fast = answer.status == BAD_GATEWAY and now - began < PASSED_ON_SECONDS
            not_passed_on = (fast or answer.refused) and now < patience
            waits = self.goes_on and answer.status in (NOT_FITTED if call.is_command else NO_ANSWER_YET)
            if not (not_passed_on or waits):
                return answer
            time.sleep(AGAIN_SECONDS)  # in which the time may be over, and the whole program with it

    def _ask(self, call: Call, body: bytes | None, until: float) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=max(0.1, until - time.monotonic()))
        headers = {"Connection": "close"}
        if call.method == "POST":
            headers["Content-Length"] = str(len(body or b""))
        try:
            try:
                connection.connect()
            except ConnectionRefusedError:
                return Answer(0, b"nobody listens", refused=True)
            with suppress(BrokenPipeError, ConnectionResetError):  # it may have answered before it had all
                connection.request(call.method, call.route, body, headers)
            response = connection.getresponse()
            return self._read(response, call, until)
        except (_Cut, files.NoRoom) as cut:
            return Answer(0, str(cut).encode())
        except (OSError, http.client.HTTPException, ValueError) as error:
            return Answer(0, f"no answer: {type(error).__name__}".encode())
        finally:
            connection.close()

    def _read(self, response: http.client.HTTPResponse, call: Call, until: float) -> Answer:
        """All of a good answer is heard; of a bad one only how it begins."""
        said = b""
        if response.status != call.expected:
            with suppress(OSError, http.client.HTTPException):
                said = response.read1(MAX_SAID)
        elif call.save:
            files.keep(_pieces(response, call.limit, until), self._outputs / call.save)
        else:
            for piece in _pieces(response, call.limit, until):
                said += piece[: MAX_READY - len(said)]
        return Answer(response.status, said)


class _Cut(Exception):
    """An answer that has no good end; the message says why."""


def _pieces(response: http.client.HTTPResponse, limit: int, until: float) -> Iterator[bytes]:
    while piece := response.read1(PIECE):
        limit -= len(piece)
        if limit < 0:
            raise _Cut("its answer is too large")
        if time.monotonic() > until:
            raise _Cut("its answer took too long")
        yield piece
    if response.length:  # that is still to come; http.client does not mind
        raise _Cut("its answer was cut short")


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True
