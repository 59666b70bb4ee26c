"""Stands where the NVIDIA Container Toolkit would: an engine with it takes requests for GPUs as with the real one.

The engine calls the hook for each container that was given GPUs. The hook writes down what it was told, and puts an
`nvidia-smi` into the container that prints what the test wants. There is no GPU: what CUDA does, nobody sees here.
"""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

HOOK = """#!{python}
import json, pathlib, shutil, sys
folder = pathlib.Path({folder!r})
state = json.load(sys.stdin)
config = json.loads((pathlib.Path(state["bundle"]) / "config.json").read_text())
told = [item for item in config["process"]["env"] if item.startswith("NVIDIA_")]
with (folder / "told").open("a") as file:
    file.write(json.dumps({{"id": state["id"], "told": told}}) + "\\n")
if (folder / "broken").exists():
    sys.exit("nvidia-container-cli: initialization error: nvml error: driver not loaded")
shutil.copy(folder / "smi", pathlib.Path(config["root"]["path"]) / "bin" / "nvidia-smi")
"""

SMI = """#!/bin/sh
case "$1" in
-L) printf '%s' '{listed}' ;;
*) printf '%s' '{queried}' ;;
esac
exit {code}
"""


def uuid(number: int, kind: str = "GPU") -> str:
    return f"{kind}-{number:08x}-0000-4000-8000-{number:012x}"


@dataclass
class Toolkit:
    """The hook in its folder, which has to be on the engine's PATH when it starts."""

    folder: Path

    def install(self) -> None:
        hook = self.folder / "nvidia-container-runtime-hook"
        hook.write_text(HOOK.format(python=sys.executable, folder=str(self.folder)))
        hook.chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": f"{self.folder}:{os.environ['PATH']}"}

    def shows(self, gpus: dict[int, int], slices: dict[int, list[str]] | None = None, code: int = 0) -> None:
        """From now on there are GPUs of those numbers and megabytes, some split into slices of these profiles."""
        slices = slices or {}
        queried, listed = "", ""
        for number, memory in gpus.items():
            mode = "Enabled" if number in slices else "Disabled"
            queried += f"{uuid(number)}, {memory}, {mode}, NVIDIA A100-PCIE-40GB\n"
            listed += f"GPU {number}: NVIDIA A100-PCIE-40GB (UUID: {uuid(number)})\n"
            for place, profile in enumerate(slices.get(number, [])):
                slice_uuid = uuid(100 * number + place, "MIG")
                listed += f"  MIG {profile:<12} Device {place:>2}: (UUID: {slice_uuid})\n"
        smi = self.folder / "smi"
        smi.write_text(SMI.format(queried=queried, listed=listed, code=code))
        smi.chmod(0o755)
        (self.folder / "told").unlink(missing_ok=True)
        (self.folder / "broken").unlink(missing_ok=True)

    def breaks(self) -> None:
        """From now on no container with GPUs can be started."""
        (self.folder / "broken").touch()

    def told(self) -> dict[str, list[str]]:
        """What the hook was told for each container, by its id."""
        path = self.folder / "told"
        lines = path.read_text().splitlines() if path.exists() else []
        return {told["id"]: told["told"] for told in map(json.loads, lines)}
