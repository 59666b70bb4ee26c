"""The risk card of a defense: what it keeps useful and what attacks learn from it, for readers without statistics."""

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_safe

from submissions import evidence
from submissions.views.common import visit


@require_safe
@cache_control(private=True, no_cache=True)
def card(request: HttpRequest, slug: str, pk: Any) -> HttpResponse:
    """A page of its own, made to be printed. It exists once the defense has a first result."""
    here = visit(request, slug)
    submission = get_object_or_404(evidence.readable(challenge=here.challenge, user=request.user), pk=pk)
    found = evidence.card(submission, exact=here.is_organiser)
    if found is None:
        raise Http404
    context = here.context(tab="boards", card=found, address=request.build_absolute_uri(request.path))
    return render(request, "cards/card.html", context)
