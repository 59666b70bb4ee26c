"""What engines say when a container cannot be started: through the image's own fault, or for want of a runtime."""

import re

from sandbox.connection import EngineFault
from sandbox.reasons import gettext_noop

CANNOT_START = gettext_noop(
    "The image's program could not be started. Check its working directory, and that it has no files at /input, "
    "/output and /tmp."
)


# how engines say that they know no such runtime: 20.10, and newer ones
NO_RUNTIME = re.compile(r"nknown runtime specified|unknown or invalid runtime name")


def is_the_images_fault(fault: EngineFault) -> bool:
    """Whether a container could not be created or started because of what its image is."""
    text = str(fault)
    # the last: the image has a link to /proc at a place where we mount, which the runtime refuses
    signs = ("not a directory", "Cwd", "cwd", "working directory", "cannot be mounted because it is")
    # when it is created: its working directory is a file; its program is an empty name. When it is started as its own
    # user: the image has none of that name, or the number is none
    plain = (
        "Cannot mkdir: ",
        "No command specified",
        "unable to find user",
        "unable to find group",
        "uids and gids must",
    )
    return any(sign in text for sign in plain) or ("OCI runtime" in text and any(sign in text for sign in signs))
