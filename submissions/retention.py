"""What is kept of entries, and for how long. Scores are rows and stay: nothing here changes a board.

A release's files go when its entry was out, or its challenge closed, for `KEEP_RELEASES_DAYS`. What could still be
played stays, however old: an entry of an open challenge may be chosen again and meets whoever enters next.
"""

from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from uuid import UUID

from django.conf import settings
from django.db.models import Q

from challenges.models import Challenge, Phase
from challenges.scenarios import registry
from sandbox.models import Run
from sandbox.retention import Tally, before, folders_by_id, is_stray, remove, report, size_of
from submissions import uploads
from submissions.models import Step, Submission, Twin, Upload
from submissions.states import READY, UNDER_WAY


class StepKeeper:
    """Keeps for the sandbox what entries still need: see `sandbox.retention.Keeper`."""

    def results(self, runs: Collection[UUID]) -> set[UUID]:
        """Results of entries on their way to a release, those that a waiting step reads, those of duels that may
        be measured again with the next attack, and the models of defenses in play where attacks may ask them live.

        An entry in a final is called scored all the while; what its last step spoils may be repeated until the reveal.
        """
        alive = [Run.State.QUEUED, Run.State.RUNNING]
        under_way = Q(submission__state__in=UNDER_WAY) | Q(phase__kind=Phase.Kind.FINAL, phase__revealed_at=None)
        unfinished = Step.objects.filter(under_way, run__in=runs, duel=None)
        read = Step.objects.filter(previous__run__in=runs, run__state__in=alive)
        played = Step.objects.filter(
            run__in=runs,
            duel__release__submission__state__in=READY,
            duel__release__submission__challenge__status=Challenge.Status.PUBLISHED,
        )
        begun = Twin.objects.filter(previous__in=runs, run__state__in=alive)
        return {
            *begun.values_list("previous", flat=True),
            *unfinished.values_list("run", flat=True),
            *read.values_list("previous__run", flat=True),
            *played.values_list("run", flat=True),
            *_asked_live(runs),
        }

    def images(self, images: Collection[int], since: datetime) -> set[int]:
        """Images of entries that may still be played, or were until then."""
        entries = Submission.objects.filter(image__in=images)
        in_play = entries.exclude(pk__in=Submission.objects.long_over(since))
        return {image for image in in_play.values_list("image_id", flat=True) if image is not None}


def _asked_live(runs: Collection[UUID]) -> set[UUID]:
    """What earlier steps left to the last step of a defense that answers live questions, of twins of anchors too.

    Once the defense is taken out, its model goes; if it is put in again, such questions are refused.
    """
    talking = [scenario.slug for scenario in registry.SCENARIOS.values() if len(scenario.contracts) > 1]
    games = {"challenge__status": Challenge.Status.PUBLISHED, "challenge__scenario__in": talking}
    asked = Submission.objects.defenses().filter(state__in=READY, **games)
    playing = Q(submission__active=True) | Q(phase__kind=Phase.Kind.FINAL)
    steps = Step.objects.filter(playing, previous__run__in=runs, phase__isnull=False, submission__in=asked)
    twins = Twin.objects.filter(previous__in=runs, defense__in=asked.filter(active=True))
    return {*steps.values_list("previous__run", flat=True), *twins.values_list("previous", flat=True)}


def sweep(*, dry_run: bool = False) -> list[Tally]:
    """Removes releases, uploads and working files whose time is over; with `dry_run` only counts them."""
    tallies = [_sweep_releases(dry_run=dry_run), _sweep_references(dry_run=dry_run), *_sweep_uploads(dry_run=dry_run)]
    report(tallies, dry_run=dry_run)
    return tallies


def _sweep_releases(*, dry_run: bool) -> Tally:
    """The files of releases; folders of entries that were deleted with their challenge go at once."""
    tally = Tally("entries' releases")
    since = before(settings.KEEP_RELEASES_DAYS)
    for folders in folders_by_id(Path(settings.PRIVATE_ROOT) / "releases"):
        entries = Submission.objects.filter(pk__in=folders)
        known = set(entries.values_list("pk", flat=True))
        over = set(entries.long_over(since).values_list("pk", flat=True)) if since else set()
        for pk, folder in folders.items():
            if pk in over or (pk not in known and is_stray(folder)):
                tally += remove(folder, dry_run=dry_run)
    return tally


def _sweep_references(*, dry_run: bool) -> Tally:
    """The platform's own releases on public samples, of challenges that take no entry any more."""
    tally = Tally("reference releases")
    root = Path(settings.PRIVATE_ROOT) / "reference"
    open_ones = set(Challenge.objects.exclude(status=Challenge.Status.CLOSED).values_list("slug", flat=True))
    for folder in root.iterdir() if root.is_dir() else ():
        if folder.name not in open_ones and is_stray(folder) and not _is_rehearsed(folder.name):
            tally += remove(folder, dry_run=dry_run)
    return tally


def _is_rehearsed(slug: str) -> bool:
    return Submission.objects.filter(challenge__slug=slug, state__in=UNDER_WAY).exists()


def _sweep_uploads(*, dry_run: bool) -> list[Tally]:
    """Uploads that nobody continues, and files that no upload or request knows any more."""
    forgotten, strays = Tally("forgotten uploads"), Tally("stray files of uploads")
    for upload in uploads.forgotten():
        forgotten += size_of(upload.path)
    if not dry_run:
        uploads.discard_forgotten()
    for folders in folders_by_id(Path(settings.PRIVATE_ROOT) / "uploads"):
        known = set(Upload.objects.filter(pk__in=folders).values_list("pk", flat=True))
        for pk, file in folders.items():
            if pk not in known and is_stray(file):
                strays += remove(file, dry_run=dry_run)
    incoming = Path(settings.FILE_UPLOAD_TEMP_DIR)  # what a killed process was receiving
    for path in incoming.iterdir() if incoming.is_dir() else ():
        if is_stray(path):
            strays += remove(path, dry_run=dry_run)
    return [forgotten, strays]
