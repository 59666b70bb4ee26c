"""What people may see of the exchanges with entries that are web servers (DESIGN 5).

Of a rehearsal its team sees every route. What a server asks for on private data is a message of its own making, so of
duels it sees how much was asked, in a few steps; organisers see the number.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from django.utils.translation import gettext as _

from challenges.scenarios import registry
from sandbox.contracts import Contract
from submissions.models import Duel, Step, Submission

STEPS = 4  # in which rows asked are told: with none, five values, 2.3 bits a defense
_ANSWERED = range(200, 300)


@dataclass(frozen=True)
class Route:
    """One route of an exchange. `status` is that of its last answer: 0 if there was none, None if nobody asked.

    `called`: the platform called the server; else the server asked the platform.
    """

    request: str
    status: int | None
    called: bool

    @property
    def outcome(self) -> str:
        """answered, failed (a call), refused (what the server asked), silent or unasked."""
        if self.status is None:
            return "unasked"
        if self.status == 0:
            return "silent"
        if self.status in _ANSWERED:
            return "answered"
        return "failed" if self.called else "refused"

    @property
    def label(self) -> str:
        """The outcome in the reader's language."""
        return {
            "answered": _("answered"),
            "failed": _("failed"),
            "refused": _("refused"),
            "silent": _("no answer"),
            "unasked": _("not called") if self.called else _("not asked for"),
        }[self.outcome]


@dataclass(frozen=True)
class Exchange:
    """What was called and asked in one step of a rehearsal."""

    step: str
    calls: Sequence[Route]
    asked: Sequence[Route]
    queries: int

    @property
    def all(self) -> Sequence[Route]:
        return [*self.calls, *self.asked]


@dataclass(frozen=True)
class Asked:
    """How many rows an attack asked a defense about: at most, in steps of the budget, or the number if `exact`.

    `live`: of them, those that the defense answered during the duel; None unless exact. Of several seeds the most.
    """

    defense: Submission
    rows: int
    live: int | None = None


@dataclass(frozen=True)
class Questions:
    """What an attack asked in its duels; `budget` rows are allowed in each."""

    budget: int
    defenses: Sequence[Asked]
    exact: bool


def of_rehearsal(steps: Sequence[Step]) -> list[Exchange]:
    """The exchanges of the rehearsal among an entry's steps; none of an image that reads and writes files."""
    return [_exchange(step) for step in steps if step.is_rehearsal and step.exchange]


def questions(attack: Submission, *, exact: bool) -> Questions | None:
    """What a web server asked in its duels that are over; None of other entries, and where nothing can be asked.

    `exact` is for organisers. Nothing of a final that is not revealed.
    """
    game = attack.challenge.game
    images = registry.get(game.scenario).images(attack.contract or Contract.FILES)
    budget = None if attack.is_defense else images.query_budget(game)
    if budget is None:
        return None
    duels = attack.duels.known().exclude(state=Duel.State.PENDING).filter(step__isnull=False)
    most: dict[Submission, Asked] = {}
    for duel in duels.select_related("step", "release__submission__team").order_by("release__submission__created_at"):
        told = duel.step.exchange
        if "queries" not in told:
            continue
        defense, rows, live = duel.release.submission, int(told["queries"]), int(told.get("live", 0))
        asked = Asked(defense, rows, live) if exact else Asked(defense, rounded(rows, budget))
        if defense not in most or asked.rows > most[defense].rows:
            most[defense] = asked
    return Questions(budget, list(most.values()), exact)


def rounded(rows: int, budget: int) -> int:
    """Rows asked, rounded up to the next of a few steps of the budget; 0 only for none."""
    if rows <= 0 or budget <= 0:
        return 0
    step = min(STEPS, math.ceil(rows * STEPS / budget))
    return math.ceil(budget * step / STEPS)


def _exchange(step: Step) -> Exchange:
    told = step.exchange
    ours = told.get("calls", [])
    routes: dict[str, int] = told.get("routes", {})
    calls = [Route(name, routes.get(name), called=True) for name in ours]
    asked = [Route(name, status, called=False) for name, status in routes.items() if name not in ours]
    asked += [Route(name, None, called=False) for name in told.get("unasked", ())]
    return Exchange(step.name, calls, asked, int(told.get("queries", 0)))
