"""How rooms above tell the sandbox what a run is for, without the sandbox knowing them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sandbox.models import Image, Run

Reader = tuple[Callable[..., dict[str, Any]], tuple[Any, ...]]


@dataclass(frozen=True)
class Question:
    """Who answers what a run's gateway cannot, and how: a step of another image, run inside the run.

    Both callables return a module-level function and its picklable arguments, to be called in an isolated child, which
    may raise `Rejected`: the question is refused then. `write` gets the hostile file that was asked and the empty
    folder that becomes the step's inputs; `read` gets the hostile file, the step's hostile outputs and the file to
    write the answer to.
    """

    image: Image
    step: str
    contract: str
    limits: dict[str, Any]
    collect: dict[str, list[str]]
    write: Callable[[Path, Path], Reader]
    read: Callable[[Path, Path, Path], Reader]


@dataclass(frozen=True)
class Known:
    """An answer that needs no container: `answer` gets the hostile file that was asked and the file to write to."""

    answer: Callable[[Path, Path], Reader]


class Purpose(Protocol):
    """What a run needs and what becomes of it. Registered once, under the name that runs carry in `purpose`."""

    def write_inputs(self, run: Run, folder: Path) -> None:
        """Writes task.json and the files of the step into the empty `folder`, which the container sees as /input."""

    def reader(self, run: Run, collected: Path, result: Path) -> Reader | None:
        """A module-level function and its picklable arguments, to be called in an isolated child.

        It parses the hostile files in `collected`, writes canonical files into the empty folder `result`, returns
        a JSON-able dict, and raises `Rejected`. The paths hold for this attempt only: store none of them. Of the
        outputs only what it puts into `result` (a hard link will do) is kept.
        None: there is nothing to read.
        """

    def question(self, run: Run) -> Question | Known | None:
        """How questions of a web server's run are answered; None: they are refused.

        The file of the run's question N has the name N.npz.
        """

    def account(self, run: Run, told: Path) -> Reader | None:
        """Like `reader`, of a web server's run that failed: `told` is the hostile exchange.json of its gateway.

        What it returns is the verdict that `settle` gets; None: there is nothing to read.
        """

    def judge(self, run: Run, result: Path, read: dict[str, Any]) -> Any:
        """Computes what the canonical files are worth: in the worker, outside any transaction. May raise `Rejected`."""

    def settle(self, run: Run, verdict: Any) -> None:
        """Writes the outcome down, inside the transaction that ends the run; also for failures (verdict None, or
        the account of a web server's run).

        `run` is up to date (state, reason, seconds), and the files of one that succeeded are at `run.result_folder`.
        """


_purposes: dict[str, Purpose] = {}


def register(name: str, purpose: Purpose) -> None:
    """Makes runs with `purpose=name` possible. Called from AppConfig.ready."""
    _purposes[name] = purpose


def get(name: str) -> Purpose:
    """The purpose of that name. Raises KeyError when no room registered it."""
    return _purposes[name]


def forget(name: str) -> None:
    """Takes a purpose out again, for tests that bring their own."""
    _purposes.pop(name, None)


_priorities: dict[int, tuple[str, Any]] = {}


def name_priority(priority: int, name: str, title: Any) -> None:
    """Says what runs of a priority are, for operators: `name` for machines, `title` (may be lazy) for people."""
    _priorities[priority] = (name, title)


def priorities() -> list[int]:
    """The priorities that have names, the most urgent first."""
    return sorted(_priorities, reverse=True)


def priority_name(priority: int) -> str:
    """For machines; the number itself where no room gave it a name."""
    return _priorities[priority][0] if priority in _priorities else str(priority)


def priority_title(priority: int) -> str:
    """For people, in their language; the number itself where no room gave it a name."""
    return str(_priorities[priority][1]) if priority in _priorities else str(priority)
