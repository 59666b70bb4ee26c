"""Tokens for the API and the command line: made and revoked on the profile page, shown once."""

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST
from knox.models import AuthToken
from knox.settings import knox_settings


@require_POST
@login_required
@never_cache
def create(request: HttpRequest) -> HttpResponse:
    """Makes a token and shows it, this one time: the server keeps only a digest."""
    limit = knox_settings.TOKEN_LIMIT_PER_USER
    if limit is not None and AuthToken.objects.filter(user=request.user).count() >= limit:
        messages.error(
            request, _("You have %(limit)s tokens already. Revoke one that you no longer use.") % {"limit": limit}
        )
        return redirect("profile")
    _row, token = AuthToken.objects.create(user=request.user)
    return render(request, "site/token.html", {"token": token})


@require_POST
@login_required
def revoke(request: HttpRequest, key: str) -> HttpResponse:
    """Ends a token of the person's own, known by its first characters."""
    get_object_or_404(AuthToken, user=request.user, token_key=key).delete()
    messages.success(request, _("The token is revoked. Programs that used it can no longer sign in."))
    return redirect("profile")
