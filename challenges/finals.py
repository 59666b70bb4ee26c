"""The final as organisers see it: how far it has come, what is missing, what went wrong.

Who is in it, and which runs that means, is known further up the house, which registers here: no call goes up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from django.utils.translation import gettext as _

from challenges.models import Phase

# `fault` is a failure of the platform, which may be run again; `never` is a duel whose defense did not come through.
RunState = Literal["done", "running", "waiting", "failed", "fault", "never"]
OPEN: tuple[RunState, ...] = ("running", "waiting")


@dataclass(frozen=True)
class Entrant:
    """An entry in the final; `owner` is its team, or its role if it is the organisers' own."""

    name: str
    owner: str
    link: str


@dataclass(frozen=True)
class Cell:
    """What became of one defense alone, or of one attack against it, seed by seed."""

    states: tuple[RunState, ...]

    @property
    def said(self) -> str:
        """The states in words, for whoever does not see the picture."""
        words = {
            "done": _("done"),
            "running": _("running"),
            "waiting": _("waiting"),
            "failed": _("failed"),
            "fault": _("fault of the platform"),
            "never": _("cannot be run"),
        }
        return ", ".join(words[state] for state in self.states)


@dataclass(frozen=True)
class Row:
    """A defense: its own runs, then its duel with each attack in order; None for two of the same team."""

    defense: Entrant
    alone: Cell
    duels: Sequence[Cell | None]


@dataclass(frozen=True)
class Trouble:
    """A run that failed; `against` is empty for a defense's own run, seeds count from 1."""

    entrant: Entrant
    against: str
    seed: int
    reason: str
    is_fault: bool


@dataclass(frozen=True)
class Progress:
    """The picture of a final: every defense and every attack that was picked, with the organisers' own."""

    attacks: Sequence[Entrant] = ()
    rows: Sequence[Row] = ()
    troubles: Sequence[Trouble] = ()
    late: int = 0  # entries that run without a rank

    def count(self, *states: RunState) -> int:
        """How many runs are in one of these states; a defense's steps for one seed are one run."""
        cells = [cell for row in self.rows for cell in (row.alone, *row.duels) if cell is not None]
        return sum(state in states for cell in cells for state in cell.states)

    @property
    def due(self) -> int:
        return self.count("done", "failed", "fault", *OPEN)

    @property
    def over(self) -> int:
        return self.count("done", "failed")

    @property
    def open(self) -> int:
        return self.count(*OPEN)

    @property
    def faults(self) -> int:
        return self.count("fault")


class Conductor(Protocol):
    """Plays finals. All but `progress` write, and join the caller's transaction."""

    def freeze(self, final: Phase) -> None:
        """Settles which entries are in; queues their runs if the final has begun."""

    def progress(self, final: Phase) -> Progress:
        """How far it has come."""

    def repeat_faults(self, final: Phase) -> int:
        """Queues what the platform spoilt once more; returns how many runs."""

    def reveal(self, final: Phase) -> None:
        """Works out the standings that everybody now sees."""


_conductors: list[Conductor] = []


def register(conductor: Conductor) -> None:
    """From now on it plays all finals."""
    _conductors[:] = [conductor]


def conductor() -> Conductor:
    """Who plays finals; IndexError where nobody does."""
    return _conductors[0]
