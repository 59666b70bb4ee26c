"""Receiving an image in pieces (the server side of tus 1.0): append at an offset, one writer at a time."""

from collections.abc import Iterable
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet
from django.http import UnreadablePostError
from django.utils import timezone
from django.utils.translation import gettext as _

from sandbox.retention import before
from submissions import flow
from submissions.models import Submission, Upload
from submissions.states import State

# The request body is on the disk before we see it: a writer that takes longer than this is dead, another may go on.
_BUSY = timedelta(seconds=60)


class UploadConflict(Exception):
    """The client and the server disagree about the offset; the client asks for it and goes on from there."""


class UploadBusy(Exception):
    """Another request is writing this upload now."""


class UploadTooLong(Exception):
    """More bytes came than were announced. None of them is kept."""


def append(*, upload: Upload, offset: int, chunks: Iterable[bytes]) -> Upload:
    """Writes `chunks` at `offset` and returns the upload as it then stands.

    What arrived before a connection broke is kept. The last byte sends the entry on to the check of its image.
    """
    _claim(upload, offset)
    arrived = offset
    try:
        arrived = _write(upload, offset, chunks)
    finally:
        _let_go(upload, offset, arrived)
    return upload


def give_up(*, upload: Upload) -> None:
    """Deletes the bytes and withdraws the entry, at the client's wish (tus: termination)."""
    with transaction.atomic():
        flow.lock(upload.submission.challenge)
        submission = Submission.objects.get(pk=upload.submission_id)
        if submission.state != State.UPLOADING:
            raise UploadConflict(_("The upload is complete; the entry can still be withdrawn."))
        submission.move_to(State.WITHDRAWN)
        discard(upload)


def discard(upload: Upload) -> None:
    """Removes the bytes once they are not needed: checked, given up or forgotten."""
    path = upload.path
    upload.delete()
    transaction.on_commit(lambda: path.unlink(missing_ok=True))


def discard_forgotten() -> int:
    """Ends uploads that nobody has continued for as many days as the settings say; returns how many."""
    stale = list(forgotten().select_related("submission"))
    for upload in stale:
        give_up(upload=upload)
    return len(stale)


def forgotten() -> QuerySet[Upload]:
    """Uploads that nobody continues any more."""
    waiting = Upload.objects.filter(submission__state=State.UPLOADING)
    since = before(settings.KEEP_UPLOADS_DAYS)
    return waiting.filter(updated_at__lt=since) if since else waiting.none()


def _claim(upload: Upload, offset: int) -> None:
    now = timezone.now()
    free = Q(busy_until=None) | Q(busy_until__lt=now)
    mine = Upload.objects.filter(free, pk=upload.pk, offset=offset, submission__state=State.UPLOADING)
    if mine.update(busy_until=now + _BUSY):
        return
    upload.refresh_from_db()
    if upload.offset != offset:
        raise UploadConflict(
            _("The upload stands at byte %(have)s, not %(got)s.") % {"have": upload.offset, "got": offset}
        )
    raise UploadBusy(_("Another request is writing this upload. Try again in a moment."))


def _write(upload: Upload, offset: int, chunks: Iterable[bytes]) -> int:
    path = upload.path
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    arrived = offset
    with path.open("r+b") as file:
        file.truncate(offset)  # what a killed process left beyond the recorded offset
        file.seek(offset)
        try:
            for chunk in chunks:
                if arrived + len(chunk) > upload.size:
                    file.truncate(offset)
                    arrived = offset
                    raise UploadTooLong(_("More bytes came than the upload's announced size."))
                file.write(chunk)
                arrived += len(chunk)
        except (ConnectionError, UnreadablePostError):
            pass  # the connection broke: what came until now is kept, and the client resumes from there
    return arrived


@transaction.atomic
def _let_go(upload: Upload, before: int, offset: int) -> None:
    flow.lock(upload.submission.challenge)
    mine = Upload.objects.filter(pk=upload.pk, offset=before, submission__state=State.UPLOADING)
    if not mine.update(offset=offset, busy_until=None, updated_at=timezone.now()):
        return  # the entry was withdrawn meanwhile, and its bytes with it
    upload.refresh_from_db()
    if upload.is_complete:
        flow.uploaded(Submission.objects.get(pk=upload.submission_id))
