"""Who protects best, who takes most, and every attack against every defense."""

import json
from collections.abc import Sequence

from django.http import HttpResponse

from challenges.models import Phase
from submissions import boards as shown
from submissions.models import Submission
from submissions.views.common import SiteRequest, Visit, fragment_etag, live_view, page_or_fragment, visit


@live_view(fragment_etag)
def boards(request: SiteRequest, slug: str) -> HttpResponse:
    """Both boards, and the picture of utility against privacy. Organisers see the exact figures."""
    here = visit(request, slug)
    phase = shown.phase_of(here.challenge, request.GET.get("phase", ""))
    defenses = _rows(here, Submission.Kind.DEFENSE, phase)
    attacks = _rows(here, Submission.Kind.ATTACK, phase)
    context = here.context(
        tab="boards", shown_phase=phase, defenses=defenses, attacks=attacks, points=_points(defenses)
    )
    return page_or_fragment(request, "challenges/boards.html", "challenges/_boards.html", context)


@live_view(fragment_etag)
def matrix(request: SiteRequest, slug: str) -> HttpResponse:
    """The heat table: defenses as rows, attacks as columns, the mean leak in each cell."""
    here = visit(request, slug)
    phase = shown.phase_of(here.challenge, request.GET.get("phase", ""))
    table = shown.matrix(challenge=here.challenge, phase=phase)
    rows = [
        (
            defense,
            [(attack, table.cells.get((attack.submission.pk, defense.submission.pk))) for attack in table.attacks],
        )
        for defense in table.defenses
    ]
    voided = [(attack, defense, cell) for defense, cells in rows for attack, cell in cells if cell and cell.void_reason]
    context = here.context(tab="matrix", shown_phase=phase, attacks=table.attacks, rows=rows, voided=voided)
    return page_or_fragment(request, "challenges/matrix.html", "challenges/_matrix.html", context)


def _rows(here: Visit, kind: str, phase: Phase | None) -> Sequence[shown.Row]:
    return shown.board(challenge=here.challenge, kind=kind, organiser=here.is_organiser, phase=phase)


def _points(defenses: Sequence[shown.Row]) -> str:
    """The dots of the picture as JSON: [{name, team, role, u, p, s}], only those that have both figures."""
    return json.dumps(
        [
            {"name": row.name, "team": row.team, "role": row.role, "u": row.utility, "p": row.privacy, "s": row.score}
            for row in defenses
            if row.utility is not None and row.privacy is not None
        ]
    )
