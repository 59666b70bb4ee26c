"""What the clusters `web` and `checks` do for submissions."""

import contextlib
from datetime import timedelta

from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from django_q.tasks import async_task

from challenges import actions as challenges
from challenges.models import Challenge, Phase
from sandbox import actions as sandbox
from sandbox.models import Run
from sandbox.reasons import Reason, Rejected
from submissions import controls, exposure, finals, flow, reckoning, retention, uploads
from submissions.models import Duel, Step, Submission, Upload
from submissions.states import State

# A check takes seconds; after this its worker must have died.
_CHECK_LOST = timedelta(minutes=15)
# A run ends and is settled in one transaction; what is unsettled after this was given up.
_SETTLED_BY_THEN = timedelta(minutes=1)
# Whatever ailed the platform should be over by then.
_FAULT_PAUSE = timedelta(minutes=10)


def check_image(submission_id: str) -> None:
    """Checks the uploaded archive in an isolated child and sends the entry on, to its rehearsal or to its failure."""
    submission = Submission.objects.select_related("upload", "challenge").filter(pk=submission_id).first()
    if submission is None or submission.state != State.CHECKING:
        return  # withdrawn, or checked by another worker; the sweep sees to what is left
    refusal: Rejected | None = None
    try:
        checked = sandbox.check_archive(archive=submission.upload.path)
    except Rejected as rejected:
        refusal = rejected
    except Exception:
        flow.log(submission).exception("image_check_broke")
        refusal = Rejected(Reason.PLATFORM_FAULT, "")
    with transaction.atomic():
        flow.lock(submission.challenge)
        submission = Submission.objects.select_related("upload", "challenge").get(pk=submission_id)
        if submission.state != State.CHECKING:
            return
        if refusal is not None:
            flow.fail(submission, refusal.reason, detail=refusal.detail)
        else:
            flow.image_accepted(submission, sandbox.store_image(checked=checked, name=submission.name))
        uploads.discard(submission.upload)


def sweep() -> None:
    """Every minute: what was lost is done again, what nobody needs goes."""
    now = timezone.now()
    lost = Submission.objects.filter(state=State.CHECKING, upload__updated_at__lt=now - _CHECK_LOST)
    for submission_id in lost.values_list("pk", flat=True):
        Upload.objects.filter(submission=submission_id).update(updated_at=now)  # asks once per stretch of waiting
        async_task("submissions.tasks.check_image", str(submission_id), cluster="checks")
    uploads.discard_forgotten()
    for upload in Upload.objects.exclude(submission__state__in=[State.UPLOADING, State.CHECKING]):
        uploads.discard(upload)
    settle_forgotten()
    fight_again()
    go_on_to_finals()
    controls.arrange()
    exposure.measure_due()
    reckoning.tick()


def clean() -> None:
    """Every day: what is older than the policy says goes."""
    retention.sweep()


def settle_forgotten() -> None:
    """Tells entries of runs that the sandbox gave up without being able to tell them."""
    waiting = Q(duel__state=Duel.State.PENDING) | Q(
        duel=None, submission__state__in=[State.REHEARSING, State.QUEUED, State.RUNNING]
    )
    ended = Step.objects.filter(
        waiting, run__state=Run.State.FAILED, run__finished_at__lt=timezone.now() - _SETTLED_BY_THEN
    )
    for step in ended.select_related("run", "submission__challenge", "duel"):
        with transaction.atomic():
            flow.run_ended(step, step.run, None)


def fight_again() -> None:
    """Duels that a fault of the platform ended are tried again, while both sides still take part."""
    faulted = Duel.objects.valid().filter(
        state=Duel.State.FAILED, reason=Reason.PLATFORM_FAULT, finished_at__lt=timezone.now() - _FAULT_PAUSE
    )
    context = ("attack__challenge", "attack__image", "release__phase", "step")
    for challenge in Challenge.objects.filter(pk__in=faulted.values("attack__challenge")):
        with transaction.atomic():
            flow.lock(challenge)  # read what is faulted only now: an organiser may have voided or repeated it meanwhile
            for duel in faulted.filter(attack__challenge=challenge).select_related(*context):
                if _is_played(duel):
                    flow.fight_again(duel)


def _is_played(duel: Duel) -> bool:
    phase = duel.release.phase
    sides = Submission.objects.playing(phase).filter(pk__in=[duel.attack_id, duel.release.submission_id])
    return sides.count() == 2 and (phase.is_final or duel.attack.challenge.current_phase is not None)


def go_on_to_finals() -> None:
    """The calendar's part: freezes picks when development is over, and begins finals whose day has come."""
    now = timezone.now()
    due = Challenge.objects.filter(
        pk__in=Phase.objects.filter(kind=Phase.Kind.DEVELOPMENT, closes_at__lte=now).values("challenge"),
        phases__in=Phase.objects.filter(kind=Phase.Kind.FINAL, frozen_at=None),
        status=Challenge.Status.PUBLISHED,
    )
    for challenge in due:
        with contextlib.suppress(challenges.Refused):  # an organiser was faster
            challenges.freeze(challenge=challenge, by=None)
    for final in Phase.objects.filter(kind=Phase.Kind.FINAL, frozen_at__lt=now, revealed_at=None, opens_at__lte=now):
        with transaction.atomic():
            flow.lock(final.challenge)
            finals.play(final)
