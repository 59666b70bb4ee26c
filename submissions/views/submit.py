"""Entering an image: the form, which JavaScript turns into a resumable upload and which also works alone."""

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_http_methods

from submissions import actions, quotas, uploads
from submissions.forms import SubmitForm
from submissions.models import Submission
from submissions.views.common import Visit, visit

# Fields and boundaries of a multipart form beside the file itself.
_FORM_BYTES = 1_000_000


@csrf_exempt  # only until the two questions below are answered: the token is inside a body of many GB
@require_http_methods(["GET", "HEAD", "POST"])
def submit(request: HttpRequest, slug: str) -> HttpResponse:
    """Turns strangers and giants away before anything of the body is read, then checks the form's token as always."""
    if not request.user.is_authenticated:
        return redirect_to_login(request.get_full_path())
    if int(request.META.get("CONTENT_LENGTH") or 0) > settings.SANDBOX["max_archive_bytes"] + _FORM_BYTES:
        messages.error(request, _("The file is larger than this server takes."))
        return redirect("submit", slug=slug)
    response: HttpResponse = _submit(request, slug)
    return response


@csrf_protect
def _submit(request: HttpRequest, slug: str) -> HttpResponse:
    here = visit(request, slug)
    if here.team is None and not here.is_organiser:
        return redirect("challenge_join", slug=slug)
    who: dict[str, Any] = {"can_enter": here.team is not None, "is_organiser": here.is_organiser}
    if request.method != "POST":
        wanted = request.GET.get("kind")
        form = SubmitForm(initial={"kind": wanted} if wanted in Submission.Kind.values else None, **who)
        return _page(request, here, form)
    form = SubmitForm(request.POST, request.FILES, **who)
    if form.is_valid():
        try:
            return redirect(_enter(request, here, form.cleaned_data))
        except (actions.Refused, uploads.UploadTooLong) as refusal:
            form.add_error(None, str(refusal))
    return _page(request, here, form)


def _enter(request: HttpRequest, here: Visit, entry: dict[str, Any]) -> Submission:
    file = entry["file"]
    submission = actions.enter(
        challenge=here.challenge,
        by=request.user,
        kind=entry["kind"],
        name=entry["name"],
        note=entry["note"],
        file_name=file.name,
        size=file.size,
        role=entry["role"],
    )
    uploads.append(upload=submission.upload, offset=0, chunks=file.chunks())
    return submission


def _page(request: HttpRequest, here: Visit, form: SubmitForm) -> HttpResponse:
    quota = quotas.left(here.team) if here.team else None
    status = 422 if form.errors else 200
    return render(
        request, "submissions/submit.html", here.context(tab="submissions", form=form, quota=quota), status=status
    )
