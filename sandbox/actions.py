"""Every write to the sandbox's tables that other rooms ask for. Workers' own writes are in `leases`."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from sandbox import images, inspection, tasks
from sandbox.archives import Caps
from sandbox.conf import blob_root, conf
from sandbox.contracts import Contract
from sandbox.hosts import LOCAL_HOST
from sandbox.images import CheckedImage
from sandbox.limits import Limits
from sandbox.models import Host, Image, Run, Slot
from sandbox.offers import Wall


@transaction.atomic
def queue(
    *,
    image: Image,
    purpose: str,
    step: str,
    limits: dict[str, Any],
    collect: dict[str, list[str]],
    owner: str,
    priority: int,
    private: bool,
    walls: Iterable[str] = (),
    contract: str = Contract.FILES,
) -> Run:
    """Queues one container execution and wakes a worker when the caller's transaction commits.

    `collect` is {"tables": [...], "files": [...], "folders": [...]}, each key optional. Of two runs the one with the
    higher `priority` goes first, then the one whose `owner` has fewer under way. The log of a `private` run is for
    organisers only. It goes only to a host that offers all `walls` and those of the settings. Raises ValueError for
    limits that make no sense, and for a web server behind gVisor, where nobody could share its loopback.
    """
    wanted = Limits.from_json(limits)
    demanded = sorted({*walls, *conf().walls})
    if not can_serve(contract, demanded):
        raise ValueError(_("Web servers cannot be talked to in gVisor, which this challenge or this site demands."))
    run = Run.objects.create(
        image=image,
        purpose=purpose,
        step=step,
        limits=wanted.to_json(),
        gpus=wanted.gpus,
        collect=collect,
        owner=owner,
        priority=priority,
        private=private,
        walls=demanded,
        contract=Contract(contract),
    )
    tasks.send_wakeup()
    return run


def can_serve(contract: str, demanded: Iterable[str] = ()) -> bool:
    """Whether images of that contract can be run behind those walls and the site's own."""
    return contract != Contract.WEB or Wall.GVISOR not in {*demanded, *conf().walls}


@transaction.atomic
def cancel(*, run: Run) -> bool:
    """Ends a run that nobody wants any more; False if it had ended already. `settle` is not called.

    A worker that has it under way notices at its next renewal, stops the container and frees the slot.
    """
    alive = Run.objects.filter(pk=run.pk, state__in=(Run.State.QUEUED, Run.State.RUNNING))
    cancelled = alive.update(state=Run.State.CANCELLED, finished_at=timezone.now()) == 1
    run.refresh_from_db()
    return cancelled


def ensure_local_host(*, slots: int) -> Host:
    """Makes this machine's engine a host with that many slots, and notes what it offers.

    Slots in use are not taken away.
    """
    host = _local_host(slots)
    inspection.note(host)
    return host


@transaction.atomic
def _local_host(slots: int) -> Host:
    host, _created = Host.objects.update_or_create(name=LOCAL_HOST, defaults={"url": settings.DOCKER_HOST_URL})
    for number in range(1, slots + 1):
        Slot.objects.get_or_create(host=host, number=number)
    host.slots.filter(number__gt=slots, run=None).delete()
    return host


def check_archive(*, archive: Path) -> CheckedImage:
    """Checks an uploaded archive; the layers of registered base images may be absent from it.

    Its blobs are in the blob store afterwards. Raises `Rejected` with `image_invalid` and a plain sentence.
    """
    return _check(archive, base_layers())


def base_layers() -> frozenset[str]:
    """The diff ids of all layers that an archive may leave out."""
    bases = Image.objects.bases().values_list("layers", flat=True)
    return frozenset(layer for layers in bases for layer in layers)


def _check(archive: Path, base_layers: frozenset[str]) -> CheckedImage:
    bounds = conf()
    blob_root().mkdir(mode=0o700, parents=True, exist_ok=True)
    room = shutil.disk_usage(blob_root()).free - bounds.disk_reserve_bytes
    caps = Caps(bounds.max_image_bytes, bounds.max_members, bounds.max_entries, bounds.max_layers, room)
    return images.check_archive(
        archive,
        blob_root(),
        base_layers,
        caps=caps,
        seconds=bounds.check_seconds,
        memory_mb=bounds.check_memory_mb,
    )


@transaction.atomic
def store_image(*, checked: CheckedImage, name: str = "") -> Image:
    """The row of a checked image; the same image entered twice has one row, as young as the last time.

    An image that nothing refers to goes after a day.
    """
    now = timezone.now()
    fields = {"layers": list(checked.layers), "size": checked.size, "config": checked.config()}
    image, _created = Image.objects.update_or_create(
        image_id=checked.image_id,
        defaults={
            "created_at": now,
            "removed_at": None,
        },  # also locks the row: the reaper must not take it from under the caller
        create_defaults={**fields, "name": name, "created_at": now},
    )
    return image


def register_base_image(*, archive: Path, name: str) -> Image:
    """Makes an image's layers public: thin archives may leave them out. For the operator's own images only.

    Raises `Rejected` as for any archive.
    """
    image = store_image(checked=_check(archive, frozenset()), name=name)
    Image.objects.filter(pk=image.pk).update(is_base=True, name=name)
    image.refresh_from_db()
    return image
