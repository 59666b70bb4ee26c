"""Text for a terminal. Names, notes and logs were written by strangers: nothing in them may steer the terminal."""

import json
import re
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

# Colours and titles (CSI, OSC and the two-character sequences of ECMA-48); lone control characters go afterwards.
SEQUENCES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]")
WIDE = 160  # columns of a table that goes into a file or a pipe
NEWS_EVERY = 10.0  # seconds between lines about a transfer where there is no terminal to redraw
NOTHING = "–"


def clean(text: str) -> str:
    """The text without escape sequences, control characters and marks that turn the writing direction."""
    text = SEQUENCES.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return "".join(sign for sign in text if sign in "\n\t" or unicodedata.category(sign) not in ("Cc", "Cf", "Cs"))


def cell(value: Any) -> str:
    """One value in one line: numbers with two decimals, yes and no, a dash for nothing."""
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.2f}"
    return " ".join(clean(str(value)).split())


class Voice:
    """Speaks to the person. With `as_json`, sentences go to standard error; standard output carries JSON lines only."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self._out = _console(stderr=as_json)
        self._error = _console(stderr=True)

    @property
    def lively(self) -> bool:
        """True where lines can be redrawn."""
        return self._out.is_terminal and not self.as_json

    def say(self, text: str, *, style: str = "") -> None:
        """One or more plain lines."""
        self._out.print(Text(clean(text), style=style), soft_wrap=True)

    def complain(self, text: str) -> None:
        """A problem, on standard error."""
        self._error.print(Text(clean(text), style="red"), soft_wrap=True)

    def record(self, value: Any) -> None:
        """One JSON line on standard output; ASCII only, so it steers no terminal either."""
        sys.stdout.write(json.dumps(value) + "\n")
        sys.stdout.flush()

    def table(self, title: str, heads: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> None:
        """A table: `heads` maps the key of a row to the head of its column."""
        table = Table(title=Text(clean(title)), title_justify="left", header_style="bold")
        for key, head in heads.items():
            numbers = any(isinstance(row.get(key), int | float) and not isinstance(row[key], bool) for row in rows)
            # An id that is folded cannot be copied.
            table.add_column(
                Text(cell(head)), justify="right" if numbers else "left", overflow="fold", no_wrap=key == "id"
            )
        for row in rows:
            table.add_row(*(Text(cell(row.get(key))) for key in heads))
        self._out.print(table)

    @contextmanager
    def waiting(self) -> Iterator[Callable[[str], None]]:
        """A line that says what goes on: redrawn on a terminal; elsewhere only now and then a line of its own."""
        if self.lively:
            with self._out.status("") as status:
                yield lambda text: status.update(Text(clean(text)))
            return
        told = time.monotonic()

        def tell(text: str) -> None:
            nonlocal told
            if time.monotonic() - told >= NEWS_EVERY:
                self.say(text)
                told = time.monotonic()

        yield tell

    @contextmanager
    def transfer(self, what: str, size: int | None) -> Iterator[Callable[[int], None]]:
        """A bar of bytes, speed and time left; yields the function that is told the bytes done."""
        if self.lively:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
            )
            with Progress(*columns, console=self._out, transient=True) as progress:
                task = progress.add_task(what, total=size)
                yield lambda done: progress.update(task, completed=done)
            return
        with self.waiting() as tell:
            yield lambda done: tell(f"{what}: {megabytes(done)}" + (f" of {megabytes(size)}" if size else ""))


def megabytes(size: int) -> str:
    """A number of bytes as a person reads it."""
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not console.is_terminal and console.width < WIDE:
        console.width = WIDE
    return console
