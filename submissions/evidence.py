"""What is known about a defense, for readers who decide by it: facts of stored rows, as one reader may see them.

No sentence and no HTML. Everybody but an organiser sees numbers rounded as on the boards (SCORING 4), and of the
private data nobody learns more here than the pages of the challenge tell.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import metadata
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from challenges.metrics.bootstrap import RESAMPLES
from challenges.metrics.rounding import public
from challenges.models import Challenge, Phase
from challenges.scenarios import registry
from challenges.scenarios.base import CONTRACT
from challenges.scenarios.criteria import CRITERIA
from submissions import blindness, boards, matrix
from submissions.models import Duel, Exposure, Release, Standing, Submission
from submissions.states import READY

_Z: Final = 1.959964  # of a two-sided 95 % interval
_PREFIX: Final = 16  # hexadecimal digits of a hash: enough to compare, short enough to read


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, which is None where none was worked out."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Finding:
    """One leak of an attack. `rate` is how often it is right, `chance` how often without the release (or guessing).

    leak = (rate - chance) / (1 - chance): for `auc` chance is 0.5, for `tpr` the false-positive rate that is allowed,
    for a residual risk the rate among control persons, who are not in the data.
    """

    metric: str
    leak: Estimate
    rate: Estimate
    chance: float


@dataclass(frozen=True)
class Strongest:
    """The attack that the worst leak rests on, with all that it was measured by.

    `control`: what its blind control says (see `blindness.Outcome`), empty while there is none.
    """

    name: str
    team: str
    role: str
    findings: tuple[Finding, ...]
    control: str


@dataclass(frozen=True)
class Attacks:
    """How many attacks met the defense, failed against it, and had a duel voided by an organiser."""

    met: int
    failed: int
    voided: int


@dataclass(frozen=True)
class Histogram:
    """Exposures of people: see `challenges.metrics.exposure.Exposure`. `records` is rounded to two digits."""

    share: Estimate
    noise: float
    threshold: float
    attacks: int
    records: int
    members: tuple[float, ...]
    others: tuple[float, ...]


@dataclass(frozen=True)
class Likeness:
    """How like the data that it was made from a release is, 1 where no difference is seen; None where there is nothing.

    See `challenges.metrics.similarity`: means over columns, over pairs of columns, and over columns with empty cells.
    """

    columns: float | None
    pairs: float | None
    missing: float | None


@dataclass(frozen=True)
class Criterion:
    """A criterion of WP 216, how far it was measured, and the reason in the reader's language."""

    name: str
    extent: str
    reason: str


@dataclass(frozen=True)
class Epsilon:
    """What the team declares of differential privacy, which nobody verified, beside the bound that attacks prove."""

    declared: float | None
    delta: float | None
    audited: float | None

    @property
    def contradicted(self) -> bool:
        """Whether an attack shows more than the declaration allows."""
        return self.declared is not None and self.audited is not None and self.audited > self.declared


@dataclass(frozen=True)
class Data:
    """What the data are called, and the public sample that looks like them."""

    name: str
    sample_rows: int
    sample_sha256: str


@dataclass(frozen=True)
class Method:
    """How it was measured: enough to do it again, given the data."""

    scenario: str
    phase: str
    seeds: int
    folds: int
    resamples: int
    metric: str
    constants: dict[str, float | None]
    contract: str
    software: str
    image: str


@dataclass(frozen=True)
class Card:
    """All that a reader needs to know about a defense. `preliminary`: a development phase, whose numbers still move."""

    submission: Submission
    name: str
    team: str
    role: str
    challenge: str
    title: str
    preliminary: bool
    qualified: bool
    utility: Estimate | None
    likeness: Likeness | None
    worst_leak: Estimate | None
    privacy: Estimate | None
    score: Estimate | None
    strongest: Strongest | None
    attacks: Attacks
    exposure: Histogram | None
    criteria: tuple[Criterion, ...]
    epsilon: Epsilon
    dataset: Data
    method: Method
    as_of: datetime


def readable(*, challenge: Challenge, user: Any) -> Any:
    """The defenses whose cards a person may read: those on the boards, and their own or their challenge's."""
    defenses = Submission.objects.defenses().filter(challenge=challenge, state__in=READY)
    own = Submission.objects.readable_by(user).values("pk")
    phase = challenge.shown_phase
    shown = Submission.objects.none() if phase is None else Submission.objects.playing(phase)
    return (defenses.filter(pk__in=own) | defenses.filter(pk__in=shown.values("pk"))).distinct().with_context()


