"""From a push to an entry. What is special about a push ends where its bytes lie where those of an upload would."""

import random
import time
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice

import structlog
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone, translation
from django.utils.translation import gettext as _
from django_q.tasks import async_task

from sandbox import actions as sandbox
from sandbox.conf import conf as sandbox_conf
from sandbox.reasons import Reason, Rejected
from submissions import actions, flow, uploads
from submissions.models import Membership, Push, Submission, Team, Upload
from submissions.registry import layouts, names, store
from submissions.registry.conf import conf, enabled
from submissions.registry.layouts import Layout
from submissions.states import State

log = structlog.get_logger("registry")

_TOGETHER = 64  # pieces between two looks at the database: the entry's page shows how far it is
_OPENED = timedelta(seconds=20)  # by then a worker has opened the entry, or the registry did not answer
_LOST = timedelta(minutes=2)  # a fetch that did not move for so long has lost its worker
_PATIENCE = timedelta(hours=1)  # with a registry that does not answer
_MOST_OPEN = 20  # pushes of a team that wait for their fetch: a token allows any number, and each costs a job
_MOST_AGAIN = 100  # jobs of one sweep
_MOST_CLEARED = 500  # images that one sweep takes from the registry
_SWEEP_SECONDS = 20.0  # for asking the registry: its clients choose how many names and tags it has
_OPEN = Q(entered=False, refusal="") | Q(submission__state=State.UPLOADING)  # the registry's copy is needed


def note(*, repository: str, tag: str, digest: str, by: str = "") -> None:
    """Writes down that an image was pushed, and has it fetched. Told twice of one push, it does so once.

    A push that was refused, or that the platform's fault ended, may be tried again by pushing it again.
    """
    team = names.team_of(repository)
    if team is None or not names.DIGEST.fullmatch(digest) or len(tag) > 128:
        log.warning("push_of_nobody", repository=repository[:300])
        return
    with transaction.atomic():
        push, is_new = Push.objects.select_for_update().get_or_create(
            repository=repository, tag=tag, digest=digest, defaults={"team": team, "by_id": _member(team, by)}
        )
        push.pushed_at, push.removed = timezone.now(), False
        if is_new or _may_again(push):
            push.submission, push.entered, push.refusal = None, False, ""
            push.by_id = _member(team, by)
            if Push.objects.filter(_OPEN, team=team).exclude(pk=push.pk).count() < _MOST_OPEN:
                _fetch_later(push)
            else:
                with translation.override("en"):
                    push.refusal = _("Too many of your images wait to be fetched. Push it again later.")
        push.save()


def receive(push_id: int) -> None:
    """Opens the entry of a push and brings its image to where uploads are; the last byte sends it on to the check."""
    push = Push.objects.select_related("team__challenge", "by", "submission").filter(pk=push_id).first()
    if push is None or push.refusal or (push.entered and not _is_uploading(push)):
        return
    with translation.override("en"):  # sentences are kept in English, and shown in the reader's language
        try:
            layout = _layout(push)
            _copy(push.submission or _enter(push, layout), layout)
        except (Rejected, actions.Refused) as refusal:
            _refuse(push, str(refusal))
        except store.Missing:
            _refuse(push, _("The image in the registry is incomplete. Push it again."))
        except _Changed:
            _refuse(push, _("The server's base images changed while your image was fetched. Push it again."), ours=True)
        except (_Taken, uploads.UploadBusy, uploads.UploadConflict, Upload.DoesNotExist):
            pass  # another worker is at it, or the entry was withdrawn
        except store.Unreachable as fault:
            log.warning("registry_unreachable", fault=str(fault)[:300])
            if timezone.now() - push.pushed_at > _PATIENCE:
                _refuse(push, _("The server could not read the image from its registry. Push it again."), ours=True)


def sweep() -> None:
    """Finds pushes that nobody told us of, goes on with those that were dropped, and clears up behind old ones."""
    if not enabled():
        return
    try:
        _look_for_new()
        _clear_up()
    except (store.Unreachable, store.Missing) as fault:
        log.warning("registry_unreachable", fault=str(fault)[:300])
    now = timezone.now()
    waiting = Q(entered=False, refusal="", pushed_at__lt=now - _OPENED)
    stuck = Q(submission__state=State.UPLOADING, submission__upload__updated_at__lt=now - _LOST)
    for push in Push.objects.filter(waiting | stuck).order_by("?")[:_MOST_AGAIN]:
        _fetch_later(push)


