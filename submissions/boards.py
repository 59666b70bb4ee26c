"""The boards and the matrix as one reader may see them: everything here only reads."""

from dataclasses import dataclass
from uuid import UUID

from django.db.models import Avg, Count, Max, Q

from challenges.models import Challenge, Phase
from submissions.models import Duel, Standing, Submission
from submissions.standings import public


@dataclass(frozen=True)
class Row:
    """A line of a board, as one reader may see it. Utility, privacy and leaks between 0 and 1, score 0 to 100."""

    rank: int | None  # anchors and baselines have none
    submission: Submission
    team: str
    name: str
    role: str
    utility: float | None
    privacy: float | None
    worst_leak: float | None
    worst_leak_error: float | None
    mean_leak: float | None
    score: float | None
    qualified: bool
    duels_done: int
    duels_due: int


def board(*, challenge: Challenge, kind: str, organiser: bool = False, phase: Phase | None = None) -> list[Row]:
    """A board, best first: of the phase that is shown now, unless another is asked for.

    Organisers see exact numbers, everybody else those rounded for the public.
    """
    phase = phase or challenge.shown_phase
    if phase is None:
        return []
    rows: list[Row] = []
    rank = 0
    counts = _duel_counts(phase, kind)
    for standing in Standing.objects.on_board(phase=phase, kind=kind):
        submission = standing.submission
        ranked = submission.is_ranked and standing.public_score is not None
        rank += ranked
        done, due = counts.get(submission.pk, (0, 0))
        prefix = "" if organiser else "public_"
        rows.append(
            Row(
                rank=rank if ranked else None,
                submission=submission,
                team=submission.team.name if submission.team else "",
                name=submission.name,
                role=submission.role,
                utility=getattr(standing, f"{prefix}utility"),
                privacy=getattr(standing, f"{prefix}privacy"),
                worst_leak=getattr(standing, f"{prefix}worst_leak"),
                worst_leak_error=_shown_error(standing, organiser),
                mean_leak=getattr(standing, f"{prefix}mean_leak"),
                score=getattr(standing, f"{prefix}score"),
                qualified=standing.qualified,
                duels_done=done,
                duels_due=due,
            )
        )
    return rows


def _shown_error(standing: Standing, organiser: bool) -> float | None:
    error = standing.worst_leak_error
    return error if organiser or error is None else public(error)


def rank_of(submission: Submission) -> int | None:
    """An entry's present place on its board, 1 is best; None while it has none."""
    if not submission.is_ranked:
        return None
    rows = board(challenge=submission.challenge, kind=submission.kind)
    return next((row.rank for row in rows if row.submission.pk == submission.pk), None)


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
