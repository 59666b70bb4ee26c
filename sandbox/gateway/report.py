"""How the exchange went: a line of log for each request, and /output/exchange.json in the end."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

MAX_ROUTES = 100
MAX_ROUTE = 100
MAX_LINES = 5000


class Report:
    """Used by all threads."""

    def __init__(self) -> None:
        self.queries = 0  # rows that were asked about
        self.live = 0  # of these, rows that another image answered
        self.problem = ""
        self._began = time.monotonic()
        self._routes: dict[str, int] = {}
        self._lines = 0
        self._lock = threading.Lock()

    def saw(self, request: str, status: int, note: str = "") -> None:
        """A request, which may be the stranger's own invention, and how it was answered; 0: not at all."""
        plain = "".join(char if char.isprintable() and char.isascii() else "?" for char in request)[:MAX_ROUTE]
        with self._lock:
            if plain in self._routes or len(self._routes) < MAX_ROUTES:
                self._routes[plain] = status
            self._lines += 1
            if self._lines <= MAX_LINES:
                said = f" ({note})" if note else ""
                self._say(f"{plain} -> {status or 'no answer'}{said}")

    def tell(self, sentence: str) -> None:
        """A line about the exchange as a whole."""
        with self._lock:
            self._say(sentence)

    def _say(self, text: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - self._began:7.2f} s] {text}\n")
        sys.stderr.flush()

    def write(self, path: Path) -> None:
        """For the platform: which routes answered how, and how much was asked."""
        with self._lock:
            facts = {
                "problem": self.problem,
                "queries": self.queries,
                "live": self.live,
                "routes": self._routes,
            }
            path.write_text(json.dumps(facts), encoding="ascii")