def let_go() -> list[str]:
    """Repositories whose pushes are all dealt with, and that are to be removed now: the room is needed."""
    repositories = sorted(set(_dealt_with().values_list("repository", flat=True)))
    Push.objects.filter(repository__in=repositories).update(removed=True)
    return repositories


def _look_for_new() -> None:
    """Notes what the registry has and did not tell of: as much as there is time for, another part each time."""
    deadline = time.monotonic() + _SWEEP_SECONDS
    repositories = list(store.repositories())
    random.shuffle(repositories)
    for repository in repositories:
        is_ours = names.team_of(repository) is not None
        known = set(Push.objects.filter(repository=repository).values_list("tag", "digest"))
        for tag, digest in store.tags(repository):
            if time.monotonic() > deadline:
                return
            if (tag, digest) in known:
                continue
            if is_ours:
                note(repository=repository, tag=tag, digest=digest)
            else:
                store.delete(repository, digest)  # of a team that is gone


def _clear_up() -> None:
    """Takes from the registry what was pushed long ago. Until then, the next push sends only what changed."""
    long_ago = timezone.now() - timedelta(days=conf().keep_days)
    for push in _dealt_with().filter(pushed_at__lt=long_ago)[:_MOST_CLEARED]:
        store.delete(push.repository, push.digest)  # an index's images have no tag: the next collection takes them
        Push.objects.filter(pk=push.pk).update(removed=True)


def _dealt_with() -> QuerySet[Push]:
    """Pushes whose image is still in the registry, in repositories from which nothing is to be fetched."""
    needed = Push.objects.filter(_OPEN).values("repository")
    return Push.objects.filter(removed=False).exclude(repository__in=needed)


def _fetch_later(push: Push) -> None:
    async_task("submissions.registry.pushes.receive", push.pk, cluster="checks")


def _member(team: Team, who: str) -> int | None:
    """The member who pushed; where the registry's own list told us, any member."""
    members = list(Membership.objects.filter(team=team).order_by("pk").values_list("user", flat=True))
    return next((pk for pk in members if str(pk) == who), members[0] if members else None)


def _may_again(push: Push) -> bool:
    entry = push.submission
    ours = entry is not None and entry.state == State.FAILED and entry.failure_reason == Reason.PLATFORM_FAULT
    return bool(push.refusal) or ours


def _layout(push: Push) -> Layout:
    if push.tag not in Submission.Kind.values:
        raise actions.Refused(
            _("The tag says what an image is: push it again, with “:defense” or “:attack” at the end of its name.")
        )
    image = layouts.find(push.repository, push.digest, max_layers=sandbox_conf().max_layers)
    return Layout(image, layouts.public_layers(image, sandbox.base_layers()))


class _Taken(Exception):
    """Another worker was faster."""


class _Changed(Exception):
    """What a killed worker began to write is not what would be written now."""


@transaction.atomic
def _enter(push: Push, layout: Layout) -> Submission:
    """The entry, opened by the same verb as any other."""
    flow.lock(push.team.challenge)
    push.refresh_from_db()
    if push.entered or push.refusal:
        raise _Taken
    name = names.last(push.repository)
    submission = actions.enter(
        challenge=push.team.challenge, by=push.by, kind=push.tag, file_name=name, size=layout.size, name=name
    )
    push.submission, push.entered = submission, True
    push.save(update_fields=["submission", "entered"])
    return submission


def _copy(submission: Submission, layout: Layout) -> None:
    """Writes the archive into the upload, from where an earlier worker may have left off."""
    upload = submission.upload
    if upload.size != layout.size:
        raise _Changed
    pieces = _from(upload.offset, layout.stream())
    while not upload.is_complete:
        uploads.append(upload=upload, offset=upload.offset, chunks=islice(pieces, _TOGETHER))


def _from(offset: int, pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        if offset < len(piece):
            yield piece[offset:]
        offset = max(0, offset - len(piece))


def _is_uploading(push: Push) -> bool:
    return push.submission is not None and push.submission.state == State.UPLOADING


@transaction.atomic
def _refuse(push: Push, sentence: str, *, ours: bool = False) -> None:
    """Tells the team why: on the entry, if there is one already, else in a notice."""
    challenge = flow.lock(push.team.challenge)
    push.refresh_from_db()
    if not push.entered:
        Push.objects.filter(pk=push.pk).update(refusal=sentence)
        challenge.mark_changed()
    elif push.submission is not None and _is_uploading(push):
        flow.fail(push.submission, Reason.PLATFORM_FAULT if ours else Reason.IMAGE_INVALID, detail=sentence)
        uploads.discard(push.submission.upload)
