"""Which GPUs the hosts have. A host is only a Docker Engine, so it is asked through a container of ours.

That takes about a second, and GPUs come and go seldom: each host is asked every five minutes, and besides when its
engine was away or has changed, and when a run with GPUs has come to nothing.
"""

import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import structlog
from django.db import transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone
from django.utils.translation import gettext as _

from sandbox import devices, nvidia, walls
from sandbox.base_images import base_image
from sandbox.conf import conf
from sandbox.engine import BORN, WORKER, Engine, EngineFault, NotThere, Unreachable
from sandbox.hosts import engine_of
from sandbox.models import Gpu, Host, Image, Run
from sandbox.nvidia import Device
from sandbox.reasons import Rejected
from sandbox.supply import supply
from sandbox.workers import worker_name

log = structlog.get_logger(__name__)

MINUTES = 5  # between two looks at a host with which all is well
PROBE_SECONDS = 60  # eight cards that nothing keeps awake take half of it
# the engine has no driver for GPUs, or a driver that knows none
_NO_TOOLKIT = re.compile("could not select device driver|unresolvable CDI devices|failed to discover GPU vendor")
_OF_GPUS = re.compile("nvidia|cdi|error running (?:prestart )?hook", re.IGNORECASE)  # other faults are the engine's own
# what an engine says of itself and its GPUs depend on
_FACTS = ("ServerVersion", "KernelVersion", "Runtimes", "DefaultRuntime", "CDISpecDirs", "DiscoveredDevices")


class Unusable(Exception):
    """The host's GPUs, if it has any, cannot be given to runs: a sentence for operators says why."""


class Unknown(Unusable):
    """They may be well: it is the look at them that fails, by the way in which this server is set up."""


def find(host: Host) -> list[Device]:
    """Asks the host's engine for its GPUs. Raises Unusable, or EngineFault when the engine does something else."""
    code, output = _probe(host, _image())
    if code:
        text = _("The GPUs do not answer: `nvidia-smi` ended with status %(code)d and said: %(said)s")
        said = ascii(output[-200:].decode("ascii", "replace").strip())[1:-1]
        kind = Unusable if code in nvidia.TROUBLES else Unknown
        raise kind(text % {"code": code, "said": said})
    try:
        return nvidia.devices(output)
    except nvidia.Nonsense as nonsense:
        raise Unusable(_("The answer of `nvidia-smi` makes no sense: %(what)s.") % {"what": nonsense}) from nonsense


def look(host: Host) -> str:
    """Asks for the host's GPUs and notes what it has; returns what is wrong with them, or nothing.

    Raises EngineFault, without a change, when the engine has other troubles.
    """
    try:
        found = find(host)
    except Unusable as unusable:
        log.info("gpus.unusable", host=host.name, why=str(unusable))
        if not _should_have_gpus(host):
            _note_complaint(host, "")
            return ""
        return _complain(host, str(unusable), lost=[] if isinstance(unusable, Unknown) else _note(host, []))
    twice = _note_elsewhere(host, found)
    lost = _note(host, found)
    if lost or host.gpus.exclude(lost_at=None).exists():
        return _complain(host, _missing(host), lost=lost)
    if twice or (not found and _should_have_gpus(host)):
        return _complain(host, twice or _("The host should have GPUs, but shows none."), lost=[])
    _note_complaint(host, "")
    return ""


def look_at_all(only: int | None = None) -> None:
    """Looks at every host that answers, or only at that one. One that is to be emptied is not asked, and stays so."""
    hosts = Host.objects.filter(state__in=(Host.State.ACTIVE, Host.State.CORDONED))
    hosts = hosts.engines().exclude(avoid_until__gt=timezone.now())
    for host in hosts if only is None else hosts.filter(pk=only):
        try_to_look(host)


def try_to_look(host: Host) -> None:
    """As `look`; an engine that has other troubles is for others to complain about."""
    try:
        look(host)
    except EngineFault as fault:
        log.warning("gpus.not_asked", host=host.name, fault=str(fault))


