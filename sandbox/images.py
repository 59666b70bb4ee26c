"""Uploaded archives: checked before any engine sees them."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class CheckedImage:
    """An image whose every blob was recomputed and stored. Digests are `sha256:<hex>`, `size` is unpacked bytes."""

    image_id: str
    layers: tuple[str, ...]
    size: int
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)

    def config(self) -> dict[str, Any]:
        """The part of the configuration that is worth showing."""
        data = asdict(self)
        return {name: data[name] for name in ("entrypoint", "command", "env", "labels")}


def check_archive(path: Path, blob_root: Path, base_layers: frozenset[str]) -> CheckedImage:
    raise NotImplementedError
