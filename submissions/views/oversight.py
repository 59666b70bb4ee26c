"""For organisers: is the game sound, which duels look like collusion, and taking a duel out of the scores."""

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from submissions import actions, blindness, oversight
from submissions.models import Duel
from submissions.views.common import Visit, visit


@login_required
@require_safe
@never_cache
def page(request: HttpRequest, slug: str) -> HttpResponse:
    """Anchors' health, blind controls, flagged and voided duels with the reasons in words, the strongest others."""
    here = _organiser(request, slug)
    controls = blindness.overviews(here.challenge)
    context = here.context(
        tab="oversight",
        health=oversight.health(here.challenge),
        controls=controls,
        watched=oversight.watched(here.challenge),
        others=oversight.strongest(
            here.challenge, doubted={attack.pk for one in controls for attack, _outcome in one.flagged}
        ),
    )
    return render(request, "challenges/oversight.html", context)


@require_POST
@login_required
def void(request: HttpRequest, slug: str) -> HttpResponse:
    """Voids the duel that the form names, or takes that back."""
    here = _organiser(request, slug)
    number = request.POST.get("duel", "")
    duels = Duel.objects.filter(attack__challenge=here.challenge)
    duel = get_object_or_404(
        duels.select_related("attack__challenge", "release__submission"), pk=number if number.isdecimal() else 0
    )
    names = {"attack": duel.attack.name, "defense": duel.release.submission.name}
    try:
        if request.POST.get("do") == "unvoid":
            actions.unvoid_duel(duel=duel, by=request.user)
            said = _("“%(attack)s” against “%(defense)s” counts again.")
        else:
            actions.void_duel(duel=duel, reason=request.POST.get("reason", ""), by=request.user)
            said = _("“%(attack)s” against “%(defense)s” is void. The boards have been worked out anew.")
        messages.success(request, said % names)
    except actions.Refused as refusal:
        messages.error(request, str(refusal))
    return redirect("challenge_oversight", slug=slug)


def _organiser(request: HttpRequest, slug: str) -> Visit:
    here = visit(request, slug)
    if not here.is_organiser:
        raise Http404
    return here
