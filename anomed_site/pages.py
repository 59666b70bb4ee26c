"""The pages that belong to no single challenge: home, the list, the documentation, a person's profile."""

from pathlib import Path
from typing import Any

from csp.constants import UNSAFE_INLINE
from csp.decorators import csp_update
from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.db.models import Count, OuterRef, Prefetch, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import get_language
from django.views.decorators.http import require_safe
from knox.models import AuthToken

from anomed_site import markdown
from challenges.models import Challenge, Phase
from submissions.models import Duel, Membership, Submission, Team

DOCS = settings.BASE_DIR / "docs"


def site_context(request: HttpRequest) -> dict[str, Any]:
    """What every page needs. Asks the database nothing."""
    return {"SITE_NAME": settings.SITE_NAME}


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    challenges = _with_figures(Challenge.objects.open())
    return render(request, "site/home.html", {"challenges": _with_teams(request, challenges)})


@require_safe
def challenge_list(request: HttpRequest) -> HttpResponse:
    challenges = _with_figures(Challenge.objects.visible_to(request.user))
    return render(request, "site/challenge_list.html", {"challenges": _with_teams(request, challenges)})


@require_safe
def docs(request: HttpRequest) -> HttpResponse:
    """The table of contents: every document by its first heading."""
    documents = [
        {"name": name, "title": markdown.title(path.read_text(encoding="utf-8")) or name}
        for name, path in _documents().items()
    ]
    return render(request, "docs/index.html", {"documents": documents})


@require_safe
def docs_page(request: HttpRequest, name: str) -> HttpResponse:
    path = _documents().get(name)
    if path is None:
        raise Http404
    text = path.read_text(encoding="utf-8")
    return render(request, "docs/page.html", {"title": markdown.title(text) or name, "text": text})


@csp_update({"style-src": UNSAFE_INLINE})  # type: ignore[arg-type]  # a picture has no style sheet
@require_safe
def docs_picture(request: HttpRequest, name: str, picture: str) -> HttpResponse:
    """A picture of a document, from the folder beside it that is called like it."""
    path = DOCS / name / f"{picture}.svg"
    if not path.is_file():
        raise Http404
    return HttpResponse(path.read_bytes(), content_type="image/svg+xml")


@login_required
@require_safe
def profile(request: HttpRequest) -> HttpResponse:
    """A person's own teams and tokens."""
    memberships = Membership.objects.filter(user=request.user.pk).select_related("challenge", "team")
    tokens = AuthToken.objects.filter(user=request.user).order_by("-created")
    return render(request, "site/profile.html", {"memberships": memberships, "tokens": tokens})


@require_safe
def robots(request: HttpRequest) -> HttpResponse:
    """Search engines may read what everybody may read, and need not follow live events."""
    lines = ["User-agent: *", "Disallow: /admin/", "Disallow: /accounts/", "Disallow: /api/", "Disallow: /live/"]
    return HttpResponse("\n".join(lines) + "\n", content_type="text/plain; charset=utf-8")


def _documents() -> dict[str, Path]:
    """Documents in the reader's language, by name; `name.de.md` is the German version of `name.md`.

    First the guides, then a page for each scenario.
    """
    language = (get_language() or "en").split("-")[0]
    found = [path for folder in (DOCS, DOCS / "scenarios") for path in sorted(folder.glob("*.md"))]
    originals = {path.stem: path for path in found if "." not in path.stem}
    translated = {name: path.with_name(f"{name}.{language}.md") for name, path in originals.items()}
    return {name: path if path.is_file() else originals[name] for name, path in translated.items()}


def _with_figures(challenges: QuerySet[Challenge]) -> QuerySet[Challenge]:
    """Challenges with their phases and how many teams, entries and duels they have seen, as far as all may know."""
    return challenges.prefetch_related(Prefetch("phases", Phase.objects.order_by("opens_at"))).annotate(
        team_count=_count(Team.objects.filter(challenge=OuterRef("pk")), "challenge"),
        entry_count=_count(Submission.objects.active().filter(challenge=OuterRef("pk")), "challenge"),
        duel_count=_count(Duel.objects.known().done().filter(attack__challenge=OuterRef("pk")), "attack__challenge"),
    )


def _count(rows: QuerySet[Any], group: str) -> Coalesce:
    # One subquery each: joins would multiply teams by entries by duels.
    return Coalesce(Subquery(rows.order_by().values(group).annotate(n=Count("pk")).values("n")), 0)


def _with_teams(request: HttpRequest, challenges: QuerySet[Challenge]) -> list[dict[str, Any]]:
    """Each challenge with the reader's own team in it, if there is one."""
    teams = {}
    if request.user.is_authenticated:
        mine = Membership.objects.filter(user=request.user.pk).select_related("team")
        teams = {membership.challenge_id: membership.team for membership in mine}
    return [{"challenge": challenge, "team": teams.get(challenge.pk)} for challenge in challenges]
