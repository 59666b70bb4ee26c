"""Who looks at what: shared by all pages of a challenge."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.translation import get_language
from django.views.decorators.cache import cache_control
from django.views.decorators.http import condition, require_safe
from django.views.decorators.vary import vary_on_headers
from django_htmx.middleware import HtmxDetails

from challenges.models import Challenge
from submissions.models import Team

View = Callable[..., HttpResponse]


class SiteRequest(HttpRequest):
    """A request as the middleware leaves it."""

    htmx: HtmxDetails


@dataclass(frozen=True)
class Visit:
    """A person at a challenge that they may see: with their team, if they have joined, and whether they organise it."""

    challenge: Challenge
    team: Team | None
    is_organiser: bool

    def context(self, **more: Any) -> dict[str, Any]:
        """What every template of a challenge's pages needs, and `more`."""
        return {
            "challenge": self.challenge,
            "phase": self.challenge.current_phase,
            "team": self.team,
            "is_organiser": self.is_organiser,
            **more,
        }


def visible_challenges(user: Any) -> QuerySet[Challenge]:
    """Challenges that a person may see; drafts are for their organisers."""
    return Challenge.objects.visible_to(user).select_related("dataset").prefetch_related("phases")


def visit(request: HttpRequest, slug: str) -> Visit:
    """The visit of this request. Raises Http404 for challenges that are not there for this person."""
    return visit_of(request, get_object_or_404(visible_challenges(request.user), slug=slug))


def visit_of(request: HttpRequest, challenge: Challenge) -> Visit:
    """The visit of a challenge that has been looked up already."""
    team = None
    if request.user.is_authenticated:
        team = Team.objects.filter(challenge=challenge, memberships__user=request.user.pk).first()
    return Visit(challenge, team, challenge.is_organiser(request.user))


def page_or_fragment(request: SiteRequest, page: str, fragment: str, context: dict[str, Any]) -> HttpResponse:
    """The whole page, or for htmx only its live part."""
    return render(request, fragment if request.htmx else page, context)


def live_view(etag_func: Callable[..., str | None]) -> Callable[[View], View]:
    """For views that answer with `page_or_fragment`: a browser keeps the part, and asks each time if it still holds."""

    def decorate(view: View) -> View:
        checked: View = condition(etag_func=etag_func)(view)
        varied: View = vary_on_headers("HX-Request")(checked)
        private: View = cache_control(private=True, no_cache=True)(varied)
        return require_safe(private)

    return decorate


def fragment_etag(request: SiteRequest, slug: str) -> str | None:
    """Names the state of a challenge as this person sees it. Whole pages have none: their forms carry tokens."""
    if not request.htmx:
        return None
    version = Challenge.objects.visible_to(request.user).filter(slug=slug).values_list("version", flat=True).first()
    return None if version is None else etag(request, version)


def etag(request: HttpRequest, *state: object) -> str:
    """A strong validator of `state` in the reader's language, for this reader alone."""
    parts = [get_language(), request.user.pk or 0, *state]
    return '"' + "-".join(str(part) for part in parts) + '"'
