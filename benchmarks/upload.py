"""A 1 GB archive uploaded and checked: the server's memory above idle; time against a copy plus `docker load`."""

import hashlib
import io
import json
import os
import subprocess
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.common import Verdict, arena
from tests.arena import Arena, wait_for

SIZE = 10**9  # bytes of the layer, which do not compress
MEMORY_MB = 200
EMAIL = "bea@uni.example.org"


def measure() -> tuple[dict[str, Any], list[Verdict]]:
    with arena() as made:
        archive = _archive(made.var / "big.tar")
        made.sign_up(EMAIL).close()
        made.anomed(EMAIL, "join", "clinic", "--team", "Team Bea", "--accept-rules")
        bare = _bare(archive)
        with Memory(made) as memory:
            began = time.monotonic()
            made.anomed(EMAIL, "submit", "clinic", "--attack", str(archive), "--full")
            uploaded = time.monotonic() - began
            wait_for(lambda: _checked(made), seconds=120, what="the image is checked")
            wall = time.monotonic() - began
    facts = {
        "bare_seconds": round(bare, 1),
        "uploaded_seconds": round(uploaded, 1),
        "checked_seconds": round(wall, 1),
        "idle_mb": memory.idle,
        "peak_mb": memory.peak,
    }
    return facts, [
        Verdict("upload and check / copy and docker load", wall / bare, 2.0),
        Verdict(f"peak memory above idle / {MEMORY_MB} MB", (memory.peak - memory.idle) / MEMORY_MB, 1.0),
    ]


def _checked(made: Arena) -> bool:
    states = made.query("select state from submissions_submission")
    if states == [("failed",)]:
        raise RuntimeError(made.query("select failure_detail from submissions_submission")[0][0])
    return bool(states) and states[0][0] not in ("uploading", "checking")


def _bare(archive: Path) -> float:
    """Seconds of copying the file and loading it into the engine, from which it is then removed."""
    began = time.monotonic()
    copy = archive.with_suffix(".copy")
    subprocess.run(["cp", str(archive), str(copy)], check=True)
    loaded = subprocess.run(["docker", "load", "--input", str(copy)], check=True, capture_output=True, text=True)
    seconds = time.monotonic() - began
    subprocess.run(["docker", "image", "rm", "--force", loaded.stdout.split()[-1]], check=True, capture_output=True)
    copy.unlink()
    return seconds


def _archive(path: Path) -> Path:
    """An image of one layer with one file of random bytes, as `docker save` writes it."""
    layer = path.with_suffix(".layer")
    with layer.open("wb") as target, tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        member = tarfile.TarInfo("weights.bin")
        member.size = SIZE
        with Path("/dev/urandom").open("rb") as random:
            tar.addfile(member, random)
    digest = hashlib.sha256()
    with layer.open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/weights.bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest.hexdigest()}"]},
        "history": [{"created_by": "benchmark"}],
    }
    encoded = json.dumps(config).encode()
    name = f"{hashlib.sha256(encoded).hexdigest()}.json"
    manifest = json.dumps([{"Config": name, "RepoTags": None, "Layers": ["layer/layer.tar"]}]).encode()
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for member_name, content in ((name, encoded), ("manifest.json", manifest)):
            member = tarfile.TarInfo(member_name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        tar.add(layer, "layer/layer.tar")
    layer.unlink()
    return path


class Memory:
    """Watches the private memory of all processes of the server (site, clusters and their children), in MB."""

    def __init__(self, made: Arena) -> None:
        self._marker = f"ANOMED_VAR={made.var}".encode()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.idle = self.peak = 0

    def __enter__(self) -> "Memory":
        self.idle = self.peak = self._now()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.1):
            self.peak = max(self.peak, self._now())

    def _now(self) -> int:
        return sum(self._private_kb(folder) for folder in Path("/proc").glob("[0-9]*")) // 1024

    def _private_kb(self, folder: Path) -> int:
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            if self._marker not in environment or folder.name == str(os.getpid()):
                return 0
            lines = (folder / "smaps_rollup").read_text().splitlines()
        except OSError:
            return 0  # it has just ended
        return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
