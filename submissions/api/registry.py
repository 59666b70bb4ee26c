"""What the registry and its clients ask the site: who may push (Docker's token protocol), and what was pushed.

https://distribution.github.io/distribution/spec/auth/token/ and .../about/notifications/. Not part of the API that
the schema describes: the protocols are Docker's, and so is the form of refusals.
"""

import json
from typing import Any

import structlog
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST, require_safe
from knox.auth import TokenAuthentication
from rest_framework.authentication import BasicAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request
from rest_framework.throttling import AnonRateThrottle
from rest_framework.views import APIView

from submissions.registry import access, conf, pushes

log = structlog.get_logger("registry")


class FailedSignIns(AnonRateThrottle):
    """Counts together with the API's other door, by the sender's address."""

    scope = "token"


@require_safe
@never_cache
def token(request: HttpRequest) -> HttpResponse:
    """A token for what a client asks, to people who sign in with their email address and a token of their profile.

    A password is not taken: Docker keeps in a file, readable for all programs of a person, what is typed there.
    """
    if not conf.enabled():
        return _problem(404, "UNSUPPORTED", _("This server has no registry."))
    user = _who(*_basic(request))
    if user is None:
        # Only failures count: a long push asks again and again, and others' guesses must not stop it.
        if not FailedSignIns().allow_request(Request(request), APIView()):
            return _problem(429, "TOOMANYREQUESTS", _("Too many attempts to sign in failed. Try again later."))
        return _problem(
            401,
            "UNAUTHORIZED",
            _("Sign in with `docker login`: your email address, and a token from your profile page as the password."),
        )
    try:
        grants = access.granted(user=user, scopes=_scopes(request))
    except access.Denied as denied:
        return _problem(403, "DENIED", str(denied))
    signed = access.token(subject=str(user.pk), access=grants)
    return JsonResponse(
        {
            "token": signed,
            "access_token": signed,
            "expires_in": conf.conf().token_seconds,
            "issued_at": timezone.now().isoformat(),
        }
    )


@csrf_exempt  # the registry brings a secret, and no cookie
@require_POST
def events(request: HttpRequest) -> HttpResponse:
    """The registry tells what was pushed. What it leaves out, the sweep finds."""
    if not constant_time_compare(request.headers.get("Authorization", ""), f"Bearer {conf.secret('events')}"):
        return _problem(401, "UNAUTHORIZED", _("Only the registry tells of pushes."))
    for event in json.loads(request.body).get("events") or []:
        target = event.get("target") or {}
        if event.get("action") == "push" and target.get("tag"):
            pushes.note(
                repository=target["repository"],
                tag=target["tag"],
                digest=target["digest"],
                by=(event.get("actor") or {}).get("name", ""),
            )
    return HttpResponse(status=204)


def _basic(request: HttpRequest) -> tuple[str, str]:
    """Email address and token of the request; empty where it brings none."""
    try:
        found = _Basic().authenticate(Request(request))
    except AuthenticationFailed:
        return "", ""
    return found or ("", "")


class _Basic(BasicAuthentication):
    """Reads the header alone."""

    def authenticate_credentials(self, userid: str, password: str, request: Any = None) -> Any:
        return userid[:254].casefold(), password[:200]


def _who(email: str, secret: str) -> Any:
    """The active account of this address whose token this is; None for anything else."""
    if not (secret.isascii() and secret.isalnum()):
        return None
    try:
        user, _token = TokenAuthentication().authenticate_credentials(secret.encode())
    except AuthenticationFailed:
        return None
    return user if user.email.casefold() == email else None


def _scopes(request: HttpRequest) -> list[str]:
    return [scope for text in request.GET.getlist("scope") for scope in text.split(" ")]


def _problem(status: int, code: str, sentence: str) -> JsonResponse:
    """A refusal as registries form it: the client shows the sentence."""
    answer = JsonResponse({"errors": [{"code": code, "message": sentence, "detail": None}]}, status=status)
    if status == 401:
        answer["WWW-Authenticate"] = 'Basic realm="AnoMed Arena"'
    return answer
