"""A host's self-test: one tiny container of our own under all the options that a stranger's gets.

An engine may say that it has a protection, and still drop an option in silence, or have a runtime in its list that does
not start. So the options are read back from the engine, and a probe inside tries what must not work.
"""

import uuid
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from sandbox import holder, walls
from sandbox.conf import conf
from sandbox.connection import EngineFault, Unreachable
from sandbox.engine import Engine, Trial
from sandbox.limits import Limits
from sandbox.offers import Offer, Wall
from sandbox.workers import worker_name

SECONDS = 30  # the probe ends at once; this is how long a busy host may take to start it
_LIMITS = Limits(seconds=SECONDS, memory_mb=64, output_mb=1, pids=64)
_OPEN = {
    holder.PRIVILEGES: gettext_lazy("A program could gain privileges: no-new-privileges is not in force."),
    holder.SOCKETS: gettext_lazy("A forbidden system call works: the seccomp profile is not in force."),
    holder.ROOT: gettext_lazy("Containers run as root: the user of the options is not in force."),
    holder.CAPABILITIES: gettext_lazy("Containers have capabilities: dropping them is not in force."),
}


def confirm(engine: Engine, offer: Offer) -> Offer:
    """The offer without what does not stand the test. Raises EngineFault if the engine cannot be asked now.

    One that refuses the container, or cannot start it, lacks the standard protections: this is no passing fault.
    """
    holder_id = uuid.uuid4().hex[:16]
    try:
        complaints = _tried(engine, holder_id, [])
        if complaints:
            return offer.without(None, complaints)
        if Wall.GVISOR in offer.walls and (complaints := _tried(engine, f"{holder_id}g", [Wall.GVISOR.value])):
            return offer.without(Wall.GVISOR, complaints)
        return offer
    finally:
        for used in (holder_id, f"{holder_id}g"):
            engine.remove_holder(used)


def _tried(engine: Engine, holder_id: str, demanded: list[str]) -> list[str]:
    try:
        [chamber] = engine.prepare(holder_id, _LIMITS.output_mb, worker_name(), 1)
        config = walls.container(
            image_id=engine.holder_image(),
            step="self-test",
            limits=_LIMITS,
            gpus=[],
            inputs=chamber.inputs,
            outputs=chamber.outputs,
            hosts=chamber.hosts,
            conf=conf(),
            demanded=demanded,
        )
        trial = engine.try_out({**config, "Cmd": [holder.PROBE_PROGRAM]}, chamber, SECONDS)
    except Unreachable:
        raise
    except EngineFault as fault:
        engine.forget_holder()
        where = _("gVisor does not work on this engine:") if demanded else _("The engine cannot run the self-test:")
        return [f"{where} {fault}"]
    return findings(config, trial, demanded)


def findings(config: dict[str, Any], trial: Trial, demanded: list[str]) -> list[str]:
    """What is wrong by the engine's warnings, the options as it keeps them, and what the probe found open."""
    found = [_("The engine warns: %(warning)s") % {"warning": warning} for warning in trial.warnings]
    found += [_("The engine drops the option %(name)s.") % {"name": name} for name in dropped(config, trial.seen)]
    code = trial.exit_code
    if code is None or code >= 2 * holder.OWN_KERNEL:
        return [*found, _("The self-test did not end as it should (exit status %(code)s).") % {"code": code}]
    if Wall.GVISOR in demanded:  # whose own kernel answers system calls: what it lets pass says nothing
        return found if code & holder.OWN_KERNEL else [*found, _("The runtime for gVisor is something else.")]
    return found + [str(text) for bit, text in _OPEN.items() if code & bit]


def dropped(config: dict[str, Any], seen: dict[str, Any]) -> list[str]:
    """Names of the options that the engine does not keep as they were asked for."""
    names = [name for name in ("User", "Healthcheck") if not _kept(config[name], seen["Config"].get(name))]
    options = seen["HostConfig"]
    return names + [name for name, asked in config["HostConfig"].items() if not _kept(asked, options.get(name))]


def _kept(asked: Any, got: Any) -> bool:
    """Whether all of it is there; an engine may add fields, and says nothing instead of an empty list or a false."""
    if isinstance(asked, dict):
        return isinstance(got, dict) and all(_kept(value, got.get(name)) for name, value in asked.items())
    if isinstance(asked, list):
        return all(any(_kept(value, other) for other in got or ()) for value in asked)
    return bool(asked == got) or not (asked or got)
