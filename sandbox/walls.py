"""The options that close a container. SANDBOX 1 says what each of them holds, and what happened without it."""

import re
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from sandbox import devices, nvidia
from sandbox.conf import Conf
from sandbox.limits import Limits
from sandbox.offers import Wall

INPUT = "/input"
OUTPUT = "/output"
HOSTS = "/etc/hosts"
PERSISTENT = "/persistent_data"
GATEWAY = "gateway"  # the folder in the gateway's /input that holds its program
_GATEWAY_PROGRAM = f"import sys; sys.path.insert(0, '{INPUT}'); from {GATEWAY}.main import main; main()"
CHALLENGE_HOST, ATTACK_TARGET_HOST = "127.0.0.1:8001", "127.0.0.1:8002"  # where it listens, see sandbox/gateway
# What the published template's nginx writes to. An empty folder of sites also hides Debian's welcome page.
SERVER_FOLDERS = ("/tmp", "/run", "/var/lib/nginx", "/var/log/nginx", "/etc/nginx/sites-enabled")  # noqa: S108
NOBODY = "65534:65534"  # with the group: otherwise the image's own /etc/group would add more
_NUMBERED = re.compile(r"([0-9]{1,9})(?::([0-9]{1,9}))?")  # user, perhaps with group
MEGABYTE = 1 << 20
# gVisor's kernel is a process in the container's own cgroup, where its threads and its memory count. Measured with
# release 20221219 on ptrace: 57 threads and 14 MB for one idle program, up to 10 threads for each further process. At
# its limit of threads that kernel falls, and the whole container with it.
GVISOR_THREADS, GVISOR_THREADS_EACH = 128, 12
GVISOR_MEMORY_MB = 32
OUTPUT_SLACK_MB = 4  # /output is this much larger than allowed, so that a full one can be told from one just filled


@cache
def seccomp_profile(path: str) -> str:
    """The text of our own profile: the engine's default leaves io_uring and AF_VSOCK open."""
    return Path(path).read_text()


def container(
    *,
    image_id: str,
    step: str,
    limits: Limits,
    gpus: list[str],
    inputs: str,
    outputs: str,
    hosts: str,
    conf: Conf,
    demanded: Collection[str] = (),
    cdi: bool = False,
    covered: Iterable[str] = (),
) -> dict[str, Any]:
    """The body of a create request for one step of a stranger's image.

    `inputs` and `outputs` are names of volumes, `hosts` is the engine's own file with nothing in it but `localhost`,
    `gpus` are UUIDs leased to this run, `demanded` are names of walls beyond the standard ones, `cdi` says how the
    engine knows GPUs. At the paths `covered` the image declares volumes, which the engine would make writable without
    bound: there it gets something like /tmp instead.
    """
    env = [f"ANOMED_STEP={step}", f"ANOMED_INPUT={INPUT}", f"ANOMED_OUTPUT={OUTPUT}"]
    return {
        "Image": image_id,
        "Hostname": "anomed",
        # The runtime makes the network of nothing but a loopback. The engine, which needs two processes of its own and
        # a third of the start's time for that, then does nothing at all: it gives no /etc/hosts either.
        "NetworkDisabled": True,
        "User": NOBODY,
        "Env": [*env, "HOME=/tmp", *devices.environment(gpus)],
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            **_strangers(limits, gpus, conf, cdi=cdi),
            **_second_wall(demanded, limits, conf),
            "Tmpfs": _tmpfs(conf, "/tmp", *covered),  # noqa: S108
            "Mounts": [_mount(inputs, INPUT, read_only=True), _mount(outputs, OUTPUT), _file(hosts, HOSTS)],
        },
    }


def server(
    *, image_id: str, user: str, limits: Limits, gpus: list[str], persistent: str, conf: Conf, cdi: bool = False
) -> dict[str, Any]:
    """The body of a create request for a stranger's web server, which a gateway of ours will talk to.

    It is as closed as any, but that it keeps the image's own user: published images begin as root, hand their files to
    the user of a web server, and become that user. `persistent` is the volume that it has at /persistent_data, `user`
    is what the image says of its user.
    """
    return {
        "Image": image_id,
        "Hostname": "anomed",
        "Env": [
            f"CHALLENGE_HOST={CHALLENGE_HOST}",
            f"ATTACK_TARGET_HOST={ATTACK_TARGET_HOST}",
            "GUNICORN_CMD_ARGS=--timeout=0",  # else a fit of more than 30 seconds is killed
            *(f"{name}=" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")),
            "HOME=/tmp",
            *devices.environment(gpus),
        ],
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            **_strangers(limits, gpus, conf, cdi=cdi),
            "CapAdd": ["CHOWN", "SETGID", "SETUID"],
            "Tmpfs": _tmpfs(conf, *SERVER_FOLDERS, user=user),
            "Mounts": [_mount(persistent, PERSISTENT)],
        },
    }


def gateway(*, image_id: str, server: str, inputs: str, outputs: str, limits: Limits, conf: Conf) -> dict[str, Any]:
    """The body of a create request for our gateway, which shares nothing with the container `server` but its loopback.

    It reads what a stranger sends: so it is closed like the stranger's own container.
    """
    memory = conf.gateway_memory_mb + limits.output_mb + OUTPUT_SLACK_MB  # what it writes to /output counts as its own
    own = Limits(memory_mb=memory, pids=256, output_mb=limits.output_mb)
    return {
        "Image": image_id,
        "User": NOBODY,
        "Entrypoint": ["python", "-I", "-c", _GATEWAY_PROGRAM],
        "Env": ["HOME=/tmp"],
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            **_strangers(own, [], conf),
            "NetworkMode": f"container:{server}",
            "Tmpfs": _tmpfs(conf, "/tmp"),  # noqa: S108
            "Mounts": [_mount(inputs, INPUT, read_only=True), _mount(outputs, OUTPUT)],
        },
    }


