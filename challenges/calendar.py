"""The calendar of a challenge: whether its phases make sense, before publishing and when dates move later."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from challenges.findings import Finding
from challenges.models import Phase

# A final phase (chosen entries, one run, results at its end) cannot be played yet: none may be published.
PLAYED: Final = (Phase.Kind.DEVELOPMENT,)


def look(phases: Iterable[Phase], now: datetime) -> list[Finding]:
    """What is wrong with these phases of one challenge at this moment; nothing if all is in order."""
    by_kind = {phase.kind: phase for phase in phases}
    development, final = by_kind.get(Phase.Kind.DEVELOPMENT), by_kind.get(Phase.Kind.FINAL)
    found = [] if development else [Finding("error", "phases-none")]
    for phase in by_kind.values():
        if phase.kind not in PLAYED:
            found.append(Finding("error", "phase-unplayed", {"phase": phase.kind}))
        if phase.closes_at and phase.closes_at <= now:
            found.append(Finding("error", "phase-over", {"phase": phase.kind}))
        if phase.closes_at and phase.closes_at <= (phase.opens_at or now):
            found.append(Finding("error", "phase-backwards", {"phase": phase.kind}))
        if phase.seeds * phase.folds < 2:
            found.append(Finding("error", "phase-units", {"phase": phase.kind}))
    if development and final and (not development.closes_at or (final.opens_at or now) < development.closes_at):
        found.append(Finding("error", "phases-overlap"))
    return found
