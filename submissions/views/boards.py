"""Who protects best, who takes most, and every attack against every defense."""

import json
from collections.abc import Sequence

from django.http import HttpResponse

from challenges.models import Challenge
from submissions import boards as shown
from submissions.models import Submission
from submissions.views.common import SiteRequest, fragment_etag, live_view, page_or_fragment, visit


@live_view(fragment_etag)
def boards(request: SiteRequest, slug: str) -> HttpResponse:
    """Both boards, and the picture of utility against privacy. Organisers see the exact figures."""
    here = visit(request, slug)
    defenses = _rows(here.challenge, Submission.Kind.DEFENSE, here.is_organiser)
    attacks = _rows(here.challenge, Submission.Kind.ATTACK, here.is_organiser)
    context = here.context(tab="boards", defenses=defenses, attacks=attacks, points=_points(defenses))
    return page_or_fragment(request, "challenges/boards.html", "challenges/_boards.html", context)


@live_view(fragment_etag)
def matrix(request: SiteRequest, slug: str) -> HttpResponse:
    """The heat table: defenses as rows, attacks as columns, the mean leak in each cell."""
    here = visit(request, slug)
    table = shown.matrix(challenge=here.challenge)
    rows = [
        (
            defense,
            [(attack, table.cells.get((attack.submission.pk, defense.submission.pk))) for attack in table.attacks],
        )
        for defense in table.defenses
    ]
    voided = [(attack, defense, cell) for defense, cells in rows for attack, cell in cells if cell and cell.void_reason]
    context = here.context(tab="matrix", attacks=table.attacks, rows=rows, voided=voided)
    return page_or_fragment(request, "challenges/matrix.html", "challenges/_matrix.html", context)


def _rows(challenge: Challenge, kind: str, organiser: bool) -> Sequence[shown.Row]:
    return shown.board(challenge=challenge, kind=kind, organiser=organiser)


def _points(defenses: Sequence[shown.Row]) -> str:
    """The dots of the picture as JSON: [{name, team, role, u, p, s}], only those that have both figures."""
    return json.dumps(
        [
            {"name": row.name, "team": row.team, "role": row.role, "u": row.utility, "p": row.privacy, "s": row.score}
            for row in defenses
            if row.utility is not None and row.privacy is not None
        ]
    )