def card(submission: Submission, *, exact: bool = False) -> Card | None:
    """The card of a defense in the phase that is shown now; `exact` for organisers. None before its first release."""
    challenge = submission.challenge
    phase = challenge.shown_phase
    standing = submission.standing
    if phase is None or standing is None or standing.utility is None:
        return None
    preliminary = phase.kind == Phase.Kind.DEVELOPMENT
    eye = _Eye(exact)
    duels = _duels(submission, phase)
    strongest = [duel for duel in duels if duel.attack_id == standing.worst_attack_id and _counts(duel)]
    return Card(
        submission=submission,
        name=submission.name,
        team=submission.team.name if submission.team else "",
        role=submission.role,
        challenge=challenge.slug,
        title=challenge.text("title"),
        preliminary=preliminary,
        qualified=standing.qualified,
        **{name: _on_board(standing, name, eye) for name in ("utility", "worst_leak", "privacy", "score")},
        likeness=_likeness(submission, phase, eye),
        strongest=_strongest(challenge, strongest, eye),
        attacks=_attacks(duels),
        exposure=_histogram(submission, phase, eye),
        criteria=_criteria(challenge),
        epsilon=_epsilon(submission, strongest, eye),
        dataset=Data(challenge.text("title"), challenge.dataset.sample_rows, challenge.dataset.sample_sha256[:_PREFIX]),
        method=_method(submission, phase),
        as_of=standing.updated_at,
    )


class _Eye:
    """Numbers as a reader sees them: exact, or rounded."""

    def __init__(self, exact: bool) -> None:
        self.exact = exact

    def number(self, value: float) -> float:
        return value if self.exact else public(value)

    def numbers(self, values: Sequence[float]) -> tuple[float, ...]:
        return tuple(self.number(value) for value in values)

    def within(self, value: float, error: float, *, low: float = -1.0, high: float = 1.0) -> Estimate:
        """The value with the interval that its standard error gives, within bounds.

        The interval lies around the number that is shown: two more rounded numbers would tell the exact one.
        """
        shown, reach = self.number(value), _Z * error
        return Estimate(shown, self.number(max(low, shown - reach)), self.number(min(high, shown + reach)))


def _on_board(standing: Standing, name: str, eye: _Eye) -> Estimate | None:
    value = getattr(standing, name if eye.exact else f"public_{name}")
    if value is None:
        return None
    highest = 100.0 if name == "score" else 1.0
    shown = min(max(value, 0.0), highest)
    if name not in standing.intervals:
        return Estimate(shown)
    bounds = standing.intervals[name] if eye.exact else boards.public_interval(standing, name)
    low, high = (min(max(bound, 0.0), highest) for bound in bounds)
    return Estimate(shown, low, high)


def _likeness(defense: Submission, phase: Phase, eye: _Eye) -> Likeness | None:
    """The means over seeds; None where the scenario measures no likeness."""
    found = [release.facts.get("similarity") for release in Release.objects.filter(submission=defense, phase=phase)]
    known: dict[str, float | None] = {}
    for name in ("columns", "pairs", "missing"):
        numbers = [facts[name] for facts in found if facts and facts.get(name) is not None]
        known[name] = eye.number(float(np.mean(numbers))) if numbers else None
    return Likeness(**known) if any(value is not None for value in known.values()) else None


def _duels(defense: Submission, phase: Phase) -> list[Duel]:
    """The duels of attacks that still take part; the others have left the matrix."""
    inside = Submission.objects.taking_part(phase).attacks()
    duels = Duel.objects.filter(release__submission=defense, release__phase=phase, attack__in=inside.values("pk"))
    return list(duels.select_related("attack__team", "release__phase").order_by("release__seed", "pk"))


def _counts(duel: Duel) -> bool:
    return duel.state == Duel.State.DONE and not duel.void_reason


def _attacks(duels: Sequence[Duel]) -> Attacks:
    def number(wanted: Sequence[Duel]) -> int:
        return len({duel.attack_id for duel in wanted})

    return Attacks(
        met=number([duel for duel in duels if _counts(duel)]),
        failed=number([duel for duel in duels if duel.state == Duel.State.FAILED]),
        voided=number([duel for duel in duels if duel.void_reason]),
    )


