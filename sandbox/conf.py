"""The sandbox's settings with their defaults: `settings.SANDBOX` may override any of them by name."""

from dataclasses import dataclass
from pathlib import Path

from django.conf import settings


@dataclass(frozen=True)
class Conf:
    """Seconds, megabytes (2**20 bytes) and counts, as the names say."""

    walls: tuple[str, ...] = ()  # demanded of every host, beside what a challenge demands: see sandbox/walls.py
    gvisor_runtime: str = "runsc"  # what engines call it among their runtimes
    seccomp: str = str(Path(__file__).with_name("seccomp.json"))
    lease_seconds: float = 30
    renew_seconds: float = 5  # a sixth of the lease: five renewals may fail before another worker takes over
    work_seconds: float = 60  # then a worker gives its process back to the cluster, which may want to stop
    retry_seconds: float = 5  # a platform fault is tried again after 1, 4, 16 times this
    max_faults: int = 3
    max_lost_leases: int = 20  # a run whose workers or engines die again and again must end too
    spare_seconds: float = 600  # idle chambers are thrown away after this, so that the reaper may trust their age
    chambers: int = 8  # kept by one holder: starting one costs as much as starting a run's container
    engine_timeout: int = 60  # any call that waits longer for the engine's next byte is a fault of the engine
    heartbeat_timeout: int = (
        5  # for questions that an engine answers at once if it is well: one that is not holds up all others
    )
    overdue_seconds: float = 600  # a host that was not heard of for ten of the reaper's rounds takes no runs
    engine_patience: float = 30  # an engine that hung up while a container runs may be back with it
    load_timeout: int = 900
    placement_seconds: float = 60  # to wait for room in a fleet; then the run waits in our own queue again
    log_bytes: int = 1 << 20
    tmp_mb: int = 64
    inodes: int = 1000
    gpu_hosts: tuple[str, ...] = ()  # names of hosts that should have GPUs: they complain when they show none
    gpu_probe_image: str = ""  # name of the base image that looks for GPUs, with glibc; else the smallest one
    gateway_image: str = ""  # name of the base image, with python and numpy, that talks to web servers; as above
    gateway_memory_mb: int = 1024
    max_image_bytes: int = 20 * 10**9  # unpacked
    max_archive_bytes: int = 10 * 10**9  # as uploaded
    disk_reserve_bytes: int = 5 * 10**9  # no image is unpacked into the last of the disk: runs and the database go on
    max_layers: int = 127
    max_members: int = 2000  # files of an archive: 127 layers in the oldest layout are about 400
    max_entries: int = 1_000_000  # files in all layers together
    check_seconds: int = 600
    check_memory_mb: int = 1024
    read_seconds: int = 120
    read_memory_mb: int = 2048
    keep_logs_days: int = 90  # after the end of the run; 0: for ever. So for all that is kept
    keep_results_days: int = 7  # whatever a later step reads stays longer
    keep_images_days: int = 90  # after its last run, and after the last entry with it is over
    alarm_disk_low_percent: float = 15  # free space of the private folder's disk, below which operators are told
    alarm_disk_full_percent: float = 5
    alarm_host_minutes: float = 5  # without an answer
    alarm_wait_minutes: float = 10  # of due runs, though slots are free and no worker takes up any run


def conf() -> Conf:
    """The settings in force now."""
    return Conf(**getattr(settings, "SANDBOX", {}))


def private_root() -> Path:
    """Where private files live. Nothing below is ever served."""
    return Path(settings.PRIVATE_ROOT)


def scratch_root() -> Path:
    """One folder per attempt under way; whatever has no such attempt is left over."""
    return private_root() / "scratch"


def blob_root() -> Path:
    """Layers and image configurations, named by the SHA-256 of their content."""
    return private_root() / "blobs" / "sha256"


def preload() -> list[str]:
    """Modules that isolated children find already imported."""
    return list(getattr(settings, "ISOLATION_PRELOAD", []))


def installation() -> str:
    """Names this installation on engines that it may share with others."""
    return str(settings.INSTALLATION)
