"""The boards and the matrix as one reader may see them: everything here only reads."""

import math
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from django.db.models import Avg, Count, Max, Q
from django.utils.translation import gettext_lazy as _

from challenges.metrics.rounding import DECIMALS, public
from challenges.models import Challenge, Phase
from submissions import blindness, finals
from submissions.models import Duel, Standing, Submission

# A published interval is no finer than the published number: a hundredth of its scale (SCORING 4).
_SCALE = {"utility": 1.0, "privacy": 1.0, "worst_leak": 1.0, "mean_leak": 1.0, "novelty": 1.0, "score": 100.0}
_STEPS = 10**DECIMALS

Interval = tuple[float, float]


@dataclass(frozen=True)
class Row:
    """A line of a board, as one reader may see it. Utility, privacy and leaks between 0 and 1, score 0 to 100.

    Entries that cannot be told apart share the ranks from `rank` to `rank_last`. Anchors and baselines have none, nor
    have entries whose numbers changed a moment ago. `intervals` are the 95 % intervals of those numbers that have one.
    """

    rank: int | None
    rank_last: int | None
    submission: Submission
    team: str
    name: str
    role: str
    utility: float | None
    privacy: float | None
    worst_leak: float | None
    mean_leak: float | None
    novelty: float | None  # attacks, where there is a prize for it: what nobody else would have found
    score: float | None
    intervals: dict[str, Interval]
    qualified: bool
    duels_done: int
    duels_due: int
    failed: bool = False  # on the board of a final: it came to no result
    control: blindness.Outcome | None = None  # attacks: what the blind control says
    before: "Row | None" = None  # on the board of a final: its line in development

    @property
    def ranks(self) -> str:
        """The ranks as people write them: 4, or 4–6 where they are shared."""
        return str(self.rank or "") if self.rank == self.rank_last else f"{self.rank}–{self.rank_last}"

    @property
    def move(self) -> str:
        """Where the ranks have gone since development: up, down, same; empty where one of the two is missing."""
        old = self.before
        if old is None or None in (self.rank, self.rank_last, old.rank, old.rank_last):
            return ""
        further = (self.rank or 0) + (self.rank_last or 0) - (old.rank or 0) - (old.rank_last or 0)
        return "same" if further == 0 else "up" if further < 0 else "down"


def phase_of(challenge: Challenge, wanted: str) -> Phase | None:
    """The phase whose boards somebody asks for by its kind; never a final that is not revealed."""
    asked = challenge.development if wanted == Phase.Kind.DEVELOPMENT else None
    return asked or challenge.shown_phase


# How the defenses of a challenge are ranked, in one sentence for the board.
_RANKED_BY: Final = {
    "harmonic": _("Ranked by the harmonic mean of utility and privacy: being good at one only is worth little."),
    "gate": _("Ranked by privacy alone, among the defenses that are useful enough."),
    "product": _("Ranked by utility times what does not leak, U (1 − W)."),
    "pareto": _("Ranked by Pareto fronts: first come those that no other defense beats in both utility and privacy."),
    "tpr": _("Ranked by privacy alone, measured by the members that an attack can name with few false alarms."),
    "epsilon": _("Ranked by the epsilon that an audit proves: the smaller it is, the better."),
}


def ranked_by(challenge: Challenge) -> str:
    """One sentence that says how the defenses are ranked, in the reader's language."""
    return str(_RANKED_BY[challenge.ranking])


def board(*, challenge: Challenge, kind: str, organiser: bool = False, phase: Phase | None = None) -> list[Row]:
    """A board, best first: of the phase that is shown now, unless another is asked for.

    Organisers see exact numbers, everybody else those rounded for the public.
    """
    phase = phase or challenge.shown_phase
    if phase is None:
        return []
    standings = list(Standing.objects.on_board(phase=phase, kind=kind))
    places = _places(standings, phase)
    counts = _duel_counts(phase, kind)
    failed = finals.failures(phase) if phase.is_final else {}
    controlled = blindness.outcomes(phase) if kind == Submission.Kind.ATTACK and not phase.is_sealed else {}
    before = _in_development(challenge, kind) if phase.is_final else {}
    rows: list[Row] = []
    for standing in standings:
        submission = standing.submission
        first, last = (None, None) if submission.pk in failed else places.get(submission.pk, (None, None))
        done, due = counts.get(submission.pk, (0, 0))
        numbers = {name: standing.number(name, public=not organiser) for name in _SCALE}
        rows.append(
            Row(
                rank=first,
                rank_last=last,
                submission=submission,
                team=submission.team.name if submission.team else "",
                name=submission.name,
                role=submission.role,
                intervals={
                    name: tuple(standing.intervals[name]) if organiser else public_interval(standing, name)
                    for name in _SCALE
                    if name in standing.intervals and numbers[name] is not None
                },
                qualified=standing.qualified,
                duels_done=done,
                duels_due=due,
                failed=submission.pk in failed,
                control=controlled.get(submission.pk),
                before=before.get(submission.pk),
                **numbers,
            )
        )
    return rows


