"""Base images of ours, in which programs of ours run on the hosts."""

from sandbox.models import Image


def base_image(name: str) -> Image | None:
    """The registered base image of that name, or the smallest if no name is given; None if there is none."""
    bases = Image.objects.bases().held()
    return bases.filter(name=name).first() if name else bases.order_by("size").first()
