"""What blind controls say of attacks, for whoever may know: reads only. How they are run is in `controls`."""

from collections import Counter
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from challenges.metrics import control as metrics
from challenges.metrics import rounding
from challenges.metrics.control import Excess
from challenges.models import Challenge, Phase
from sandbox.reasons import Reason
from submissions.models import Control, Release, Submission, Twin
from submissions.models.controls import Part
from submissions.steps import scenario_of

_Z: Final = 1.959964  # of a two-sided 95 % interval


@dataclass(frozen=True)
class Outcome:
    """What the blind control of an attack says in a phase, all seeds together.

    `state`: `waiting`, `failed` (the attack ended none of its runs), `chance`, or `more`: it knows more than chance.
    `leak` beyond chance, and its 95 % interval, for the last two, to the hundredth that everybody sees. `reading` is
    the result on the scale of the field, such as an AUC, or nothing.
    """

    attack: UUID
    state: str
    excess: Excess | None = None
    reading: str = ""

    @property
    def is_flagged(self) -> bool:
        return self.state == "more"

    @property
    def leak(self) -> float | None:
        return None if self.excess is None else rounding.public(self.excess.leak)

    @property
    def low(self) -> float | None:
        return self._end(-1)

    @property
    def high(self) -> float | None:
        return self._end(1)

    def _end(self, side: int) -> float | None:
        """An end of the interval, around the rounded leak: two more rounded numbers would tell the exact one."""
        if self.excess is None:
            return None
        return rounding.public(rounding.public(self.excess.leak) + side * _Z * self.excess.error)


def outcomes(phase: Phase) -> dict[UUID, Outcome]:
    """The outcomes of the attacks that play in a phase and have a control there: for organisers while it is sealed."""
    rows = Control.objects.of_phase(phase).filter(attack__in=Submission.objects.playing(phase))
    found: dict[UUID, list[Control]] = {}
    for control in rows.select_related("attack__challenge").order_by("twin__seed", "pk"):
        found.setdefault(control.attack_id, []).append(control)
    return {attack: _outcome(controls) for attack, controls in found.items()}


def outcome(attack: Submission, phase: Phase) -> Outcome | None:
    """The outcome of one attack; None while there is no control of it."""
    controls = list(Control.objects.of_phase(phase).filter(attack=attack).select_related("attack__challenge"))
    return _outcome(controls) if controls else None


def public(attack: Submission) -> Outcome | None:
    """The outcome of one attack in the phase whose boards everybody sees; None while there is none."""
    phase = attack.challenge.shown_phase
    return None if phase is None or phase.is_sealed else outcome(attack, phase)


def _outcome(controls: list[Control]) -> Outcome:
    attack = controls[0].attack
    if any(_is_open(control) for control in controls):
        return Outcome(attack.pk, "waiting")
    done = [control for control in controls if control.state == Part.State.DONE]
    if not done:
        return Outcome(attack.pk, "failed")
    found = metrics.together([Excess(control.leak or 0.0, control.error or 0.0) for control in done])
    reading = scenario_of(attack).control_reading([control.detail for control in done])
    return Outcome(attack.pk, "chance" if found.is_chance else "more", found, reading)


def _is_open(control: Control) -> bool:
    return control.state == Part.State.PENDING or control.reason == Reason.PLATFORM_FAULT


@dataclass(frozen=True)
class Overview:
    """The controls of a phase for organisers: how many are in which state, and whom they caught, the worst first."""

    phase: Phase
    twins: int
    chance: int
    waiting: int
    failed: int
    flagged: list[tuple[Submission, Outcome]]


def overviews(challenge: Challenge) -> list[Overview]:
    """One for each phase of a challenge in which something was released."""
    released = Release.objects.filter(phase__challenge=challenge).values("phase")
    return [_overview(phase) for phase in challenge.phases.filter(pk__in=released)]


def _overview(phase: Phase) -> Overview:
    found = outcomes(phase)
    numbers = Counter(said.state for said in found.values())
    return Overview(
        phase=phase,
        twins=Twin.objects.filter(phase=phase).count(),
        flagged=_flagged(found),
        **{state: numbers[state] for state in ("chance", "waiting", "failed")},
    )


def flagged(phase: Phase) -> list[tuple[Submission, Outcome]]:
    """The attacks of a phase that know more than chance, the furthest from it first: for organisers and operators."""
    return _flagged(outcomes(phase))


def _flagged(found: dict[UUID, Outcome]) -> list[tuple[Submission, Outcome]]:
    marked = {attack: said for attack, said in found.items() if said.excess is not None and said.is_flagged}
    entries = Submission.objects.filter(pk__in=marked).select_related("team", "challenge")
    return sorted(((entry, marked[entry.pk]) for entry in entries), key=lambda one: -abs(marked[one[0].pk].leak or 0))
