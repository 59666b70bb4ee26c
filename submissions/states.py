"""The states of a submission and the one table of moves between them."""

from typing import Final

from django.db import models
from django.utils.translation import gettext_lazy as _


class State(models.TextChoices):
    UPLOADING = "uploading", _("uploading")
    CHECKING = "checking", _("checking the image")
    REHEARSING = "rehearsing", _("rehearsing on the public sample")
    QUEUED = "queued", _("waiting for its first run")
    RUNNING = "running", _("running")
    SCORED = "scored", _("scored")
    FAILED = "failed", _("failed")
    WITHDRAWN = "withdrawn", _("withdrawn")
    DISQUALIFIED = "disqualified", _("disqualified")


_OUT: Final = frozenset({State.WITHDRAWN, State.DISQUALIFIED})

MOVES: Final[dict[State, frozenset[State]]] = {
    State.UPLOADING: frozenset({State.CHECKING, State.FAILED}) | _OUT,
    State.CHECKING: frozenset({State.REHEARSING, State.FAILED}) | _OUT,
    State.REHEARSING: frozenset({State.QUEUED, State.FAILED}) | _OUT,
    State.QUEUED: frozenset({State.RUNNING, State.SCORED, State.FAILED}) | _OUT,
    State.RUNNING: frozenset({State.SCORED, State.FAILED}) | _OUT,
    State.SCORED: frozenset({State.FAILED}) | _OUT,
    State.FAILED: frozenset(),
    State.WITHDRAWN: frozenset({State.DISQUALIFIED}),
    State.DISQUALIFIED: frozenset(),
}

READY: Final = (State.QUEUED, State.RUNNING, State.SCORED)  # rehearsed; takes part in duels when active
UNDER_WAY: Final = (State.UPLOADING, State.CHECKING, State.REHEARSING, State.QUEUED, State.RUNNING)
OVER: Final = (State.SCORED, State.FAILED, State.WITHDRAWN, State.DISQUALIFIED)


class MoveNotAllowed(Exception):
    """Somebody asked for a state that cannot follow the present one."""
