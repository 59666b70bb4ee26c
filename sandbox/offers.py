"""What a host offers: the walls that its engine can put around a container, and what keeps it from running any.

An engine says of itself which protections it has; one that lacks any of the standard ones takes no run at all. A
rehearsal needs them as well: it is the same stranger's image, and what it breaks out into is the same host.
"""

from dataclasses import dataclass, field
from typing import Any

from django.db.models import TextChoices
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from sandbox import devices
from sandbox.conf import conf

GVISOR_GPUS = "gvisor-gpus"  # beside the catalogue: what a run with GPUs needs that demands gVisor
STANDARD = "standard"  # beside the catalogue: every protection that each run must have


class Wall(TextChoices):
    """What a challenge, or the settings for all of them, may demand beyond the standard protections."""

    GVISOR = "gvisor", gettext_lazy("gVisor: a kernel of its own between the image and the host's kernel. Slower.")
    USERNS = "userns", gettext_lazy("User namespaces: root inside of a container would be nobody on the host.")


LEAST_VERSION = (20, 10)  # cgroup v2 came with it, and a seccomp filter that answers unknown calls as programs expect
# what an engine's info calls a limit that the kernel can enforce, and what it means when it cannot
_LIMITS = {
    "MemoryLimit": gettext_lazy("The engine supports no memory limits: a container could take all memory of the host."),
    "SwapLimit": gettext_lazy("The engine supports no swap limits: a container could use more memory than it may."),
    "PidsLimit": gettext_lazy("The engine supports no limit of processes: a fork bomb would take the host down."),
    "CpuCfsQuota": gettext_lazy("The engine supports no limit of processor time: a container could take all of it."),
}


@dataclass(frozen=True)
class Offer:
    """`walls` are names of `Wall`, and "standard" if no protection is missing; `complaints` are for operators."""

    walls: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def without(self, wall: str | None, complaints: list[str]) -> "Offer":
        """The offer with these complaints and without that wall, or without all of them."""
        walls = [name for name in self.walls if name != wall] if wall else []
        return Offer(walls, [*self.complaints, *complaints])


def inspect(info: dict[str, Any]) -> Offer:
    """What an engine offers by what it says of itself."""
    complaints = [*_version(info), *(str(text) for name, text in _LIMITS.items() if not info.get(name))]
    options = _security(info)
    if "seccomp" not in options:
        complaints.append(_("The engine or its kernel has no seccomp: nothing would keep a container from the kernel."))
    if "rootless" in options and str(info.get("CgroupVersion")) != "2":
        complaints.append(_("The engine is rootless without cgroup v2: none of the limits would hold."))
    if info.get("OSType") != "linux" or info.get("Architecture") not in ("x86_64", "amd64"):
        complaints.append(_("The host is not Linux on x86-64, for which images are built and system calls filtered."))
    walls = [] if complaints else [STANDARD]
    if conf().gvisor_runtime in (info.get("Runtimes") or {}):
        walls.append(Wall.GVISOR.value)
        if devices.passes_gvisor(info, conf().gvisor_runtime):
            walls.append(GVISOR_GPUS)
    if "userns" in options or "rootless" in options:
        walls.append(Wall.USERNS.value)
    return Offer(walls, complaints)


def _version(info: dict[str, Any]) -> list[str]:
    version = str(info.get("ServerVersion") or "")
    parts = version.split(".")
    numbers = tuple(int(part) for part in parts[:2] if part.isdigit())
    if len(numbers) == 2 and numbers >= LEAST_VERSION:
        return []
    least = ".".join(map(str, LEAST_VERSION))
    return [_("The engine %(version)s is too old: at least %(least)s.") % {"version": version or "?", "least": least}]


def _security(info: dict[str, Any]) -> set[str]:
    """Names of the security options: `name=seccomp,profile=default` or, from old engines, `seccomp`."""
    return {option.partition(",")[0].removeprefix("name=") for option in info.get("SecurityOptions") or ()}


def demanded(run_walls: list[str], *, gpus: int = 0) -> set[str]:
    """The walls that a host must offer to take such a run."""
    through_gvisor = {GVISOR_GPUS} if gpus and Wall.GVISOR in run_walls else set()
    return {STANDARD, *run_walls, *through_gvisor}
