"""Sees to it that an engine has an image, sending as little as it can."""

from sandbox.blobs import load_stream
from sandbox.conf import blob_root
from sandbox.engine import Engine, EngineFault
from sandbox.models import Image
from sandbox.reasons import Rejected


def supply(engine: Engine, image: Image) -> None:
    """Loads the image into the engine. Raises EngineFault if it is not there afterwards, layer by layer.

    Raises `Rejected` if a layer cannot be unpacked, through its own fault.
    """
    held = _held_layers(engine, image)
    if held:
        try:
            _load(engine, image, held)
        except (EngineFault, Rejected):
            held = frozenset()  # the base image has just gone, or this engine wants every layer: send all
    if not held:
        _load(engine, image, held)
    if engine.layers(image.image_id) != image.layers:
        raise EngineFault("the engine has other layers than the image that was loaded")


def _load(engine: Engine, image: Image, held: frozenset[str]) -> None:
    engine.load(load_stream(blob_root(), image.image_id, image.layers, held=held), image.image_id)


def _held_layers(engine: Engine, image: Image) -> frozenset[str]:
    """The longest run of layers at the bottom that the engine has already, as part of a base image of ours.

    The engine finds a layer by all that is below it, so only a common beginning counts.
    """
    longest: list[str] = []
    for base in Image.objects.bases().exclude(pk=image.pk):
        common = base.layers[: len(image.layers)]
        if len(common) > len(longest) and common == image.layers[: len(common)] and engine.has_image(base.image_id):
            longest = common
    return frozenset(longest)
