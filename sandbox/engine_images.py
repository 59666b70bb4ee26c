"""The images that one Docker Engine holds for us: looking, loading, removing."""

import errno
import os
import re
from collections.abc import Iterable
from pathlib import Path

from docker.errors import NotFound

from sandbox import holder
from sandbox.conf import conf
from sandbox.connection import Connection, EngineFault, NotThere, Unreachable, asking, ignoring_gone, ours
from sandbox.reasons import Reason, Rejected, gettext_noop
from sandbox.zygote import OUR_TROUBLES

HOLDER_TAG = "3"  # counts up when the holder's image changes


class NoSpace(EngineFault):
    """The engine's disk is full."""


class EngineImages(Connection):
    """An engine's images. They are known by their id alone; our private names only keep them from being pruned."""

    def __init__(self, url: str, installation: str, certificates: Path | None = None) -> None:
        super().__init__(url, installation, certificates)
        self._holder_image: str | None = None

    def has_image(self, image_id: str) -> bool:
        """Whether the engine could start it now."""
        return self.layers(image_id) is not None

    def layers(self, image_id: str) -> list[str] | None:
        """The layers of an image that the engine holds; None if it does not."""
        try:
            with asking("look for the image"):
                return list(self._client.inspect_image(image_id)["RootFS"]["Layers"])
        except NotThere:
            return None

    def load(self, stream: Iterable[bytes], image_id: str) -> None:
        """Loads a docker-archive that we wrote ourselves, and gives the image a private name so that it is kept.

        Raises `Rejected` (image_invalid) when a layer cannot be unpacked, through its own fault; NoSpace.
        """
        try:
            self._load(stream, image_id)
        except EngineFault as fault:
            if str(fault).strip().lower().endswith(_FULL):
                raise NoSpace(f"load the image: {_FULL}") from fault
            raise

    def _load(self, stream: Iterable[bytes], image_id: str) -> None:
        with asking("load the image"):
            client = self._connect(conf().load_timeout)
            try:
                for message in client.load_image(ours(stream)) or ():
                    if "error" in message:
                        _refuse_unusable_layer(message["error"])
                        raise EngineFault(f"load the image: {message['error']}")
                client.tag(image_id, f"{self.prefix}/{digest(image_id)}", "run")
            finally:
                client.close()

    def remove_image(self, image_id: str) -> bool:
        """Takes an image off the engine, by its private name first; whether it is gone. One in use stays."""
        name = f"{self.prefix}/{digest(image_id)}:run"
        try:
            with asking("remove the image"):
                ignoring_gone(self._client.remove_image, name)
                return not self._client.images(name=name)
        except Unreachable:
            raise
        except EngineFault:
            return False

    def loaded_images(self) -> set[str]:
        """The digests of all images that were loaded for this installation, as their private names have them."""
        with asking("list the images"):
            names = [name for image in self._client.images(name=f"{self.prefix}/*") for name in image["RepoTags"] or ()]
        kept = re.compile(rf"{re.escape(self.prefix)}/([0-9a-f]+):run")
        return {match[1] for name in names if (match := kept.fullmatch(name))}

    def remove_all_images(self) -> None:
        """Takes every image with a private name of ours off the engine, the holder's too."""
        self.forget_holder()
        with asking("remove the images"):
            for image in self._client.images(name=f"{self.prefix}/*"):
                for name in image["RepoTags"] or ():
                    ignoring_gone(self._client.remove_image, name)

    def holder_image(self) -> str:
        """The id of the holder's image, which is loaded when the engine does not have it."""
        if self._holder_image is None:
            name = f"{self.prefix}/holder:{HOLDER_TAG}"
            with asking("look for the holder's image"):
                try:
                    found = self._client.inspect_image(name)
                except NotFound:
                    for message in self._client.load_image(holder.archive(name)) or ():
                        if "error" in message:
                            raise EngineFault(f"load the holder's image: {message['error']}") from None
                    found = self._client.inspect_image(name)
            self._holder_image = str(found["Id"])
        return self._holder_image

    def forget_holder(self) -> None:
        """Looks the holder's image up again next time: somebody may have removed it."""
        self._holder_image = None


def digest(image_id: str) -> str:
    """An image's id as its private name has it: whole, because anybody can make two images that begin alike."""
    return image_id.removeprefix("sha256:")


_CANNOT_UNPACK = gettext_noop(
    "A layer of the image cannot be unpacked: it has a link to a file that is not there, or a file in a place where "
    "none can be. Build the image anew and save it with `docker save IMAGE`."
)
# how the engine says that unpacking failed: the programs that it starts for it have ended by themselves
_UNPACKING = re.compile(r"(?:Error processing tar file\(exit status \d+\)|failed to register layer): ")
_FULL = os.strerror(errno.ENOSPC).lower()
_TROUBLES_OF_A_HOST = (*(os.strerror(number).lower() for number in (*OUR_TROUBLES, errno.ENOMEM)), "unexpected eof")


def _refuse_unusable_layer(message: str) -> None:
    """Raises `Rejected` if a layer's content made the engine say this.

    What happened comes last in the message; before that it may quote paths, which are the participant's.
    """
    if _UNPACKING.match(message) and not message.strip().lower().endswith(_TROUBLES_OF_A_HOST):
        raise Rejected(Reason.IMAGE_INVALID, _CANNOT_UNPACK)
