"""Sees to it that a host has an image, sending as little as it can, and that its images keep to their room.

`Copy` rows say which host holds what. They are what the engines held when last looked at: whoever relies on one asks
the engine as well.
"""

from collections.abc import Iterable

import structlog
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from sandbox.blobs import blob_path, load_stream
from sandbox.conf import blob_root
from sandbox.engine import Engine, EngineFault
from sandbox.engine_images import NoSpace, digest
from sandbox.hosts import engine_of
from sandbox.models import Copy, Host, Image, Run
from sandbox.reasons import Rejected

log = structlog.get_logger(__name__)

GIGABYTE = 10**9


def supply(host: Host, image: Image) -> None:
    """Loads the image into the host's engine. Raises EngineFault if it is not there afterwards, layer by layer.

    Raises `Rejected` if a layer cannot be unpacked, through its own fault. Images that were not used for the longest
    time leave if it would not fit otherwise.
    """
    engine = engine_of(host)
    make_room(host, image)
    try:
        _send(host, engine, image)
    except NoSpace:  # the disk is fuller than our images alone make it
        if not _let_go(host, _size_of(image.layers)):
            raise
        _send(host, engine, image)
    if engine.layers(image.image_id) != image.layers:
        raise EngineFault("the engine has other layers than the image that was loaded")
    _note(host, image)


def _send(host: Host, engine: Engine, image: Image) -> None:
    held = _held_layers(host, engine, image)
    if held:
        try:
            _load(engine, image, held)
            return
        except NoSpace:
            raise
        except (EngineFault, Rejected):
            log.info("image.sent_whole", image=image.image_id)  # a copy has just gone, or this engine wants every layer
    _load(engine, image, frozenset())


def _load(engine: Engine, image: Image, held: frozenset[str]) -> None:
    engine.load(load_stream(blob_root(), image.image_id, image.layers, held=held), image.image_id)


def _held_layers(host: Host, engine: Engine, image: Image) -> frozenset[str]:
    """The longest run of layers at the bottom that the engine has already, as part of any image of ours.

    The engine finds a layer by all that is below it, so only a common beginning counts.
    """
    likely = Image.objects.filter(Q(copies__host=host) | Q(is_base=True)).exclude(pk=image.pk).distinct()
    shared = [(_common(other.layers, image.layers), other) for other in likely]
    for layers, other in sorted(shared, key=lambda found: len(found[0]), reverse=True):
        if layers and engine.has_image(other.image_id):
            return frozenset(layers)
    return frozenset()


def _common(some: list[str], others: list[str]) -> list[str]:
    """The layers with which both begin."""
    count = 0
    for one, other in zip(some, others, strict=False):
        if one != other:
            break
        count += 1
    return some[:count]


def _note(host: Host, image: Image) -> None:
    Copy.objects.update_or_create(host=host, image=image, defaults={"used_at": timezone.now()})


# -- room


def make_room(host: Host, coming: Image | None = None) -> None:
    """Lets images go until the rest, and the coming one, keep to the host's room; those in use stay. EngineFault."""
    held = set(Copy.objects.filter(host=host).values_list("image__pk", flat=True))
    rows = Image.objects.filter(pk__in=held).values_list("layers", flat=True)
    layers = {layer for row in rows for layer in row} | set(coming.layers if coming else ())
    excess = _size_of(layers) - host.image_room_gb * GIGABYTE
    if excess > 0:
        _let_go(host, excess, keep=coming)


def _let_go(host: Host, wanted: int, keep: Image | None = None) -> int:
    """Removes the copies that were not used for the longest time, base images last, until so many bytes are free.

    Never one that a run under way needs. Returns how many bytes became free, as far as layers of ours go.
    """
    engine = engine_of(host)
    needed = set(Run.objects.running().filter(host=host).values_list("image__pk", flat=True))
    copies = list(Copy.objects.filter(host=host).select_related("image").order_by("image__is_base", "used_at"))
    staying = {copy.pk: set(copy.image.layers) for copy in copies}
    free = 0
    for copy in copies:
        if free >= wanted:
            break
        if copy.image.pk in needed or copy.image == keep or not engine.remove_image(copy.image.image_id):
            continue
        own = staying.pop(copy.pk)
        copy.delete()
        free += _size_of(own.difference(*staying.values()))
        log.info("image.let_go", host=host.name, image=copy.image.image_id)
    return free


def _size_of(layers: Iterable[str]) -> int:
    """The unpacked bytes of these layers, each counted once, as the blob store has them.

    An engine's own count covers images that are not ours, takes long, and does not tell what several images share.
    """
    paths = [blob_path(blob_root(), layer) for layer in set(layers)]
    return sum(path.stat().st_size for path in paths if path.exists())


# -- keeping the books true


def look_over(host: Host) -> None:
    """Makes the `Copy` rows agree with what the engine holds, and takes off images that have no use any more.

    Those have no row, or were let go. One in use stays until a later round. Then sees to it that there is room.
    """
    engine = engine_of(host)
    before = set(Copy.objects.filter(host=host).values_list("pk", flat=True))
    loaded = engine.loaded_images()
    images = {digest(image.image_id): image for image in Image.objects.held().only("image_id")}
    for unknown in loaded - images.keys():
        engine.remove_image(unknown)
    held = [images[known].pk for known in loaded & images.keys()]
    with transaction.atomic():
        Copy.objects.filter(host=host, pk__in=before).exclude(image__in=held).delete()
        known = set(Copy.objects.filter(host=host).values_list("image__pk", flat=True))
        Copy.objects.bulk_create(
            (Copy(host=host, image_id=key) for key in held if key not in known), ignore_conflicts=True
        )
    make_room(host)
