"""What is kept of runs and images, and for how long: each day what is old enough goes. Policy is in `conf` (`keep_*`).

Rows stay, with their times and outcomes; files go. What rooms above still need they say through a `Keeper`.
"""

import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Protocol
from uuid import UUID

import structlog
from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone

from sandbox.blobs import blob_path
from sandbox.conf import blob_root, conf, private_root
from sandbox.models import Image, Run

log = structlog.get_logger(__name__)

BATCH = 500  # rows asked for at a time
# Files that no row knows: their row may not be committed yet, or their process is still writing. No request or check
# takes nearly as long as this.
STRAY_SECONDS = 24 * 3600


class Keeper(Protocol):
    """What a room above still needs of what the sandbox would remove."""

    def results(self, runs: Collection[UUID]) -> Collection[UUID]:
        """Those of these runs whose result a later step may still read."""

    def images(self, images: Collection[int], since: datetime) -> Collection[int]:
        """Those of these images (primary keys) that may still be run, or that were in play since then."""


_keepers: list[Keeper] = []


def register(keeper: Keeper) -> None:
    """Has this keeper asked before anything goes. Called from AppConfig.ready."""
    _keepers.append(keeper)


@dataclass(frozen=True)
class Tally:
    """What went, or would go: a plural noun for logs and operators, how many, and how many bytes on the disk."""

    what: str
    number: int = 0
    size: int = 0

    def __add__(self, size: int) -> "Tally":
        return Tally(self.what, self.number + 1, self.size + size)


def before(days: int) -> datetime | None:
    """What is older than this goes; None if it is kept for ever (0 days)."""
    return timezone.now() - timedelta(days=days) if days > 0 else None


def sweep(*, dry_run: bool = False) -> list[Tally]:
    """Removes the logs, results and images whose time is over; with `dry_run` only counts them."""
    tallies = [*_sweep_runs(dry_run=dry_run), sweep_images(dry_run=dry_run)]
    report(tallies, dry_run=dry_run)
    return tallies


def report(tallies: Collection[Tally], *, dry_run: bool) -> None:
    """Logs what went: numbers, never names or contents."""
    for tally in tallies:
        if tally.number and not dry_run:
            log.info("retention.removed", what=tally.what, number=tally.number, bytes=tally.size)


def remove(path: Path, *, dry_run: bool) -> int:
    """Takes a file or folder away; returns the bytes that it has. What is not there has none."""
    size = size_of(path)
    if not dry_run:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)  # what stays is tried again tomorrow
        else:
            path.unlink(missing_ok=True)
    return size


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; links are not followed."""
    try:
        if path.is_symlink() or not path.is_dir():
            return path.lstat().st_size
        return sum(size_of(inner) for inner in path.iterdir())
    except FileNotFoundError:
        return 0


def is_stray(path: Path) -> bool:
    """Whether nobody has written this for so long that whoever did has ended."""
    try:
        return time.time() - path.lstat().st_mtime > STRAY_SECONDS
    except FileNotFoundError:
        return False


def folders_by_id(root: Path) -> Iterator[dict[UUID, Path]]:
    """The folders below `root` that are named by an id, some at a time."""
    if not root.is_dir():
        return
    paths = root.iterdir()
    while some := list(islice(paths, BATCH)):
        found = {}
        for path in some:
            try:
                found[UUID(path.name)] = path
            except ValueError:
                continue
        yield found


def _sweep_runs(*, dry_run: bool) -> list[Tally]:
    logs, results, left = Tally("logs of runs"), Tally("results of runs"), Tally("folders of runs that are gone")
    logs_before, results_before = before(conf().keep_logs_days), before(conf().keep_results_days)
    for folders in folders_by_id(private_root() / "runs"):
        known = dict(Run.objects.filter(pk__in=folders).values_list("pk", "finished_at"))
        for path in (path for pk, path in folders.items() if pk not in known):
            if is_stray(path):
                left += remove(path, dry_run=dry_run)
        ended = {pk: at for pk, at in known.items() if at is not None}
        for pk in _older(ended, logs_before):
            if (file := folders[pk] / "log.txt").exists():
                logs += remove(file, dry_run=dry_run)
        old = _older(ended, results_before)
        needed = {pk for keeper in _keepers for pk in keeper.results(old)}
        for pk in set(old) - needed:
            if (folder := folders[pk] / "result").exists():
                results += remove(folder, dry_run=dry_run)
        if not dry_run:
            for pk in ended:
                _remove_if_empty(folders[pk])
    return [logs, results, left]


def _older(times: dict[UUID, datetime], than: datetime | None) -> list[UUID]:
    return [] if than is None else [pk for pk, at in times.items() if at < than]


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:  # there is something in it
        return


def sweep_images(*, dry_run: bool = False) -> Tally:
    """Lets go of images that nobody has run or will run: their rows stay, their blobs go, hosts drop their copies.

    Who enters such an image again brings its blobs along.
    """
    tally = Tally("images")
    since = before(conf().keep_images_days)
    if since is None:
        return tally
    with transaction.atomic():
        # Locked first and asked again: a run may have been queued meanwhile, and from now on none can be.
        locked = list(_idle(since).select_for_update().values_list("pk", flat=True))
        idle = set(_idle(since).filter(pk__in=locked).values_list("pk", flat=True))
        doomed = idle - {pk for keeper in _keepers for pk in keeper.images(idle, since)}
        images = list(Image.objects.filter(pk__in=doomed))
        if not dry_run:
            Image.objects.filter(pk__in=doomed).update(removed_at=timezone.now())
    shared = Image.objects.held().exclude(pk__in=doomed).values_list("image_id", "layers")
    used = {digest for image_id, layers in shared for digest in (image_id, *layers)}
    for image in images:
        size = 0
        for path in (blob_path(blob_root(), digest) for digest in {image.image_id, *image.layers} - used):
            used.add(f"sha256:{path.name}")
            if is_stray(path):  # else a check may just have renewed it; the reaper comes again
                size += remove(path, dry_run=dry_run)
        tally += size
    return tally


def _idle(since: datetime) -> QuerySet[Image]:
    runs = Run.objects.filter(image=OuterRef("pk"))
    waiting = runs.filter(state__in=(Run.State.QUEUED, Run.State.RUNNING))
    recent = runs.filter(finished_at__gte=since)
    return Image.objects.held().filter(~Exists(waiting), ~Exists(recent), is_base=False, created_at__lt=since)
