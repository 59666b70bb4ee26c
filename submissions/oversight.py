"""What organisers watch over: duels in which an attack knows too much, and the anchors, which say if the game is sound.

Nothing here runs anything: boards, flags and health all follow from the stored matrix.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import numpy as np
from django.db.models import Q, QuerySet

from challenges.metrics import collusion
from challenges.models import Challenge, Phase
from sandbox.reasons import Reason
from submissions.models import Duel, Release, Standing, Submission

# SCORING 3: a trivial defense must show no leak. So many standard errors off is chance once in 370 looks.
_NO_LEAK_ERRORS: Final = 3.0
_MOST_OTHERS: Final = 20  # duels that nobody suspects, of which the strongest are listed


@dataclass(frozen=True)
class Rival:
    """The best attack of another team on the same release, and how far behind it is: in leak and standard errors."""

    name: str
    leak: float
    gap: float
    errors: float | None


@dataclass(frozen=True)
class Pairing:
    """An attack against a defense in a phase, over all its seeds: one cell of the matrix."""

    duel: Duel  # the first seed's: stands for all of them in addresses
    phase: Phase
    attack: Submission
    defense: Submission
    leak: float | None
    rival: Rival | None
    suspected: bool
    void_reason: str
    spoilt: bool = False  # a fault of the platform ended a duel of it, which keeps a final from its reveal


@dataclass(frozen=True)
class Health:
    """How an anchor does. `state`: `sound`, `bad`, or `open` while it has not met every baseline; None: no such anchor.

    A trivial anchor is sound without a leak, a leaky one from the reference leak on.
    """

    role: str
    phase: Phase
    name: str
    state: str | None
    leak: float | None = None
    error: float | None = None


def review(release: Release) -> None:
    """Flags the duels on a release whose attack is far ahead of all other teams'; takes flags back that do not hold.

    Organisers' attacks collude with nobody, and their anchors are meant to leak.
    """
    duels = list(_finished(release))
    leads = _leads(duels)
    for duel, lead in zip(duels, leads, strict=True):
        ranked = duel.attack.is_ranked and release.submission.is_ranked
        suspected = ranked and lead is not None and lead.is_suspicious
        if suspected != duel.suspected:
            Duel.objects.filter(pk=duel.pk).update(suspected=suspected)


def watched(challenge: Challenge) -> list[Pairing]:
    """The pairings that were flagged or voided, or spoilt in a final, phases apart, the furthest ahead first."""
    spoilt = Q(reason=Reason.PLATFORM_FAULT, release__phase__in=challenge.phases.filter(kind=Phase.Kind.FINAL))
    marked = Duel.objects.filter(Q(suspected=True) | ~Q(void_reason="") | spoilt, attack__challenge=challenge)
    return sorted(_pairings(marked), key=lambda pairing: -(pairing.rival.gap if pairing.rival else 0))


def strongest(challenge: Challenge, doubted: Collection[UUID] = ()) -> list[Pairing]:
    """The pairings of teams that leak most and that nobody has flagged or voided, and all of the `doubted` attacks."""
    seen = {(one.phase.pk, one.attack.pk, one.defense.pk) for one in watched(challenge)}
    ranked = Duel.objects.done().filter(
        attack__challenge=challenge, attack__role=Submission.Role.ENTRY, release__submission__role=Submission.Role.ENTRY
    )
    top = ranked.order_by("-mean_leak").values_list("pk", flat=True)[: _MOST_OTHERS + len(seen)]
    found = _pairings(Duel.objects.filter(pk__in=list(top)) | ranked.filter(attack__in=doubted))
    others = [one for one in found if (one.phase.pk, one.attack.pk, one.defense.pk) not in seen]
    ordered = sorted(others, key=lambda pairing: -(pairing.leak or 0))
    return [one for place, one in enumerate(ordered) if place < _MOST_OTHERS or one.attack.pk in doubted]


def pairing_of(duel: Duel) -> list[Duel]:
    """The duel and the same pairing's under the other seeds of its phase."""
    same = Duel.objects.between(attack=duel.attack, defense=duel.release.submission)
    context = ("attack__team", "attack__challenge", "release__phase", "release__submission__team", "voided_by")
    return list(same.filter(release__phase=duel.release.phase_id).select_related(*context).order_by("release__seed"))


def health(challenge: Challenge) -> list[Health]:
    """How the trivial and the leaky anchors of each phase with results do."""
    found: list[Health] = []
    for phase in challenge.phases.all():
        if not Release.objects.filter(phase=phase).exists():
            continue
        for role in (Submission.Role.TRIVIAL, Submission.Role.LEAKY):
            rows = Standing.objects.filter(
                phase=phase, submission__in=Submission.objects.taking_part(phase).filter(role=role)
            )
            anchors = [_health(row, phase, challenge) for row in rows.select_related("submission")]
            found += anchors or [Health(role, phase, "", None)]
    return found


def _health(row: Standing, phase: Phase, challenge: Challenge) -> Health:
    role, name = row.submission.role, row.submission.name
    if row.worst_leak is None or row.worst_leak_error is None:
        return Health(role, phase, name, "open")
    if role == Submission.Role.TRIVIAL:
        sound = abs(row.worst_leak) <= _NO_LEAK_ERRORS * row.worst_leak_error
    else:
        sound = row.worst_leak >= challenge.reference_leak
    return Health(role, phase, name, "sound" if sound else "bad", row.worst_leak, row.worst_leak_error)


def _finished(release: Release) -> Sequence[Duel]:
    duels = Duel.objects.done().valid().filter(release=release).select_related("attack", "attack__team")
    return list(duels.order_by("attack__created_at", "attack"))


def _leads(duels: Sequence[Duel]) -> list[collusion.Lead | None]:
    if not duels:
        return []
    leaks = np.array([duel.leaks for duel in duels]).swapaxes(0, 1)  # [unit][attack][metric]
    errors = np.array([duel.errors for duel in duels]).swapaxes(0, 1)
    return collusion.leads(leaks, errors, [duel.attack.team_id for duel in duels])


def _pairings(duels: QuerySet[Duel]) -> list[Pairing]:
    """The pairings that these duels belong to, each with all its seeds."""
    firsts = {
        (duel.release.phase_id, duel.attack_id, duel.release.submission_id): duel
        for duel in duels.select_related("attack", "release__submission")
    }
    return [_pairing(pairing_of(duel)) for duel in firsts.values()]


def _pairing(duels: Sequence[Duel]) -> Pairing:
    first = duels[0]
    leaks = [duel.mean_leak for duel in duels if duel.mean_leak is not None]
    rivals = [rival for rival in (_rival(duel) for duel in duels) if rival is not None]
    return Pairing(
        duel=first,
        phase=first.release.phase,
        attack=first.attack,
        defense=first.release.submission,
        leak=sum(leaks) / len(leaks) if leaks else None,
        rival=max(rivals, key=lambda rival: rival.gap) if rivals else None,
        suspected=any(duel.suspected for duel in duels),
        void_reason=first.void_reason,
        spoilt=first.release.phase.is_final and any(duel.reason == Reason.PLATFORM_FAULT for duel in duels),
    )


def _rival(duel: Duel) -> Rival | None:
    """The best attack of another team on the same release, this duel counted in even if it is void."""
    if duel.state != Duel.State.DONE:
        return None
    others = [other for other in _finished(duel.release) if other.pk != duel.pk]
    lead = _leads([duel, *others])[0]
    if lead is None:
        return None
    errors = lead.gap / lead.error if lead.error > 0 else None
    return Rival(others[lead.second - 1].attack.name, lead.second_leak, lead.gap, errors)
