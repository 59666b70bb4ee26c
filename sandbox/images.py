"""Uploaded archives: checked before any engine sees them, and kept as blobs of which we know what they are.

SANDBOX 3 says why: an engine that loads a raw upload overwrites the host's tags, and reads other teams' files when a
manifest claims their layers.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from sandbox import archives, blobs, isolation, manifests
from sandbox.archives import Caps
from sandbox.manifests import DIGEST, Found
from sandbox.reasons import Reason, gettext_noop
from sandbox.tarscan import refused

MAX_TEXT_BYTES = 64 << 10  # of environment, command and labels together
MAX_USER = 200  # characters
LOADER_VARIABLES = ("LD_", "NVIDIA_")
KEPT_VOLUMES = frozenset({"/persistent_data"})  # published images declare it; there is something of ours in its place


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
    volumes: tuple[str, ...] = ()
    user: str = ""  # as the image names it

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> Self:
        """Reads what the child found out."""
        lists = {name: tuple(facts[name]) for name in ("layers", "entrypoint", "command", "env", "volumes")}
        return cls(
            image_id=str(facts["image_id"]),
            size=int(facts["size"]),
            labels=dict(facts["labels"]),
            user=str(facts["user"]),
            **lists,
        )

    def config(self) -> dict[str, Any]:
        """The part of the configuration that is worth showing."""
        data = asdict(self)
        return {name: data[name] for name in ("entrypoint", "command", "env", "labels", "volumes", "user")}


def check_archive(
    path: Path, blob_root: Path, base_layers: frozenset[str], *, caps: Caps, seconds: float, memory_mb: int
) -> CheckedImage:
    """Checks an archive in an isolated child; its blobs are in the store afterwards.

    A layer may be absent only if it is one of `base_layers` (diff ids). Raises `Rejected` (image_invalid) with one
    plain sentence that says what is wrong and what to do.
    """
    with blobs.staging(blob_root) as staging:
        facts = isolation.call(
            inspect,
            str(path),
            str(staging),
            str(blob_root),
            sorted(base_layers),
            caps,
            seconds=seconds,
            memory_mb=memory_mb,
            reason=Reason.IMAGE_INVALID,
        )
    return CheckedImage.from_json(facts)


def inspect(path: str, staging: str, blob_root: str, base_layers: list[str], caps: Caps) -> dict[str, Any]:
    """What `check_archive` does in the child: returns the fields of a CheckedImage."""
    root = Path(blob_root)
    found = manifests.find(archives.read(Path(path), Path(staging), caps), caps.layers)
    config = manifests.parse(found.config)
    diff_ids = _diff_ids(config)
    _check_platform(config)
    facts = _runnable(_field(config, "config") or {})
    size = _check_layers(found, diff_ids, root, frozenset(base_layers))
    if size > caps.unpacked_bytes:
        text = gettext_noop("The image unpacks to more than %(limit)d MB. Make it smaller.")
        raise refused(text % {"limit": caps.unpacked_bytes // 10**6})
    for layer in {layer.digest: layer for layer in found.layers if layer}.values():
        blobs.adopt(root, layer.path, layer.digest)
    config_file = Path(staging) / "config"
    config_file.write_bytes(found.config)
    blobs.adopt(root, config_file, found.config_digest)
    return {"image_id": f"sha256:{found.config_digest}", "layers": diff_ids, "size": size, **facts}


_DAMAGED = gettext_noop("The image's configuration is damaged. Save the image anew and upload it again.")


def _field(data: Any, name: str) -> Any:
    """A member by name, as engines find it: in any case."""
    if not isinstance(data, dict):
        raise refused(_DAMAGED)
    return next((value for key, value in data.items() if key.casefold() == name.casefold()), None)


def _diff_ids(config: Any) -> list[str]:
    diff_ids = _field(_field(config, "rootfs"), "diff_ids")
    if not isinstance(diff_ids, list) or not all(isinstance(item, str) and DIGEST.fullmatch(item) for item in diff_ids):
        raise refused(_DAMAGED)
    return diff_ids


def _check_platform(config: Any) -> None:
    found = (_field(config, "os"), _field(config, "architecture"))
    if found != manifests.PLATFORM:
        raise manifests.wrong_platform("/".join(str(part)[:40] for part in found))


def _check_layers(found: Found, diff_ids: list[str], root: Path, base_layers: frozenset[str]) -> int:
    """The image's unpacked bytes. Each layer is in the archive and is what the configuration says, or it is public."""
    if len(found.layers) != len(diff_ids):
        raise refused(_DAMAGED)
    sizes: dict[str, int] = {}
    for layer, diff_id in zip(found.layers, diff_ids, strict=True):
        if layer is None:
            if diff_id not in base_layers:
                raise refused(
                    gettext_noop(
                        "A layer of the image is not in the archive, and it is not one of this server's base images. "
                        "Save the whole image: `docker save IMAGE`."
                    )
                )
            sizes[diff_id] = blobs.blob_path(root, diff_id).stat().st_size
        elif f"sha256:{layer.digest}" != diff_id:
            raise refused(
                gettext_noop(
                    "A layer does not have the digest that the image's configuration claims. Save the image anew."
                )
            )
        else:
            sizes[diff_id] = layer.size
    return sum(sizes.values())


