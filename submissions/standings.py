"""Leaks become boards: each entry's row is recomputed from the stored duels when one of them changes (SCORING 2, 3).

A new duel touches its defense's row and its attack's; only when it changes which defenses count do all attacks follow.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

import numpy as np
from django.db.models import Avg, Count, F, FloatField, Q, QuerySet
from django.db.models.functions import Coalesce

from challenges.metrics import duel as metrics
from challenges.models import Challenge
from sandbox.reasons import Reason
from submissions.models import Duel, Standing, Submission
from submissions.states import READY

_ROUNDING = 1e-9  # of floating-point numbers: a utility exactly at the threshold passes
_DECIMALS = 2  # of everything that the public sees of a development phase (SCORING 4)


def refresh_duel(*, attack: Submission, defense: Submission) -> None:
    """Brings the boards up to date after one more duel."""
    challenge = defense.challenge
    before = _counting_defenses(challenge)
    refresh_defense(defense)
    changed = _counting_defenses(challenge) != before
    refresh_attacks(challenge, None if changed else [attack])


def refresh_all(challenge: Challenge) -> None:
    """Recomputes every row of a challenge: who takes part has changed."""
    for defense in Submission.objects.active().defenses().filter(challenge=challenge):
        refresh_defense(defense)
    refresh_attacks(challenge)


def refresh_defense(defense: Submission) -> None:
    """Recomputes U, W, P and S of a defense from its releases and the duels against them."""
    challenge = defense.challenge
    releases = list(defense.releases.select_related("phase").order_by("seed"))
    if not releases or challenge.trivial_utility is None or challenge.reference_utility is None:
        return
    utility = metrics.normalised_utility(
        [release.utility for release in releases], challenge.trivial_utility, challenge.reference_utility
    )
    duels = _Duels.against(defense, [release.seed for release in releases])
    worst = metrics.crossfit(duels.leaks, duels.errors)
    privacy = metrics.privacy(worst.value, challenge.reference_leak)
    useful = utility >= challenge.utility_threshold - _ROUNDING
    # Before every seed ran and every baseline was met, nothing can be said about privacy.
    known = bool(duels.attacks) and len(releases) == releases[0].phase.seeds and not _awaits_baselines(defense)
    qualified = known and useful and duels.baseline_leak < challenge.reference_leak
    public_utility, public_leak = _public(utility), _public(worst.value)
    public_privacy = metrics.privacy(public_leak, challenge.reference_leak)
    Standing.objects.update_or_create(
        submission=defense,
        defaults={
            "qualified": qualified,
            "utility": utility,
            "worst_leak": worst.mean if known else None,
            "worst_leak_error": worst.standard_error if known else None,
            "worst_attack_id": duels.attacks[worst.choices[0][0]] if known else None,
            "privacy": privacy if known else None,
            "score": _score(qualified, utility, privacy) if known else None,
            "public_utility": public_utility,
            "public_worst_leak": public_leak if known else None,
            "public_privacy": _public(public_privacy) if known else None,
            "public_score": _public(_score(qualified, public_utility, public_privacy)) if known else None,
        },
    )


def refresh_attacks(challenge: Challenge, attacks: Iterable[Submission] | None = None) -> None:
    """Recomputes Q of these attacks, by default of all active ones, against the defenses that count."""
    if attacks is None:
        attacks = Submission.objects.active().attacks().filter(challenge=challenge)
    attacks = list(attacks)
    utilities = _counting_defenses(challenge)
    successes = _successes(attacks, utilities)
    for attack in attacks:
        met = successes[attack.pk]
        exact = [(utilities[defense], leak) for defense, leak in met.items()]
        public = [(_public(u), _public(leak)) for u, leak in exact]
        Standing.objects.update_or_create(
            submission=attack,
            defaults={
                "mean_leak": float(np.mean([leak for _u, leak in exact])) if met else None,
                "score": metrics.attack_score(*zip(*exact, strict=True)) if met else None,
                "public_mean_leak": _public(float(np.mean([leak for _u, leak in public]))) if met else None,
                "public_score": _public(metrics.attack_score(*zip(*public, strict=True))) if met else None,
            },
        )


def _public(value: float) -> float:
    """The value as everybody may see it; the sum turns a rounded -0.0 into 0.0."""
    return round(value, _DECIMALS) + 0.0


def _score(qualified: bool, utility: float, privacy: float) -> float:
    return metrics.defense_score(utility, privacy) if qualified else 0.0


def _counting_defenses(challenge: Challenge) -> dict[UUID, float]:
    """The defenses that attacks are scored on, with their utility: qualified, ranked, the best one of each team."""
    rows = (
        Standing.objects.filter(
            qualified=True,
            submission__challenge=challenge,
            submission__kind=Submission.Kind.DEFENSE,
            submission__role=Submission.Role.ENTRY,
            submission__state__in=READY,
            submission__active=True,
        )
        .order_by(
            "submission__team",
            F("score").desc(nulls_last=True),
            F("privacy").desc(nulls_last=True),
            F("utility").desc(nulls_last=True),
            "submission__created_at",
        )
        .values_list("submission", "submission__team", "utility")
    )
    best: dict[int, tuple[UUID, float]] = {}
    for defense, team, utility in rows:
        best.setdefault(team, (defense, utility or 0.0))
    return dict(best.values())


def _awaits_baselines(defense: Submission) -> bool:
    open_or_faulted = Q(state=Duel.State.PENDING) | Q(reason=Reason.PLATFORM_FAULT)
    baselines = Duel.objects.filter(
        release__submission=defense, attack__role=Submission.Role.BASELINE, attack__active=True
    )
    return baselines.filter(open_or_faulted).exists()


def _successes(attacks: list[Submission], utilities: dict[UUID, float]) -> dict[UUID, dict[UUID, float]]:
    """s(a, d) of each attack against each counting defense that it has met; a failed duel is a leak of 0."""
    rows = (
        Duel.objects.filter(attack__in=attacks, release__submission__in=list(utilities))
        .exclude(state=Duel.State.PENDING)
        .exclude(reason=Reason.PLATFORM_FAULT)
        .values_list("attack", "release__submission")
        .annotate(leak=Avg(Coalesce("mean_leak", 0.0, output_field=FloatField())))
    )
    met: dict[UUID, dict[UUID, float]] = defaultdict(dict)
    for attack, defense, leak in rows:
        met[attack][defense] = max(0.0, leak)
    return met


@dataclass(frozen=True)
class _Duels:
    """The finished duels against one defense as arrays [unit][attack][metric], attacks in order of submission."""

    attacks: list[UUID]
    leaks: np.ndarray
    errors: np.ndarray
    baseline_leak: float  # cross-fitted W over the organiser's baselines alone

    @classmethod
    def against(cls, defense: Submission, seeds: list[int]) -> "_Duels":
        rows = (
            Duel.objects.done()
            .filter(release__submission=defense, attack__state__in=READY, attack__active=True)
            .order_by("attack__created_at", "attack", "release__seed")
            .values_list("attack", "attack__role", "leaks", "errors")
        )
        leaks: dict[UUID, list[list[float]]] = defaultdict(list)
        errors: dict[UUID, list[list[float]]] = defaultdict(list)
        finished: dict[UUID, int] = defaultdict(int)
        roles: dict[UUID, str] = {}
        for attack, role, leak, error in rows:
            leaks[attack] += leak
            errors[attack] += error
            finished[attack] += 1
            roles[attack] = role
        # An attack without a result for every seed is left out: units must hold the same attacks.
        whole = [attack for attack in leaks if finished[attack] == len(seeds)]
        array = np.array([leaks[attack] for attack in whole]).swapaxes(0, 1) if whole else np.zeros((0, 0, 2))
        spread = np.array([errors[attack] for attack in whole]).swapaxes(0, 1) if whole else np.zeros((0, 0, 2))
        baselines = [place for place, attack in enumerate(whole) if roles[attack] == Submission.Role.BASELINE]
        baseline_leak = metrics.crossfit_worst_leak(array[:, baselines]) if baselines else 0.0
        return cls(attacks=whole, leaks=array, errors=spread, baseline_leak=baseline_leak)


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


def board(*, challenge: Challenge, kind: str, organiser: bool = False) -> list[Row]:
    """A board, best first. Organisers see exact numbers, everybody else those rounded for the public."""
    rows: list[Row] = []
    rank = 0
    counts = _duel_counts(challenge, kind)
    for standing in Standing.objects.on_board(challenge=challenge, kind=kind):
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
    return error if organiser or error is None else _public(error)


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
    state: str  # done, pending, failed; pairs that do not meet have no cell


@dataclass(frozen=True)
class Matrix:
    """Every attack against every defense. `cells` is keyed by (attack id, defense id)."""

    attacks: list[Row]
    defenses: list[Row]
    cells: dict[tuple[UUID, UUID], Cell]


def matrix(*, challenge: Challenge) -> Matrix:
    """The matrix of published scores, rows and columns in the order of the boards."""
    attacks = board(challenge=challenge, kind=Submission.Kind.ATTACK)
    defenses = board(challenge=challenge, kind=Submission.Kind.DEFENSE)
    rows = (
        Duel.objects.filter(attack__in=[row.submission.pk for row in attacks])
        .filter(release__submission__in=[row.submission.pk for row in defenses])
        .values_list("attack", "release__submission")
        .annotate(
            leak=Avg("mean_leak", filter=Q(state=Duel.State.DONE)),
            done=Count("pk", filter=Q(state=Duel.State.DONE)),
            pending=Count("pk", filter=Q(state=Duel.State.PENDING)),
        )
    )
    cells = {
        (attack, defense): Cell(
            leak=None if leak is None else _public(leak),
            state="pending" if pending else "done" if done else "failed",
        )
        for attack, defense, leak, done, pending in rows
    }
    return Matrix(attacks=attacks, defenses=defenses, cells=cells)


def _duel_counts(challenge: Challenge, kind: str) -> dict[UUID, tuple[int, int]]:
    """Finished and open duels of each entry of a kind."""
    side = "attack" if kind == Submission.Kind.ATTACK else "release__submission"
    duels: QuerySet[Duel] = Duel.objects.filter(attack__challenge=challenge)
    rows = duels.values_list(side).annotate(
        done=Count("pk", filter=~Q(state=Duel.State.PENDING)), due=Count("pk", filter=Q(state=Duel.State.PENDING))
    )
    return {entry: (done, due) for entry, done, due in rows}
