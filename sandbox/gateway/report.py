"""How the exchange went: a line of log for each request, and /output/exchange.json in the end."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Collection
from pathlib import Path

MAX_ROUTES = 100
MAX_ROUTE = 100
MAX_LINES = 5000
MAX_BYTES = 1 << 15


def plain(text: str, length: int) -> str:
    """What may stand in a log: printable ASCII in one line, of at most that length."""
    return "".join(char if char.isprintable() and char.isascii() else "?" for char in text[:length])


class Report:
    """Used by all threads. It has its place in /output from the beginning, so that nobody can take it."""

    def __init__(self, path: Path, called: Collection[str] = (), offered: Collection[str] = ()) -> None:
        """`called` and `offered` are what the plan has the server called for, and what it lets it ask for."""
        self.queries = 0  # rows that were asked about
        self.live = 0  # of these, rows that another image answered
        self._path = path
        self._called, self._offered = list(called), list(offered)
        self._began = time.monotonic()
        self._calls: dict[str, int] = {}
        self._routes: dict[str, int] = {}
        self._lines = 0
        self._lock = threading.Lock()
        path.write_bytes(b" " * MAX_BYTES)

    def called(self, request: str, status: int, note: str = "") -> None:
        """A call of the plan, and how it was answered; 0: not at all."""
        with self._lock:
            self._calls[plain(request, MAX_ROUTE)] = status
            self._say(request, status, note)

    def saw(self, request: str, status: int, note: str = "") -> None:
        """A request, which may be the stranger's own invention, and how it was answered."""
        request = plain(request, MAX_ROUTE)
        with self._lock:
            if request in self._routes or len(self._calls) + len(self._routes) < MAX_ROUTES:
                self._routes[request] = status
            self._lines += 1
            if self._lines <= MAX_LINES:
                self._say(request, status, note)

    def fault(self, error: BaseException | None) -> None:
        """Something that the gateway was not made for; its words may be a stranger's."""
        with self._lock:
            self._tell(f"The gateway has failed: {type(error).__name__}")

    def _say(self, request: str, status: int, note: str) -> None:
        self._tell(f"{request} -> {status or 'no answer'}{f' ({note})' if note else ''}")

    def _tell(self, text: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - self._began:7.2f} s] {text}\n")
        sys.stderr.flush()

    def close(self, problem: str) -> None:
        """For the platform: which routes answered how, and how much was asked. Nobody gets past this any more."""
        self._lock.acquire()
        self._tell(problem or "The exchange is complete.")
        routes = {**self._calls, **self._routes, **self._calls}  # first, and not to be mistaken for another's
        asked = {request.partition("?")[0] for request in self._routes}
        facts = {
            "problem": plain(problem, MAX_ROUTE + MAX_ROUTE),
            "queries": self.queries,
            "live": self.live,
            "routes": dict(list(routes.items())[:MAX_ROUTES]),
            "calls": self._called or list(self._calls),
            "unasked": [route for route in self._offered if route not in asked],
        }
        with self._path.open("r+b") as file:
            file.write(json.dumps(facts).encode("ascii"))
            file.truncate()
