"""What the `nvidia-smi` of a host says about its GPUs, and whether it makes sense."""

import re
from dataclasses import dataclass

# one program, so that both lists are of the same moment; the line of `=` stands between them. It goes on after status
# 14, which says that a card's ROM is damaged, and no more
PROGRAM = (
    'smi() { nvidia-smi "$@" || { code=$?; [ $code = 14 ] || exit $code; }; }; '
    "smi --query-gpu=uuid,memory.total,mig.mode.current,name --format=csv,noheader,nounits; echo =; smi -L"
)
# exit statuses of `nvidia-smi` which say that it could not speak with the driver or with a GPU
TROUBLES = frozenset({6, 8, 9, 10, 12, 15, 255})
MAX_BYTES = 64 << 10
MAX_DEVICES = 256  # 16 GPUs of 7 slices are 112
SLICE_MB = 1000  # per "gb" of a profile's name: a slice called 5gb has 4864 MiB, which are 5100 million bytes

_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_GPU = rf"GPU-{_UUID}"
_MIG = rf"MIG-(?:{_UUID}|{_GPU}/\d{{1,3}}/\d{{1,3}})"  # the latter: drivers before 470
_NAME = r"[\x20-\x7e]{1,80}"
_QUERIED = re.compile(rf"({_GPU}), (\d{{1,8}}|\[N/A\]), (Enabled|Disabled|\[N/A\]), ({_NAME})")
_LISTED = re.compile(rf"GPU \d{{1,3}}: {_NAME} \(UUID: ({_GPU})\)")
_PROFILE = r"(?:\d{1,2}c\.)?\d{1,2}g\.(\d{1,4})gb(?:[+-][a-z.]{1,10})?"
_SLICE = re.compile(rf"\s+MIG ({_PROFILE})\s+Device\s+\d{{1,3}}: \(UUID: ({_MIG})\)")
_WARNING = re.compile(r"WARNING: [\x20-\x7e]*")  # of a card whose ROM has a damaged part, which does no harm


class Nonsense(Exception):
    """Not what `nvidia-smi` writes."""


@dataclass(frozen=True)
class Device:
    """A GPU, or a slice of one, that a container can be given: `uuid` is what the engine is asked for."""

    uuid: str
    name: str
    memory_mb: int  # 0 where the driver does not know: the GPU shares the memory of the machine


def devices(output: bytes) -> list[Device]:
    """What `PROGRAM` found. A GPU that is split, or is meant to be, offers only its slices. Raises Nonsense."""
    queried, listed = _halves(output)
    whole: dict[str, Device] = {}
    split: set[str] = set()
    for line in queried:
        uuid, memory, mode, name = _matched(_QUERIED, line).groups()
        whole[uuid] = Device(uuid, name.strip(), int(memory) if memory.isdigit() else 0)
        if mode == "Enabled":
            split.add(uuid)
    slices: list[Device] = []
    parents: list[str] = []
    for line in listed:
        if not line.startswith(" "):
            parents.append(_matched(_LISTED, line)[1])
            continue
        profile, size, uuid = _matched(_SLICE, line).groups()
        if not parents or parents[-1] not in whole:
            raise Nonsense(f"a slice of no GPU: {line.strip()}")
        split.add(parents[-1])
        slices.append(Device(uuid, f"{whole[parents[-1]].name} {profile}"[:100], int(size) * SLICE_MB))
    if sorted(parents) != sorted(whole) or len(queried) != len(whole):
        raise Nonsense("the two lists name different GPUs")
    found = [*(device for uuid, device in whole.items() if uuid not in split), *slices]
    if len({device.uuid for device in found}) != len(found):
        raise Nonsense("it names a slice twice")
    return found


def _halves(output: bytes) -> tuple[list[str], list[str]]:
    try:
        lines = output.decode("ascii").splitlines()
    except UnicodeDecodeError as error:
        raise Nonsense("it is not plain text") from error
    lines = [line for line in lines if line.strip() and not _WARNING.fullmatch(line)]
    if lines.count("=") != 1 or len(lines) > 2 * MAX_DEVICES:
        raise Nonsense("it is not two lists")
    middle = lines.index("=")
    return lines[:middle], lines[middle + 1 :]


def _matched(pattern: re.Pattern[str], line: str) -> re.Match[str]:
    match = pattern.fullmatch(line)
    if match is None:
        raise Nonsense(f"the line {line[:100]!a}")
    return match