def _places(standings: list[Standing], phase: Phase) -> dict[UUID, tuple[int, int]]:
    """The first and the last rank of each entry's band, which all its entries share."""
    ranked = [row for row in standings if row.submission.is_ranked_in(phase) and row.public_score is not None]
    ends: dict[int, tuple[int, int]] = {}
    for place, row in enumerate(ranked, start=1):
        if row.band is not None:
            ends[row.band] = (ends.get(row.band, (place, place))[0], place)
    return {row.submission_id: ends[row.band] for row in ranked if row.band is not None}


def _in_development(challenge: Challenge, kind: str) -> dict[UUID, Row]:
    """The lines of the development phase's board, by their entries."""
    development = challenge.development
    rows = board(challenge=challenge, kind=kind, phase=development) if development else []
    return {row.submission.pk: row for row in rows}


def public_interval(standing: Standing, name: str) -> Interval:
    """The interval around the published number: moved with it, so that it tells no more, and rounded outwards."""
    low, high = standing.intervals[name]
    scale, shown, exact = _SCALE[name], standing.number(name, public=True), standing.number(name)
    assert shown is not None
    assert exact is not None
    moved = shown - min(max(exact, 0.0), scale)
    steps = _STEPS / scale
    return (
        max(0.0, math.floor((max(low, 0.0) + moved) * steps + 1e-6) / steps),
        min(scale, math.ceil((max(high, 0.0) + moved) * steps - 1e-6) / steps),
    )


def lines(challenge: Challenge, kind: str) -> dict[UUID, Row]:
    """The lines of the public board that is shown now, by their entries."""
    return {row.submission.pk: row for row in board(challenge=challenge, kind=kind)}


@dataclass(frozen=True)
class Cell:
    """One attack against one defense: the mean leak over the defense's seeds, rounded for the public."""

    leak: float | None
    state: str  # done, pending, failed, void; pairs that do not meet have no cell
    void_reason: str = ""  # why an organiser took it out of all scores


@dataclass(frozen=True)
class Matrix:
    """Every attack against every defense. `cells` is keyed by (attack id, defense id)."""

    attacks: list[Row]
    defenses: list[Row]
    cells: dict[tuple[UUID, UUID], Cell]


def matrix(*, challenge: Challenge, phase: Phase | None = None) -> Matrix:
    """The matrix of published scores of a phase (see `board`), rows and columns in the order of the boards."""
    phase = phase or challenge.shown_phase
    attacks = board(challenge=challenge, kind=Submission.Kind.ATTACK, phase=phase)
    defenses = board(challenge=challenge, kind=Submission.Kind.DEFENSE, phase=phase)
    done = Q(state=Duel.State.DONE, void_reason="")
    rows = (
        Duel.objects.filter(release__phase=phase)
        .filter(attack__in=[row.submission.pk for row in attacks])
        .filter(release__submission__in=[row.submission.pk for row in defenses])
        .values_list("attack", "release__submission")
        .annotate(
            leak=Avg("mean_leak", filter=done),
            done=Count("pk", filter=done),
            pending=Count("pk", filter=Q(state=Duel.State.PENDING)),
            void=Max("void_reason"),
        )
    )
    cells = {(attack, defense): _cell(*outcome) for attack, defense, *outcome in rows}
    return Matrix(attacks=attacks, defenses=defenses, cells=cells)


def _cell(leak: float | None, done: int, pending: int, void_reason: str) -> Cell:
    state = "void" if void_reason else "pending" if pending else "done" if done else "failed"
    return Cell(None if leak is None or void_reason else public(leak), state, void_reason)


def _duel_counts(phase: Phase, kind: str) -> dict[UUID, tuple[int, int]]:
    """Finished and open duels of each entry of a kind."""
    side = "attack" if kind == Submission.Kind.ATTACK else "release__submission"
    rows = (
        Duel.objects.valid()
        .filter(release__phase=phase)
        .values_list(side)
        .annotate(
            done=Count("pk", filter=~Q(state=Duel.State.PENDING)), due=Count("pk", filter=Q(state=Duel.State.PENDING))
        )
    )
    return {entry: (done, due) for entry, done, due in rows}
