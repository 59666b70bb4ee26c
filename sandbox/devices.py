"""How an engine is asked to give GPUs to a container, and how the image is kept from asking itself."""

import re
from collections.abc import Mapping
from typing import Any

CDI = "nvidia.com/gpu"  # the kind of device under which the NVIDIA Container Toolkit describes GPUs
ALL = "all"

_NAMED_BY_UUID = re.compile(rf"{re.escape(CDI)}=(?:GPU|MIG)-.+")
_TELLS_DEVICES = (28, 3)  # from here on engines say which CDI devices they have found
_KNOWS_CDI = (25, 0)


def by_cdi(info: Mapping[str, Any]) -> bool:
    """Whether this engine is to be asked for CDI devices; otherwise for those of the driver `nvidia`.

    `info` is the engine's account of itself. It has to know GPUs by UUID. Where it does not say what it knows, CDI is
    used if it is switched on and the NVIDIA runtime is not there: that one serves all engines.
    """
    version = _version(str(info.get("ServerVersion") or ""))
    if version >= _TELLS_DEVICES:
        found = info.get("DiscoveredDevices") or ()
        return any(_NAMED_BY_UUID.fullmatch(str(device.get("ID", ""))) for device in found)
    switched_on = version >= _KNOWS_CDI and bool(info.get("CDISpecDirs"))
    return switched_on and "nvidia" not in (info.get("Runtimes") or {})


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])


def requests(gpus: list[str], *, cdi: bool, compute: bool = True) -> list[dict[str, Any]]:
    """The device requests for these UUIDs, or for `ALL`; without `compute` they can be looked at only."""
    if not gpus:
        return []
    if cdi:
        return [{"Driver": "cdi", "DeviceIDs": [f"{CDI}={gpu}" for gpu in gpus]}]
    which: dict[str, Any] = {"Count": -1} if gpus == [ALL] else {"DeviceIDs": gpus}
    return [{"Driver": "nvidia", **which, "Capabilities": [["gpu", *_capabilities(compute)]]}]


def environment(gpus: list[str], *, compute: bool = True) -> list[str]:
    """What the NVIDIA runtime reads if it is the engine's default: exactly these GPUs, whatever the image says."""
    if not gpus:
        return ["NVIDIA_VISIBLE_DEVICES=void"]
    return [
        f"NVIDIA_VISIBLE_DEVICES={','.join(gpus)}",
        f"NVIDIA_DRIVER_CAPABILITIES={','.join(_capabilities(compute))}",
    ]


def _capabilities(compute: bool) -> list[str]:
    return ["compute", "utility"] if compute else ["utility"]


def passes_gvisor(info: Mapping[str, Any], runtime: str) -> bool:
    """Whether this engine's gVisor lets GPUs through: it does only with its option `--nvproxy`."""
    arguments = ((info.get("Runtimes") or {}).get(runtime) or {}).get("runtimeArgs") or ()
    return any(re.fullmatch(r"--?nvproxy(=(true|1))?", str(argument)) for argument in arguments)
