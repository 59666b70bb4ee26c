"""Tiny image archives made in pure Python: honest ones, and any kind of dishonest one."""

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BUSYBOX = shutil.which("busybox")
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def member(name: str, content: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """One entry of a tar; `fields` are those of TarInfo (type, linkname, mode...)."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mode = 0o755
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def tar(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def busybox_layer() -> bytes:
    """A root file system with a shell. Static, so that nothing else is needed."""
    assert BUSYBOX, "these tests need a static busybox: apt-get install busybox-static"
    return tar(
        member("bin", type=tarfile.DIRTYPE),
        member("bin/busybox", Path(BUSYBOX).read_bytes()),
        member("bin/sh", type=tarfile.SYMTYPE, linkname="busybox"),
    )


TEXT_LAYER = tar(member("hello.txt", b"hello\n"))


@dataclass
class ImageBuilder:
    """An image to be; every part can be spoilt before it is written to an archive."""

    layers: list[bytes] = field(default_factory=lambda: [TEXT_LAYER])
    config: dict[str, Any] = field(default_factory=lambda: {"Cmd": ["/hello"]})
    architecture: str = "amd64"
    tags: list[str] | None = None
    diff_ids: list[str] | None = None

    @property
    def config_json(self) -> bytes:
        diff_ids = self.diff_ids or [f"sha256:{sha256(layer)}" for layer in self.layers]
        return json.dumps(
            {
                "architecture": self.architecture,
                "os": "linux",
                "config": self.config,
                "rootfs": {"type": "layers", "diff_ids": diff_ids},
                "history": [{"created_by": "test"}] * len(diff_ids),
            }
        ).encode()

    @property
    def image_id(self) -> str:
        return f"sha256:{sha256(self.config_json)}"

    def docker_members(self, *, without: tuple[int, ...] = ()) -> list[tuple[tarfile.TarInfo, bytes]]:
        """The files of a docker-archive; layers whose number is in `without` are left out."""
        names = [f"{sha256(layer)}/layer.tar" for layer in self.layers]
        config_name = f"{sha256(self.config_json)}.json"
        manifest = json.dumps([{"Config": config_name, "RepoTags": self.tags, "Layers": names}]).encode()
        kept = [number for number in range(len(names)) if number not in without]
        files = {names[number]: self.layers[number] for number in kept}
        return [
            *(member(name, content) for name, content in files.items()),
            member(config_name, self.config_json),
            member("manifest.json", manifest),
        ]

    def docker_archive(self, path: Path, *, without: tuple[int, ...] = ()) -> Path:
        path.write_bytes(tar(*self.docker_members(without=without)))
        return path

    def oci_blobs(self, *, compress: bool = False, media_suffix: str = "") -> tuple[dict[str, bytes], dict[str, Any]]:
        """The blobs of an OCI layout by name, and the descriptor of the image's manifest."""
        blobs = [gzip.compress(layer, mtime=0) if compress else layer for layer in self.layers]
        layer_type = LAYER_TYPE + (media_suffix or ("+gzip" if compress else ""))
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": descriptor(self.config_json, "application/vnd.oci.image.config.v1+json"),
                "layers": [descriptor(blob, layer_type) for blob in blobs],
            }
        ).encode()
        files = {f"blobs/sha256/{sha256(blob)}": blob for blob in (*blobs, self.config_json, manifest)}
        return files, descriptor(manifest, MANIFEST_TYPE)

    def oci_archive(self, path: Path, *, compress: bool = False, media_suffix: str = "") -> Path:
        files, manifest = self.oci_blobs(compress=compress, media_suffix=media_suffix)
        return write_layout(path, files, [manifest])


def descriptor(blob: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{sha256(blob)}", "size": len(blob), **more}


def write_layout(path: Path, files: dict[str, bytes], manifests: list[dict[str, Any]]) -> Path:
    """An OCI layout whose index lists those manifests."""
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests}).encode()
    layout = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": index, **files}
    path.write_bytes(tar(*(member(name, content) for name, content in layout.items())))
    return path