def holder(*, image: str, program: str, volumes: tuple[str, ...], labels: dict[str, str], conf: Conf) -> dict[str, Any]:
    """The body of a create request for the trusted holder of chambers. It is as closed as a stranger's container.

    `volumes` are inputs and outputs in turn.
    """
    paths = [path(number) for number in range(len(volumes) // 2) for path in (held_input, held_output)]
    return {
        "Image": image,
        "Cmd": [program],
        "User": NOBODY,
        "Labels": labels,
        "HostConfig": {
            **_closed(conf),
            "PidsLimit": 16,
            "Memory": 16 * MEGABYTE,
            "MemorySwap": 16 * MEGABYTE,
            "LogConfig": {"Type": "none", "Config": {}},
            "Mounts": [_mount(volume, path) for volume, path in zip(volumes, paths, strict=True)],
        },
    }


def gpu_probe(*, image_id: str, cdi: bool, conf: Conf) -> dict[str, Any]:
    """The body of a create request for a base image of ours that looks at all GPUs. Closed like the others."""
    return {
        "Image": image_id,
        "User": NOBODY,
        "Entrypoint": ["/bin/sh", "-c", nvidia.PROGRAM],
        "Env": devices.environment([devices.ALL], compute=False),
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            **_closed(conf),
            "PidsLimit": 64,
            "Memory": 256 * MEGABYTE,
            "MemorySwap": 256 * MEGABYTE,
            "Init": True,
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "1"}},
            "DeviceRequests": devices.requests([devices.ALL], cdi=cdi, compute=False),
        },
    }


def held_input(number: int) -> str:
    """Where a holder has the inputs of its chamber of that number."""
    return f"/{number}{INPUT}"


def held_output(number: int) -> str:
    """Where a holder has the outputs of its chamber of that number."""
    return f"/{number}{OUTPUT}"


def output_volume(output_mb: int, inodes: int) -> dict[str, str]:
    """Driver options of a tmpfs volume that can hold that many megabytes."""
    size = output_mb + OUTPUT_SLACK_MB
    # not sticky: whoever the image's user is, it may replace what was put back for it
    options = f"size={size}m,nr_inodes={inodes},mode=777,noexec,nosuid,nodev"
    return {"type": "tmpfs", "device": "tmpfs", "o": options}


def _closed(conf: Conf) -> dict[str, Any]:
    return {
        "NetworkMode": "none",
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true", "seccomp=" + seccomp_profile(conf.seccomp)],
        "IpcMode": "private",
        "RestartPolicy": {"Name": "no"},
    }


def _second_wall(demanded: Collection[str], limits: Limits, conf: Conf) -> dict[str, Any]:
    """gVisor is a runtime of the engine; remapped users are a property of the whole engine, and need no option."""
    if Wall.GVISOR not in demanded:
        return {}
    memory = (limits.memory_mb + GVISOR_MEMORY_MB) * MEGABYTE
    return {
        "Runtime": conf.gvisor_runtime,
        "PidsLimit": GVISOR_THREADS + GVISOR_THREADS_EACH * limits.pids,
        "Memory": memory,
        "MemorySwap": memory,
    }


def _strangers(limits: Limits, gpus: list[str], conf: Conf, *, cdi: bool = False) -> dict[str, Any]:
    """What every container has that runs a stranger's code or reads what it sends."""
    return {
        **_closed(conf),
        "PidsLimit": limits.pids,
        "Memory": limits.memory_mb * MEGABYTE,
        "MemorySwap": limits.memory_mb * MEGABYTE,
        "NanoCpus": int(limits.cpus * 10**9),
        "ShmSize": 16 * MEGABYTE,
        "Init": True,
        "Ulimits": _ulimits(limits),
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}},
        "DeviceRequests": devices.requests(gpus, cdi=cdi),
    }


def _tmpfs(conf: Conf, *folders: str, user: str = "") -> dict[str, str]:
    """Folders that may be written, and are gone with the container.

    The runtime gives each the mode that the image's folder has there, whatever we say: so where that is closed to
    others it must belong to the user, which is possible for a number.
    """
    options = f"rw,noexec,nosuid,nodev,size={conf.tmp_mb}m,nr_inodes=10000,mode=1777"
    if number := _NUMBERED.fullmatch(user):
        options += f",uid={number[1]},gid={number[2] or 0}"
    return dict.fromkeys(folders, options)


def _ulimits(limits: Limits) -> list[dict[str, Any]]:
    file_size = max(1024, limits.output_mb) * MEGABYTE
    return [
        {"Name": name, "Soft": value, "Hard": value}
        for name, value in (("nofile", 1024), ("core", 0), ("fsize", file_size))
    ]


def _mount(volume: str, target: str, read_only: bool = False) -> dict[str, Any]:
    # NoCopy: what the image itself has at that path must not appear in the volume
    return {
        "Type": "volume",
        "Source": volume,
        "Target": target,
        "ReadOnly": read_only,
        "VolumeOptions": {"NoCopy": True},
    }


def _file(source: str, target: str) -> dict[str, Any]:
    return {"Type": "bind", "Source": source, "Target": target, "ReadOnly": True}