def _runnable(config: Any) -> dict[str, Any]:
    """What the image would run, if it asks for nothing that the sandbox cannot give."""
    entrypoint = _strings(_field(config, "Entrypoint"))
    command = _strings(_field(config, "Cmd"))
    env = _strings(_field(config, "Env"))
    labels = _field(config, "Labels") or {}
    if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
        raise refused(_DAMAGED)
    if not entrypoint and not command:
        raise refused(
            gettext_noop("The image has neither an entrypoint nor a command. Add ENTRYPOINT or CMD to its Dockerfile.")
        )
    if sum(len(text.encode()) for text in (*entrypoint, *command, *env, *labels, *labels.values())) > MAX_TEXT_BYTES:
        raise refused(
            gettext_noop("The image's environment, command and labels are too long. Put long texts in files.")
        )
    _check_absent(config)
    _check_env(env)
    user = _field(config, "User") or ""
    if not isinstance(user, str) or len(user) > MAX_USER:
        raise refused(_DAMAGED)
    volumes = _volumes(config)
    facts = {"entrypoint": entrypoint, "command": command, "env": env, "labels": labels}
    return {**facts, "volumes": volumes, "user": user}


def _strings(value: Any) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) and "\0" not in item for item in value):
        raise refused(_DAMAGED)
    return value


def _volumes(config: Any) -> list[str]:
    """Paths at which an engine would make a volume without bounds: only one for which we have something better."""
    volumes = _field(config, "Volumes") or {}
    if not isinstance(volumes, dict):
        raise refused(_DAMAGED)
    if not volumes.keys() <= KEPT_VOLUMES:
        raise refused(
            gettext_noop(
                "The image declares a VOLUME. Remove it, or build on a base image without one: only /output and /tmp "
                "can be written, and /persistent_data by web servers."
            )
        )
    return sorted(volumes)


def _check_absent(config: Any) -> None:
    if _field(config, "OnBuild"):
        raise refused(gettext_noop("The image has ONBUILD triggers. Build an image on top of it and upload that one."))
    health = _field(config, "Healthcheck")
    test = _field(health, "Test") if health else None
    if test and test != ["NONE"]:
        raise refused(
            gettext_noop("The image has a HEALTHCHECK. Add the line `HEALTHCHECK NONE` to the end of its Dockerfile.")
        )


def _check_env(env: list[str]) -> None:
    for item in env:
        name, equals, value = item.partition("=")
        if not name or not equals:
            raise refused(_DAMAGED)
        if name.upper().startswith(LOADER_VARIABLES) and value:  # an empty one does nothing, and cannot be removed
            text = gettext_noop(
                "The image sets the environment variable %(name)s, which is reserved. Add the line `ENV %(name)s=` to "
                "the end of its Dockerfile, and set what you need of it in your program."
            )
            raise refused(text % {"name": name if name.isprintable() else "?"})
