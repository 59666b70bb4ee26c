"""Entering an image: the form, which JavaScript turns into a resumable upload and which also works alone."""

from typing import Any

from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_http_methods

from sandbox.contracts import Contract
from submissions import actions, contracts, quotas, uploads
from submissions.forms import SubmitForm
from submissions.models import Submission
from submissions.registry import conf as registry
from submissions.registry import names
from submissions.views.common import Visit, visit


@csrf_exempt  # only until these questions are answered: the form's token is inside a body of many GB
@require_http_methods(["GET", "HEAD", "POST"])
def submit(request: HttpRequest, slug: str) -> HttpResponse:
    """Asks who may enter something now, before a body is taken apart and copied; then checks its token as always.

    How much a body may be, and from whom, has been asked before Django saw it (anomed_site/bodies.py).
    """
    if not request.user.is_authenticated:
        return redirect_to_login(request.get_full_path())
    here = visit(request, slug)
    if here.team is None and not here.is_organiser:
        return redirect("challenge_join", slug=slug)
    if request.method == "POST" and not _may_enter(here):
        return _page(request, here, _form(here), status=422)
    response: HttpResponse = _submit(request, here)
    return response


@csrf_protect
def _submit(request: HttpRequest, here: Visit) -> HttpResponse:
    if request.method != "POST":
        wanted = request.GET.get("kind")
        return _page(request, here, _form(here, initial={"kind": wanted} if wanted in Submission.Kind.values else None))
    form = _form(here, request.POST, request.FILES)
    if form.is_valid():
        try:
            return redirect(_enter(request, here, form.cleaned_data))
        except (actions.Refused, uploads.UploadTooLong) as refusal:
            form.add_error(None, str(refusal))
    return _page(request, here, form, status=422)


def _may_enter(here: Visit) -> bool:
    """Whether an entry could be taken now; the page says why not. Organisers' anchors count on no quota."""
    if here.challenge.current_phase is None:
        return False
    return here.is_organiser or (here.team is not None and not quotas.left(here.team).refusal)


def _form(here: Visit, *posted: Any, **more: Any) -> SubmitForm:
    return SubmitForm(
        *posted,
        can_enter=here.team is not None,
        is_organiser=here.is_organiser,
        contracts=contracts.playable(here.challenge),
        **more,
    )


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
        declared_epsilon=entry["declared_epsilon"],
        declared_delta=entry["declared_delta"],
        contract=entry["contract"],
    )
    uploads.append(upload=submission.upload, offset=0, chunks=file.chunks())
    return submission


def _page(request: HttpRequest, here: Visit, form: SubmitForm, *, status: int = 200) -> HttpResponse:
    context = here.context(
        tab="submissions",
        form=form,
        takes_servers=Contract.WEB in contracts.playable(here.challenge),
        quota=quotas.left(here.team) if here.team else None,
        registry=registry.conf().address,
        push_to=names.address(here.team) if here.team and registry.enabled() else "",
    )
    return render(request, "submissions/submit.html", context, status=status)
