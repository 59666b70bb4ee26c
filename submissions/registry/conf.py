"""The registry's settings and where its files are."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.utils.crypto import salted_hmac

PROGRAM = "docker-registry"  # Debian's package of the same name: https://github.com/distribution/distribution 2.8


@dataclass(frozen=True)
class Conf:
    """Bytes, days and seconds, as the names say."""

    address: str = ""  # what people write before the first slash of an image's name; empty: there is no registry
    port: int = 5000  # where it listens, on this machine only
    max_bytes: int = 50 * 10**9  # of all images in it together
    keep_days: float = 7  # after its entry was checked, so that the next push sends only what changed
    token_seconds: int = 300  # a client asks for a new token when a push takes longer
    clean_seconds: float = 24 * 3600


def conf() -> Conf:
    """The settings in force now."""
    return Conf(**settings.REGISTRY)


def enabled() -> bool:
    """Whether people can push here: an address is set, and the program is installed."""
    return bool(conf().address) and shutil.which(PROGRAM) is not None


def root() -> Path:
    """Everything of the registry; nothing below is served by the site."""
    return Path(settings.PRIVATE_ROOT) / "registry"


def storage() -> Path:
    return root() / "storage"


def url() -> str:
    """The registry as this machine reaches it."""
    return f"http://127.0.0.1:{conf().port}"


def secret(purpose: str) -> str:
    """A secret for one purpose, the same in all processes of this installation."""
    return salted_hmac(f"registry.{purpose}", settings.INSTALLATION, algorithm="sha256").hexdigest()
