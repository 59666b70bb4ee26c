"""A team's entries: the list, the way of one of them, its log, withdrawing and choosing."""

from typing import Any

import structlog
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from challenges.models import Phase
from sandbox.models import Run
from submissions import actions, blindness, boards, exchanges, finals, logs, quotas, timeline
from submissions.models import Step, Submission
from submissions.states import READY, UNDER_WAY
from submissions.views.common import (
    SiteRequest,
    Visit,
    etag,
    fragment_etag,
    live_view,
    page_or_fragment,
    visit,
    visit_of,
)

ENTRIES_PER_PAGE = 50
TAIL = 4000  # bytes of a failed rehearsal's log that the entry's page shows
MOST_REFUSED = 5  # pushes that became no entry, of which a team is told
MOST_RUNS = 100  # private runs that an organiser sees on an entry's page, the newest
slog = structlog.get_logger(__name__)


@live_view(fragment_etag)
def own(request: SiteRequest, slug: str) -> HttpResponse:
    """The team's entries with their states; for an organiser everybody's."""
    here = visit(request, slug)
    entries = Submission.objects.filter(challenge=here.challenge).with_context()
    if not here.is_organiser:
        entries = entries.of_user(request.user)
    context = here.context(
        tab="submissions",
        page=Paginator(entries, ENTRIES_PER_PAGE).get_page(request.GET.get("page")),
        quota=quotas.left(here.team) if here.team else None,
        picks=finals.picks_of(here.team) if here.team and here.challenge.final else (),
        may_run_late=_takes_late(here),
        refused=here.team.pushes.refused_lately()[:MOST_REFUSED] if here.team else (),
        ready=READY,
    )
    return page_or_fragment(request, "submissions/own.html", "submissions/_own.html", context)


def _detail_etag(request: SiteRequest, pk: Any) -> str | None:
    """Also changes when a run of the entry starts, of which the challenge's version knows nothing.

    Runs of a final that is not revealed change nothing that a team could notice.
    """
    if not request.htmx:
        return None
    fields = ("challenge__version", "state", "active", "upload__offset")
    state = Submission.objects.readable_by(request.user).filter(pk=pk).values_list(*fields).first()
    if state is None:
        return None
    runs = Step.objects.known().filter(submission=pk, duel=None).values_list("run__state", flat=True)
    return etag(request, *state, *runs)


@login_required
@live_view(_detail_etag)
def detail(request: SiteRequest, pk: Any) -> HttpResponse:
    """The live timeline of an entry, for its team and the organisers; to everybody else it does not exist."""
    submission, here = _entry(request, pk)
    way = timeline.of(submission, exact=here.is_organiser)
    context = here.context(
        tab="submissions",
        submission=submission,
        way=way,
        row=_row(submission, here, submission.first_phase or here.challenge.development),
        control=None if submission.is_defense else blindness.public(submission),
        exchanges=exchanges.of_rehearsal(way.rehearsal),
        questions=exchanges.questions(submission, exact=here.is_organiser),
        shown_row=_row(submission, here, here.challenge.shown_phase),
        tail=_tail(way),
        private_runs=_private_runs(submission) if here.is_organiser else (),
        may_change=request.user.has_perm("submissions.change_submission", submission),
        is_ready=submission.state in READY,
        is_under_way=submission.state in UNDER_WAY,
        may_withdraw=not actions.withdrawal_obstacle(submission),
    )
    return page_or_fragment(request, "submissions/detail.html", "submissions/_detail.html", context)


@login_required
@require_safe
@never_cache
def log(request: HttpRequest, pk: Any) -> HttpResponse:
    """The logs of the rehearsal; with `?run=` that of one run on private data, which organisers alone may read."""
    submission, here = _entry(request, pk)
    wanted = request.GET.get("run", "")
    chosen = list(logs.rehearsal_steps(submission))
    if wanted:
        if not here.is_organiser:
            raise Http404
        chosen = [step for step in submission.steps.select_related("run") if str(step.run_id) == wanted]
        if not chosen:
            raise Http404
        slog.info("private_log_read", submission=str(submission.pk), run=wanted, by=request.user.pk)
    texts = [
        {"step": step.name, "state": step.run.get_state_display(), "text": logs.of_run(step.run)} for step in chosen
    ]
    context = here.context(tab="submissions", submission=submission, logs=texts, is_private=bool(wanted))
    return render(request, "submissions/log.html", context)