def is_news(host: Host, info: dict[str, Any]) -> bool:
    """Whether the host's GPUs should be looked at now: its engine is new, was away, or is not what it was."""
    if host.heartbeat is None or host.avoid_until is not None:
        return True
    return any(host.engine.get(name) != info.get(name) for name in _FACTS)


def forget_lost(host: Host) -> int:
    """Takes GPUs that are missing, and that no run holds, off the books: they will not come back."""
    return host.gpus.filter(run=None).exclude(lost_at=None).delete()[0]


@contextmanager
def needed(run: Run) -> Iterator[None]:
    """Raises EngineFault if the run comes to nothing here while its host has lost one of its GPUs: it is no fault of
    the image then. The host is looked at, so that nobody gets that GPU next.
    """
    try:
        yield
    except Unreachable:
        raise
    except (Rejected, EngineFault) as error:
        lost = _lost_by(run) if run.gpus and run.host else []
        if lost:
            # a refusal is not repeated: it may quote the image
            said = f" ({error})" if isinstance(error, EngineFault) else ""
            raise EngineFault(f"the host has lost GPUs of this run: {', '.join(lost)}{said}") from error
        raise


def _lost_by(run: Run) -> list[str]:
    assert run.host is not None
    try_to_look(run.host)
    return list(run.leased_gpus.exclude(lost_at=None).values_list("uuid", flat=True))


def label(uuid: str) -> str:
    """The name of the label of a container that has this GPU; its value is empty."""
    return f"anomed.gpu.{uuid}"


def evict(engine: Engine, uuids: list[str]) -> None:
    """Removes containers of ours that still have one of these GPUs, for the run that has leased them now.

    The engine would give a GPU to any number of containers. One whose worker could not stop it may be left.
    """
    for uuid in uuids:
        left = [container["Id"] for container in engine.containers(**{label(uuid): ""})]
        if left:
            log.warning("gpus.evicted", uuid=uuid, containers=len(left))
            engine.remove(left, ())


# The probe ------------------------------------------------------------------------------------------------------------


def _image() -> Image:
    """The base image that looks for GPUs."""
    image = base_image(conf().gpu_probe_image)
    if image is None:
        raise Unknown(_("No base image is there to look for GPUs with: register one with `manage.py base_image_add`."))
    return image


def _probe(host: Host, image: Image) -> tuple[int, bytes]:
    """Runs the program that lists GPUs; returns its exit status and the end of what it said."""
    engine = engine_of(host)
    config = walls.gpu_probe(image_id=image.image_id, cdi=devices.by_cdi(engine.info()), conf=conf())
    labels = {WORKER: worker_name(), BORN: str(int(time.time()))}  # the reaper removes it when this process dies
    name = f"gpus-{uuid4().hex[:16]}"
    container = ""
    try:
        try:
            container = engine.create(config, labels, name)
        except NotThere:
            supply(host, image)
            container = engine.create(config, labels, name)
        _start(engine, container)
        if not engine.wait(container, PROBE_SECONDS):
            text = _("The GPUs do not answer: `nvidia-smi` was still running after %(seconds)d seconds.")
            raise Unusable(text % {"seconds": PROBE_SECONDS})
        with tempfile.TemporaryDirectory() as folder:
            engine.log(container, Path(folder) / "log", nvidia.MAX_BYTES)
            return engine.ending(container).exit_code, (Path(folder) / "log").read_bytes()
    except Rejected as rejected:
        raise EngineFault(f"the image that looks for GPUs: {rejected.detail}") from rejected
    finally:
        if container:
            engine.remove([container], ())


