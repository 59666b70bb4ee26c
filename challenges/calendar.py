"""The calendar of a challenge: whether its phases make sense, before publishing and when dates move later."""

from collections.abc import Iterable
from datetime import datetime

from challenges.findings import Finding
from challenges.models import Phase


def look(phases: Iterable[Phase], now: datetime) -> list[Finding]:
    """What is wrong with these phases of one challenge at this moment; nothing if all is in order."""
    by_kind = {phase.kind: phase for phase in phases}
    development, final = by_kind.get(Phase.Kind.DEVELOPMENT), by_kind.get(Phase.Kind.FINAL)
    found = [] if development else [Finding("error", "phases-none")]
    for phase in by_kind.values():
        if phase.closes_at and phase.closes_at <= now:
            found.append(Finding("error", "phase-over", {"phase": phase.kind}))
        if phase.closes_at and phase.closes_at <= (phase.opens_at or now):
            found.append(Finding("error", "phase-backwards", {"phase": phase.kind}))
        if phase.seeds * phase.folds < 2:
            found.append(Finding("error", "phase-units", {"phase": phase.kind}))
    return found + _order(development, final) if development and final else found


def _order(development: Phase, final: Phase) -> list[Finding]:
    """The final comes after the development phase. Without a beginning it begins when that is over."""
    if development.closes_at is None:
        return [Finding("error", "phases-overlap")] if final.opens_at else []
    if final.opens_at and final.opens_at < development.closes_at:
        return [Finding("error", "phases-overlap")]
    if final.closes_at and not final.opens_at and final.closes_at <= development.closes_at:
        return [Finding("error", "phases-overlap")]
    return []
