"""What the reaper does about this server's own files and images, each minute."""

import shutil
import time
from datetime import timedelta
from pathlib import Path

import structlog
from django.db import transaction
from django.db.models import Exists, ForeignObjectRel, OuterRef
from django.utils import timezone

from sandbox import leases
from sandbox.conf import blob_root, scratch_root
from sandbox.models import Copy, Image

log = structlog.get_logger(__name__)

LEFT_SECONDS = 24 * 3600  # far longer than any check of an archive, and than its image is without an entry


def sweep_files() -> None:
    """Removes working files of attempts that are over, and of archive checks that were killed."""
    for folder in scratch_root().glob("*.*"):
        run, _dot, attempt = folder.name.partition(".")
        if not leases.is_under_way(run, attempt):
            shutil.rmtree(folder, ignore_errors=True)
    for folder in (blob_root().parent / "incoming").glob("*"):
        if _is_left(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_left(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > LEFT_SECONDS
    except FileNotFoundError:  # whoever made it has just removed it
        return False


def sweep_images() -> None:
    """Removes images that nothing refers to, in whatever room, and blobs of which no image is made.

    Young ones stay: their check or entry may be under way.
    """
    with transaction.atomic():
        unused = Image.objects.filter(is_base=False, created_at__lt=timezone.now() - timedelta(seconds=LEFT_SECONDS))
        for field in Image._meta.get_fields(include_hidden=True):
            if isinstance(field, ForeignObjectRel) and field.related_model is not Copy:  # a host's copy is no use of it
                referring = field.related_model._base_manager.filter(**{field.field.name: OuterRef("pk")})
                unused = unused.exclude(Exists(referring))
        images = list(unused.select_for_update())
        Image.objects.filter(pk__in=[image.pk for image in images]).delete()
    rows = Image.objects.held().values_list("image_id", "layers")
    used = {digest for image_id, layers in rows for digest in (image_id, *layers)}
    blobs = 0
    for path in blob_root().glob("*"):
        if f"sha256:{path.name}" not in used and _is_left(path):  # looked at last: a check may just have renewed it
            path.unlink(missing_ok=True)
            blobs += 1
    if images or blobs:
        log.info("reaper.removed_images", images=len(images), blobs=blobs)