def _start(engine: Engine, container: str) -> None:
    try:
        engine.start(container)
    except (Unreachable, NotThere):
        raise
    except EngineFault as fault:
        if _NO_TOOLKIT.search(str(fault)):
            raise Unusable(
                _(
                    "The engine cannot give GPUs to containers: the NVIDIA Container Toolkit is missing or not "
                    "registered. Install it, run `nvidia-ctk runtime configure`, then restart Docker."
                )
            ) from fault
        if not _OF_GPUS.search(str(fault)):
            raise
        # what happened comes last in what an engine says
        text = _("The engine cannot give GPUs to containers. It says: ...%(fault)s")
        raise Unusable(text % {"fault": ascii(str(fault)[-200:])[1:-1]}) from fault


# The books ------------------------------------------------------------------------------------------------------------


def _should_have_gpus(host: Host) -> bool:
    return host.name in conf().gpu_hosts or host.gpus.exists()


@transaction.atomic
def _note(host: Host, found: list[Device]) -> list[str]:
    """Writes down what the host has now; returns the UUIDs of GPUs that have just got lost."""
    for device in found:
        fields = {"host": host, "name": device.name, "memory_mb": device.memory_mb, "lost_at": None}
        row = Gpu.objects.filter(uuid=device.uuid)
        # one that is right already is not touched: a claim may just be locking several rows, in its own order
        if row.exclude(host=host).exists() or row.filter(**fields).exists():
            continue
        Gpu.objects.update_or_create(uuid=device.uuid, defaults=fields)
    missing = host.gpus.filter(lost_at=None).exclude(uuid__in=[device.uuid for device in found])
    lost = list(missing.values_list("uuid", flat=True))
    Gpu.objects.filter(uuid__in=lost).update(lost_at=timezone.now())
    return lost


def _note_elsewhere(host: Host, found: list[Device]) -> str:
    """Moves cards that another host has lost to this one; what is wrong if another host has one of them still."""
    elsewhere = Gpu.objects.filter(uuid__in=[device.uuid for device in found]).exclude(host=host)
    elsewhere.filter(run=None).exclude(lost_at=None).update(host=host)
    other = elsewhere.select_related("host").first()
    if other is None:
        return ""
    text = _("The GPU %(uuid)s also belongs to the host %(other)s: are both the same machine? One row is enough.")
    return text % {"uuid": other.uuid, "other": other.host.name}


def _missing(host: Host) -> str:
    uuids = host.gpus.exclude(lost_at=None).values_list("uuid", flat=True)
    text = _(
        "Missing GPUs: %(uuids)s. No run gets them. Look at `nvidia-smi` and the kernel's log on that machine; often "
        "only a restart brings a GPU back. If it is gone for good: `manage.py host_gpus %(name)s --forget`."
    )
    return text % {"uuids": ", ".join(uuids), "name": host.name}


@transaction.atomic
def _complain(host: Host, sentence: str, *, lost: list[str]) -> str:
    """Notes what is wrong, and drains a host that has just lost GPUs unless it is the only one that takes runs."""
    if lost:
        log.error("gpus.lost", host=host.name, uuids=lost, sentence=sentence)
        others = Host.objects.engines().filter(state=Host.State.ACTIVE).exclude(pk=OuterRef("pk"))
        active = Host.objects.filter(pk=host.pk, state=Host.State.ACTIVE)
        if active.filter(Exists(others)).update(state=Host.State.DRAINING):
            log.warning("host.drains", host=host.name)
    _note_complaint(host, sentence)
    return sentence


def _note_complaint(host: Host, sentence: str) -> None:
    """Notes it where the next look finds it, and among all else that is wrong with the host."""
    host.refresh_from_db(fields=["complaint", "gpu_complaint"])
    if sentence == host.gpu_complaint:
        return
    if sentence:
        log.warning("gpus.complaint", host=host.name, sentence=sentence)
    others = [line for line in host.complaint.splitlines() if line != host.gpu_complaint]
    complaint = "\n".join([*others, *([sentence] if sentence else [])])
    Host.objects.filter(pk=host.pk).update(gpu_complaint=sentence, complaint=complaint)