def _strongest(challenge: Challenge, duels: Sequence[Duel], eye: _Eye) -> Strongest | None:
    if not duels:
        return None
    attack = duels[0].attack
    controlled = blindness.outcome(attack, duels[0].release.phase)
    metrics = registry.get(challenge.scenario).metrics(challenge.game)
    values = np.concatenate([np.array(duel.leaks) for duel in duels])  # units of all seeds
    errors = np.concatenate([np.array(duel.errors) for duel in duels])
    return Strongest(
        name=attack.name,
        team=attack.team.name if attack.team else "",
        role=attack.role,
        control=controlled.state if controlled else "",
        findings=tuple(
            _finding(
                metric, values[:, column], errors[:, column], [_chance(metric, duel.detail) for duel in duels], eye
            )
            for column, metric in enumerate(metrics)
        ),
    )


def _finding(
    metric: str, values: NDArray[np.float64], errors: NDArray[np.float64], chances: Sequence[float], eye: _Eye
) -> Finding:
    """The mean over units, whose errors count as independent (as in `metrics.duel.crossfit`)."""
    chance = float(np.mean(chances))
    leak, error = float(values.mean()), math.sqrt(float((errors**2).sum())) / len(errors)
    rate = chance + leak * (1 - chance)
    return Finding(
        metric=metric,
        leak=eye.within(leak, error),
        rate=eye.within(rate, error * (1 - chance), low=0.0),
        chance=eye.number(chance),
    )


def _chance(metric: str, detail: Mapping[str, Any]) -> float:
    """How often an attack is right by guessing, or on people who are not in the data."""
    if metric == "auc":
        return 0.5
    return float(detail["alpha"] if metric == "tpr" else detail[metric].get("control", 0.0))


def _histogram(defense: Submission, phase: Phase, eye: _Eye) -> Histogram | None:
    exposure = Exposure.objects.filter(submission=defense, phase=phase).first()
    if exposure is None or not exposure.facts:
        return None
    facts = exposure.facts
    return Histogram(
        share=eye.within(facts["share"], facts["error"]),
        noise=max(0.0, eye.number(facts["noise"])),  # where many scores are tied, chance reaches less than its 5 %
        threshold=eye.number(facts["threshold"]),
        attacks=facts["attacks"],
        records=_about(facts["records"]),
        members=eye.numbers(facts["members"]),
        others=eye.numbers(facts["others"]),
    )


def _about(number: int) -> int:
    """The number to two significant digits: how big the private parts are exactly is told nowhere."""
    digits = max(0, len(str(number)) - 2)
    return int(round(number, -digits))


def _criteria(challenge: Challenge) -> tuple[Criterion, ...]:
    declared = registry.get(challenge.scenario).criteria
    return tuple(
        Criterion(name, declared[name].extent, str(declared[name].reason))
        if name in declared
        else Criterion(name, "not_measured", "")
        for name in CRITERIA
    )


def _epsilon(defense: Submission, strongest: Sequence[Duel], eye: _Eye) -> Epsilon:
    """The audited bound is that of the strongest attack, proved in every seed: the highest would be so by chance."""
    found = [matrix.audited(duel.detail.get("epsilon")) for duel in strongest]
    bounds = [bound for bound in found if bound is not None]
    proved = eye.number(min(bounds)) if bounds else None
    return Epsilon(defense.declared_epsilon, defense.declared_delta, proved)


def _method(defense: Submission, phase: Phase) -> Method:
    challenge = phase.challenge
    constants = {
        "reference_leak": challenge.reference_leak,
        "utility_threshold": challenge.utility_threshold,
        "revealed": challenge.revealed,
        "trivial_utility": challenge.trivial_utility,
        "reference_utility": challenge.reference_utility,
    }
    return Method(
        scenario=challenge.scenario,
        phase=phase.kind,
        seeds=phase.seeds,
        folds=phase.folds,
        resamples=RESAMPLES,
        metric=challenge.metric,
        constants=constants,
        contract=CONTRACT,
        software=software(),
        image=defense.image.image_id if defense.image else "",
    )


@cache
def software() -> str:
    """The version of the arena that is installed."""
    return f"anomed-arena {metadata.version('anomed-arena')}"
