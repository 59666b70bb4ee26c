"""The room that the registry takes on the disk. Layers are named by content: each is there once for all teams."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

from sandbox.conf import conf as sandbox_conf
from submissions.registry import conf

_QUIET_SECONDS = 600  # an upload that got no byte for so long is not waited for


def used_bytes() -> int:
    """What all layers, manifests and unfinished uploads take together."""
    # a registry at work removes folders all the time: this walk, unlike others, does not mind
    return sum(_size(Path(folder) / "data") for folder, _folders, files in os.walk(conf.storage()) if "data" in files)


def is_full() -> bool:
    """Whether nothing more may come in: the registry's share is used up, or the disk is."""
    free = shutil.disk_usage(settings.PRIVATE_ROOT).free
    return free < 2 * sandbox_conf().disk_reserve_bytes or used_bytes() > conf.conf().max_bytes


def is_quiet() -> bool:
    """Whether nobody is in the middle of a push."""
    newest = max((_changed(path / "data") for path in _uploads()), default=0.0)
    return time.time() - newest > _QUIET_SECONDS


def drop_uploads() -> None:
    """Removes unfinished uploads. Only while the registry is stopped."""
    for folder in _uploads():
        shutil.rmtree(folder, ignore_errors=True)


def drop_empty_repositories() -> None:
    """Removes the folders of repositories without a manifest. Only while the registry is stopped."""
    for manifests in list(_repositories().rglob("_manifests")):
        if not any(manifests.glob("revisions/sha256/*/link")):
            shutil.rmtree(manifests.parent, ignore_errors=True)


def drop_repository(repository: str) -> None:
    """Removes what a repository has, apart from layers that others share. Only while the registry is stopped."""
    shutil.rmtree(_repositories() / repository, ignore_errors=True)


def has_repositories() -> bool:
    return _repositories().is_dir()


def _repositories() -> Path:
    return conf.storage() / "docker" / "registry" / "v2" / "repositories"


def _uploads() -> Iterator[Path]:
    return _repositories().glob("*/*/*/_uploads/*")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # moved to its place, or gone
        return 0


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
