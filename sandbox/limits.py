"""The resources of one run, as a challenge states them and as task.json repeats them."""

from dataclasses import asdict, dataclass
from typing import Any, Self

from django.utils.translation import gettext as _


@dataclass(frozen=True)
class Limits:
    """`seconds` of wall time, `memory_mb` without swap, `cpus` may be a fraction, `output_mb` of files in /output."""

    seconds: int = 600
    memory_mb: int = 4096
    cpus: float = 1
    gpus: int = 0
    output_mb: int = 512
    pids: int = 256
    gpu_memory_mb: int = 0

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Reads stored limits; absent ones take the default. Raises ValueError with a sentence for anything else."""
        unknown = set(data) - set(cls.__dataclass_fields__)
        if unknown:
            raise ValueError(_("There is no limit named %(names)s.") % {"names": ", ".join(sorted(unknown))})
        for name, value in data.items():
            least = 0 if name in ("gpus", "gpu_memory_mb") else 1 if name != "cpus" else 0.1
            right_type = isinstance(value, int | float if name == "cpus" else int) and not isinstance(value, bool)
            if not right_type or value < least:
                raise ValueError(_("The limit %(name)s must be at least %(least)s.") % {"name": name, "least": least})
        return cls(**data)

    def to_json(self) -> dict[str, Any]:
        """The form in which a run stores its limits."""
        return asdict(self)
