"""The final as organisers see it: how far it has come, what is missing, what went wrong.

Who is in it, and which runs that means, is known further up the house, which registers here: no call goes up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from challenges.models import Challenge, Phase

LONGEST_NOTE: Final = 300  # characters of the reason why a final is revealed without some runs
# `fault` is a failure of the platform, which may be run again; `never` is a duel whose defense did not come through;
# `void` one that the organisers took out of all scores.
RunState = Literal["done", "running", "waiting", "failed", "fault", "never", "void"]
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
            "void": _("void"),
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
        return self.count("done", "failed", "fault", "void", *OPEN)

    @property
    def over(self) -> int:
        return self.count("done", "failed", "void")

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

    def give_up_faults(self, final: Phase, *, reason: str, by: Any) -> None:
        """Takes the duels that the platform spoilt out of all scores, with a reason that everybody reads."""

    def reveal(self, final: Phase) -> None:
        """Works out the standings that everybody now sees."""


_conductors: list[Conductor] = []


def register(conductor: Conductor) -> None:
    """From now on it plays all finals."""
    _conductors[:] = [conductor]


def conductor() -> Conductor:
    """Who plays finals; IndexError where nobody does."""
    return _conductors[0]


def freeze_obstacle(challenge: Challenge) -> str:
    """Why the picks for the final cannot be frozen now; "" if they can."""
    development, final = challenge.development, challenge.final
    if final is None:
        return _("The challenge has no final phase.")
    if final.is_frozen:
        return _("The picks are frozen already.")
    if challenge.status != Challenge.Status.PUBLISHED:
        return _("Only a published challenge can go on to its final.")
    if development is not None and development.opens_at and development.opens_at > timezone.now():
        return _("The development phase has not begun yet.")
    return ""


def reveal_obstacle(challenge: Challenge) -> str:
    """Why the results of the final cannot be revealed now; "" if they can."""
    final = challenge.final
    if final is None:
        return _("The challenge has no final phase.")
    if not final.is_frozen:
        return _("Freeze the picks first.")
    if not final.is_sealed:
        return _("The results are revealed already.")
    if final.opens_at and final.opens_at > timezone.now():
        return _("The final has not begun yet.")
    open_runs = conductor().progress(final).open
    return _("Not all runs of the final are over: %(number)s are to come.") % {"number": open_runs} if open_runs else ""


def spoilt(challenge: Challenge) -> str:
    """What faults of the platform stand in the way of a reveal, and what to do; "" if there are none."""
    final = challenge.sealed_final
    faults = conductor().progress(final).faults if final and final.is_frozen else 0
    if not faults:
        return ""
    return ngettext(
        "The platform spoilt %(number)s run, for which no entry may pay. Repeat it first. If that is not possible, "
        "give a reason, which everybody will read: the duel is then void, and a defense that misses a run has no "
        "score.",
        "The platform spoilt %(number)s runs, for which no entry may pay. Repeat them first. If that is not possible, "
        "give a reason, which everybody will read: these duels are then void, and a defense that misses a run has no "
        "score.",
        faults,
    ) % {"number": faults}
