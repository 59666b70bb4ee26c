"""What the `web` cluster does for submissions."""

from datetime import timedelta

from django.db import transaction
from django.utils import timezone
from django_q.tasks import async_task

from sandbox import actions as sandbox
from sandbox.reasons import Reason, Rejected
from submissions import flow, uploads
from submissions.models import Submission
from submissions.states import State

# A check takes seconds; after this its worker must have died.
_CHECK_LOST = timedelta(minutes=15)


def check_image(submission_id: str) -> None:
    """Checks the uploaded archive in an isolated child and sends the entry on, to its rehearsal or to its failure."""
    submission = Submission.objects.select_related("upload", "challenge").filter(pk=submission_id).first()
    if submission is None or submission.state != State.CHECKING:
        return  # withdrawn, or checked by another worker
    refusal: Rejected | None = None
    try:
        checked = sandbox.check_archive(archive=submission.upload.path)
    except Rejected as rejected:
        refusal = rejected
    except Exception:
        flow.log(submission).exception("image_check_broke")
        refusal = Rejected(Reason.PLATFORM_FAULT, "")
    with transaction.atomic():
        submission = Submission.objects.select_for_update().select_related("upload", "challenge").get(pk=submission_id)
        if submission.state != State.CHECKING:
            return
        if refusal is not None:
            flow.fail(submission, refusal.reason, detail=refusal.detail)
        else:
            flow.image_accepted(submission, sandbox.store_image(checked=checked, name=submission.name))
        uploads.discard(submission.upload)


def sweep() -> None:
    """Every minute: sends lost checks again, forgets abandoned uploads."""
    lost = Submission.objects.filter(state=State.CHECKING, upload__updated_at__lt=timezone.now() - _CHECK_LOST)
    for submission_id in lost.values_list("pk", flat=True):
        async_task("submissions.tasks.check_image", str(submission_id), cluster="web")
    uploads.discard_forgotten()