@require_POST
@login_required
def withdraw(request: HttpRequest, pk: Any) -> HttpResponse:
    submission = _own_entry(request, pk)
    try:
        actions.withdraw(submission=submission, by=request.user)
    except actions.Refused as refusal:
        messages.error(request, str(refusal))
    else:
        messages.success(request, _("“%(name)s” is withdrawn. It meets nobody any more.") % {"name": submission.name})
    return redirect(submission)


@require_POST
@login_required
def choose(request: HttpRequest, pk: Any) -> HttpResponse:
    submission = _own_entry(request, pk)
    active = request.POST.get("active") == "1"
    try:
        actions.choose(submission=submission, active=active, by=request.user)
    except actions.Refused as refusal:
        messages.error(request, str(refusal))
    else:
        said = _("“%(name)s” takes part in duels now.") if active else _("“%(name)s” takes part in no more duels.")
        messages.success(request, said % {"name": submission.name})
    return redirect("challenge_submissions", slug=submission.challenge.slug)


@require_POST
@login_required
def pick(request: HttpRequest, pk: Any) -> HttpResponse:
    """Picks the entry for the final, takes that back, or (`late`) runs it there without a rank."""
    submission = _own_entry(request, pk)
    late, picked = request.POST.get("late") == "1", request.POST.get("picked") == "1"
    try:
        if late:
            actions.run_late(submission=submission, by=request.user)
            said = _("“%(name)s” runs in the final, without a rank. Its result comes with the others.")
        else:
            actions.pick(submission=submission, picked=picked, by=request.user)
            said = _("“%(name)s” is picked for the final.") if picked else _("“%(name)s” is not picked any more.")
    except actions.Refused as refusal:
        messages.error(request, str(refusal))
    else:
        messages.success(request, said % {"name": submission.name})
    return redirect("challenge_submissions", slug=submission.challenge.slug)


def _entry(request: HttpRequest, pk: Any) -> tuple[Submission, Visit]:
    readable = Submission.objects.readable_by(request.user).with_context()
    submission = get_object_or_404(readable.prefetch_related("challenge__phases"), pk=pk)
    return submission, visit_of(request, submission.challenge)


def _own_entry(request: HttpRequest, pk: Any) -> Submission:
    submission = get_object_or_404(Submission.objects.readable_by(request.user).with_context(), pk=pk)
    if not request.user.has_perm("submissions.change_submission", submission):
        raise PermissionDenied
    return submission


def _row(submission: Submission, here: Visit, phase: Phase | None) -> boards.Row | None:
    """The entry's line on the board of a phase, if it has come that far there."""
    if submission.state not in READY or phase is None or phase.is_sealed:
        return None
    rows = boards.board(challenge=here.challenge, kind=submission.kind, organiser=here.is_organiser, phase=phase)
    return next((row for row in rows if row.submission.pk == submission.pk), None)


def _takes_late(here: Visit) -> bool:
    """Whether an older entry may be run in the final now."""
    phase = here.challenge.current_phase
    return phase is not None and phase.is_final and phase.is_frozen


def _tail(way: timeline.Timeline) -> str:
    """The end of the log of the rehearsal step that failed."""
    failed = [step.run for step in way.rehearsal if step.run.state == Run.State.FAILED and not step.run.private]
    return logs.of_run(failed[-1], most=TAIL) if failed else ""


def _private_runs(submission: Submission) -> list[Step]:
    private = submission.steps.exclude(phase=None, duel=None).select_related("run", "duel__release__submission")
    return list(private.order_by("-pk")[:MOST_RUNS])
