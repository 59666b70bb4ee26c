"""`python -m tests.hostile.mutations`: takes one protection away at a time and shows which cases notice.

The same images and the same judgement as in the arena, driven by the sandbox's own worker in this process. Only here,
and only in the request to the engine, is anything weakened: the product has no switch for it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Config = dict[str, Any]


@dataclass(frozen=True)
class Mutation:
    """One protection, and what the request looks like without it."""

    name: str
    protection: str
    without: Callable[[Config], None]
    of_outputs: bool = False  # it changes the options of the output volume, not the container's


def _host(name: str, value: Any) -> Callable[[Config], None]:
    def without(config: Config) -> None:
        config["HostConfig"][name] = value

    return without


def _network(mode: str) -> Callable[[Config], None]:
    def without(config: Config) -> None:
        config["HostConfig"]["NetworkMode"] = mode
        config.pop("NetworkDisabled")  # with which the engine looks at no mode

    return without


def _without_host(*names: str) -> Callable[[Config], None]:
    def without(config: Config) -> None:
        for name in names:
            config["HostConfig"].pop(name)

    return without


def _security(unwanted: str, instead: list[str]) -> Callable[[Config], None]:
    def without(config: Config) -> None:
        kept = [option for option in config["HostConfig"]["SecurityOpt"] if not option.startswith(unwanted)]
        assert len(kept) == 1
        config["HostConfig"]["SecurityOpt"] = kept + instead

    return without


def _user(value: str | None) -> Callable[[Config], None]:
    def without(config: Config) -> None:
        config["User"] = value or ""

    return without


def _tmp(option: str, instead: str = "") -> Callable[[Config], None]:
    """Engines add noexec, nosuid and nodev of their own accord: what is taken away must be turned into its opposite."""

    def without(config: Config) -> None:
        options = config["HostConfig"]["Tmpfs"]["/tmp"].split(",")
        kept = [one for one in options if not one.startswith(option)]
        assert len(kept) == len(options) - 1
        config["HostConfig"]["Tmpfs"]["/tmp"] = ",".join([*kept, *([instead] if instead else [])])

    return without


def _outputs(option: str) -> Callable[[Config], None]:
    def without(volume: Config) -> None:
        options = volume["o"].split(",")
        kept = [one for one in options if not one.startswith(option)]
        assert len(kept) == len(options) - 1
        volume["o"] = ",".join(kept)

    return without


def _ulimit(name: str) -> Callable[[Config], None]:
    def without(config: Config) -> None:
        limits = config["HostConfig"]["Ulimits"]
        config["HostConfig"]["Ulimits"] = [limit for limit in limits if limit["Name"] != name]

    return without


def _mount(target: str, change: Callable[[Config], None]) -> Callable[[Config], None]:
    def without(config: Config) -> None:
        change(next(mount for mount in config["HostConfig"]["Mounts"] if mount["Target"] == target))

    return without


def _env(config: Config) -> None:
    config["Env"] = [item for item in config["Env"] if not item.startswith("NVIDIA_")]


MUTATIONS = [
    Mutation("network", "NetworkMode none, NetworkDisabled", _network("bridge")),
    Mutation("network-host", "NetworkMode none, NetworkDisabled (the host's instead)", _network("host")),
    Mutation("read-only-root", "ReadonlyRootfs", _host("ReadonlyRootfs", False)),
    Mutation("capabilities", "CapDrop ALL", _without_host("CapDrop")),
    Mutation("no-new-privileges", "no-new-privileges", _security("no-new-privileges", [])),
    Mutation("seccomp", "seccomp (none instead)", _security("seccomp", ["seccomp=unconfined"])),
    Mutation("seccomp-default", "our seccomp profile (the engine's instead)", _security("seccomp", [])),
    Mutation("user", "User (the image's instead)", _user(None)),
    Mutation("group", "User's group", _user("nobody")),
    Mutation("pids", "PidsLimit", _without_host("PidsLimit")),
    Mutation("memory", "Memory", _without_host("Memory", "MemorySwap")),
    Mutation("swap", "MemorySwap", _host("MemorySwap", -1)),
    Mutation("processors", "NanoCpus", _without_host("NanoCpus")),
    Mutation("ipc", "IpcMode private", _host("IpcMode", "host")),
    Mutation("shm-size", "ShmSize", _without_host("ShmSize")),
    Mutation("init", "Init", _host("Init", False)),
    Mutation("tmp-noexec", "/tmp noexec", _tmp("noexec", "exec")),
    Mutation("tmp-nosuid", "/tmp nosuid", _tmp("nosuid", "suid")),
    Mutation("tmp-nodev", "/tmp nodev", _tmp("nodev", "dev")),
    Mutation("tmp-size", "/tmp size", _tmp("size")),
    Mutation("tmp-inodes", "/tmp nr_inodes", _tmp("nr_inodes")),
    Mutation("open-files", "ulimit nofile", _ulimit("nofile")),
    Mutation("core", "ulimit core", _ulimit("core")),
    Mutation("file-size", "ulimit fsize", _ulimit("fsize")),
    Mutation("log", "LogConfig max-size", _host("LogConfig", {"Type": "json-file", "Config": {}})),
    Mutation("input-read-only", "/input read-only", _mount("/input", lambda mount: mount.update(ReadOnly=False))),
    Mutation("input-nocopy", "/input NoCopy", _mount("/input", lambda mount: mount.pop("VolumeOptions"))),
    Mutation("output-nocopy", "/output NoCopy", _mount("/output", lambda mount: mount.pop("VolumeOptions"))),
    Mutation("healthcheck", "Healthcheck NONE", lambda config: config.pop("Healthcheck")),
    Mutation("nvidia", "NVIDIA_VISIBLE_DEVICES void", _env),
    Mutation("hostname", "Hostname", lambda config: config.pop("Hostname")),
    Mutation("output-size", "/output size", _outputs("size"), of_outputs=True),
    Mutation("output-inodes", "/output nr_inodes", _outputs("nr_inodes"), of_outputs=True),
    Mutation("output-noexec", "/output noexec", _outputs("noexec"), of_outputs=True),
    Mutation("output-nosuid", "/output nosuid", _outputs("nosuid"), of_outputs=True),
    Mutation("output-nodev", "/output nodev", _outputs("nodev"), of_outputs=True),
]


@contextmanager
def mutated(mutation: Mutation) -> Iterator[None]:
    """In here, and in this process alone, requests lack that protection."""
    from sandbox import chambers, walls

    name = "output_volume" if mutation.of_outputs else "container"
    honest = getattr(walls, name)

    def weakened(*args: Any, **more: Any) -> Config:
        made = json.loads(json.dumps(honest(*args, **more)))
        mutation.without(made)
        return dict(made)

    setattr(walls, name, weakened)
    if mutation.of_outputs:
        chambers.close()  # those at hand have honest volumes
    try:
        yield
    finally:
        setattr(walls, name, honest)
        if mutation.of_outputs:
            chambers.close()


def run_all(tell: Callable[[str], None]) -> dict[str, list[str]]:
    """Mutation -> the cases that notice it. First all of these cases must hold with every protection in place."""
    from tests.hostile.ears import Ears
    from tests.hostile.inner import Bench

    with Ears() as ears, Bench(ears) as bench:
        unsound: set[str] = set()  # what fails anyway notices nothing
        claimed = {mutation.name: bench.cases_for(mutation.name) for mutation in MUTATIONS}
        for case in {case.id: case for cases in claimed.values() for case in cases}.values():
            if complaints := bench.complaints(case):  # a run that the platform fails here ends it all: NotJudged
                tell(f"{case.id} does not hold with every protection in place: {complaints}")
                unsound.add(case.id)
        tell("the cases were run with every protection in place")
        noticed = {}
        for mutation in MUTATIONS:
            with mutated(mutation):
                found = {case.id: _complaints(bench, case, tell) for case in claimed[mutation.name]}
            noticed[mutation.name] = [case for case, complaints in found.items() if complaints and case not in unsound]
            shown = "; ".join(f"{case} ({complaints[0][:70]})" for case, complaints in found.items() if complaints)
            tell(f"without {mutation.protection}: {shown or 'NOBODY NOTICES'}")
        return noticed


def _complaints(bench: Any, case: Any, tell: Callable[[str], None]) -> list[str]:
    """What the case complains of. That an engine refuses a request without a protection is nothing that it noticed."""
    from tests.hostile.inner import NotJudged

    try:
        return list(bench.complaints(case))
    except NotJudged as fault:
        tell(f"{case.id} could not be run: {fault}")
        return []


def main(tell: Callable[[str], None] = print) -> dict[str, list[str]]:
    """Sets a sandbox of its own up, and runs all."""
    with tempfile.TemporaryDirectory(prefix="anomed-mutations-") as folder:
        os.environ["ANOMED_VAR"] = folder
        os.environ.pop("DATABASE_URL", None)  # the operator's own is not for this
        os.environ["ANOMED_LOG_LEVEL"] = "ERROR"
        os.environ["DJANGO_SETTINGS_MODULE"] = "anomed_site.settings"
        Path(folder, "static").mkdir()
        import django

        django.setup()
        return run_all(tell)


def print_table(noticed: dict[str, list[str]]) -> int:
    """One line for each protection; returns how many nobody notices."""
    print(f"\n{'protection removed':46}  cases that notice it")
    for mutation in MUTATIONS:
        print(f"{mutation.protection:46}  {', '.join(noticed[mutation.name]) or 'NOBODY'}")
    unnoticed = sum(not cases for cases in noticed.values())
    print(f"{len(noticed) - unnoticed} of {len(noticed)} removals are noticed")
    return unnoticed


if __name__ == "__main__":
    results = main()
    if sys.argv[1:2] == ["--save"]:
        Path(sys.argv[2]).write_text(json.dumps({"mutations": results}))
    sys.exit(1 if print_table(results) else 0)
