"""Calling the stranger's server: wait until it is there, then call by call, each bounded in bytes and time."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass
from pathlib import Path

from .plan import Call
from .report import Report

READY_SECONDS = 0.05  # between two looks whether it is there
START_SECONDS = 120.0  # that a server may need to be there
AGAIN_SECONDS = 1.0
MAX_READY = 1 << 16  # bytes of the answer that says so
PIECE = 1 << 16
# A proxy that answers 502 at once has not passed the request on: nginx does so for ten seconds after a look in vain.
PASSED_ON_SECONDS, PROXY_SECONDS = 2.0, 20.0
# After a proxy has given up waiting for a fit that goes on, the server says these until it is fitted.
NOT_YET = (400, 500, 502, 503)


class CallFailed(Exception):
    """The server did not do what it was asked; the message says what it did."""


class NeverReady(CallFailed):
    """It did not even answer."""


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; status 0: there was none, and `body` says why."""

    status: int
    body: bytes


class Caller:
    """Makes the calls of a plan, until a time on the monotonic clock."""

    def __init__(self, port: int, inputs: Path, outputs: Path, report: Report, deadline: float) -> None:
        self._port, self._inputs, self._outputs = port, inputs, outputs
        self._report, self._deadline = report, deadline
        self._fitting = False  # perhaps: a proxy gave up waiting for it

    def wait_until_ready(self, route: str) -> None:
        """A welcome page is no answer: nginx has one of its own. Raises NeverReady."""
        last = Answer(0, b"")
        until = min(self._deadline, time.monotonic() + START_SECONDS)
        while time.monotonic() < until:
            last = self._ask("GET", route, None, MAX_READY, until)
            if last.status == 200 and _is_json(last.body):
                self._report.saw(f"GET {route}", 200)
                return
            time.sleep(READY_SECONDS)
        self._report.saw(f"GET {route}", last.status)
        raise NeverReady(f"It never answered GET {route} with status 200 and JSON.")

    def call(self, call: Call) -> None:
        """Raises CallFailed, unless the call is optional."""
        began = time.monotonic()
        answer = self._persist(call)
        took = f"{time.monotonic() - began:.2f} s"
        request = f"{call.method} {call.route}"
        if call.route == "/fit" and answer.status == 504:
            self._fitting = True
            self._report.saw(request, answer.status, f"{took}; the fit may go on")
            return
        self._report.saw(request, answer.status, took if answer.status else answer.body.decode("ascii", "replace"))
        if answer.status == call.expected:
            self._fitting = False
            if call.save:
                target = self._outputs / call.save
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(answer.body)
        elif not call.optional:
            raise CallFailed(f"{request} was answered by {answer.status or answer.body.decode('ascii', 'replace')}.")

    def _persist(self, call: Call) -> Answer:
        """The first answer that is the application's own. /fit is never sent twice once it may have arrived."""
        body = (self._inputs / call.body).read_bytes() if call.body else None
        patience = time.monotonic() + PROXY_SECONDS
        while True:
            began = time.monotonic()
            answer = self._ask(call.method, call.route, body, call.limit, self._deadline)
            now = time.monotonic()
            not_passed_on = answer.status == 502 and now - began < PASSED_ON_SECONDS and now < patience
            waits_for_fit = self._fitting and answer.status in NOT_YET
            if not (not_passed_on or waits_for_fit) or now + AGAIN_SECONDS > self._deadline:
                return answer
            time.sleep(AGAIN_SECONDS)

    def _ask(self, method: str, route: str, body: bytes | None, limit: int, until: float) -> Answer:
        left = until - time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=max(0.1, left))
        try:
            headers = {"Connection": "close", "Content-Length": str(len(body or b""))} if method == "POST" else {}
            connection.request(method, route, body, headers)
            response = connection.getresponse()
            return self._read(response, limit, until)
        except (OSError, http.client.HTTPException, ValueError) as error:
            return Answer(0, type(error).__name__.encode())
        finally:
            connection.close()

    def _read(self, response: http.client.HTTPResponse, limit: int, until: float) -> Answer:
        """The answer's body, as far as it may go. A server that never stops sending is hung up on."""
        pieces, size = [], 0
        while piece := response.read1(PIECE):
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                return Answer(0, b"its answer is too large")
            if time.monotonic() > until:
                return Answer(0, b"its answer took too long")
        return Answer(response.status, b"".join(pieces))


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True
