"""Tiny images above one base, whose layers the archive leaves out: a few kilobytes, made without an engine."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker

from tests.sandbox.image_builder import ImageBuilder, member, sha256, tar

BASE = "anomed/base"
BESIDE = [member(f"app/{name}", (Path(__file__).parent / name).read_bytes()) for name in ("inside.py", "tokens.py")]


@dataclass(frozen=True)
class Base:
    """What an image above the base needs to know of it."""

    layers: tuple[str, ...]
    config: dict[str, Any]

    @classmethod
    def from_engine(cls) -> "Base":
        facts = docker.from_env().api.inspect_image(BASE)
        return cls(
            tuple(facts["RootFS"]["Layers"]), {key: facts["Config"][key] for key in ("Env", "WorkingDir", "User")}
        )


@dataclass
class Thin(ImageBuilder):
    """An image whose lowest layers are the base's, by name alone. Every part can be spoilt, as with any builder."""

    base: tuple[str, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)  # beside os, architecture, config and rootfs

    @property
    def config_json(self) -> bytes:
        diff_ids = self.diff_ids or [*self.base, *(f"sha256:{sha256(layer)}" for layer in self.layers)]
        rootfs = {"type": "layers", "diff_ids": diff_ids}
        facts = {"architecture": self.architecture, "os": "linux", "config": self.config, "rootfs": rootfs}
        return json.dumps({**facts, **self.more}).encode()

    def docker_members(self, *, without: tuple[int, ...] = ()) -> list[Any]:
        absent = [f"{layer.removeprefix('sha256:')}/layer.tar" for layer in self.base]
        own = {f"{sha256(layer)}/layer.tar": layer for layer in self.layers}
        config = f"{sha256(self.config_json)}.json"
        manifest = json.dumps([{"Config": config, "RepoTags": self.tags, "Layers": [*absent, *own]}]).encode()
        files = {**own, config: self.config_json, "manifest.json": manifest}
        return [member(name, content) for name, content in files.items()]


def image(base: Base, case: str, program: str, targets: dict[str, Any], *, config: Any = None, files: Any = ()) -> Thin:
    """An image that runs `program` with what `inside.py` offers, above the base."""
    setting = json.dumps({"case": case, "targets": targets}).encode()
    whole = f"from inside import *\n\n{program}\n".encode()
    layer = tar(member("app/main.py", whole), *BESIDE, member("app/setting.json", setting), *files)
    entry = {"Entrypoint": ["python", "/app/main.py"], "Cmd": None}
    return Thin(layers=[layer], config={**base.config, **entry, **(config or {})}, base=base.layers)
