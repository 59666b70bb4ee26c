"""Taking over the container of a worker that died: the engine has let it run on, so its work need not be done again."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from sandbox.chambers import remove_run
from sandbox.engine import ATTEMPT, OPTIONS, RUN, WORKER, Chamber, Engine, EngineFault, Unreachable, labels_of
from sandbox.models import Run
from sandbox.workers import worker_is_gone

log = structlog.get_logger(__name__)

KILLED = 128 + 9  # exit status


@dataclass(frozen=True)
class Adopted:
    """A container that is this attempt's now, and has run for so many seconds."""

    chamber: Chamber
    container: str
    seconds: float


def adopt(engine: Engine, run: Run, config_in: Callable[[Chamber], dict[str, Any]]) -> Adopted | None:
    """The container of the attempt before this one, if nothing speaks against it; else all that is left is removed.

    Both the worker that made it and the one that last had the run must be dead beyond doubt: a living one might still
    stop it. It must have been started, because only then are its inputs complete; its options must be those that it
    would have now in that chamber (`config_in`); and its holder must live, or its outputs are lost.
    """
    for found in engine.containers(**{RUN: str(run.pk)}) if worker_is_gone(run.taken_from) else ():
        if found["Labels"][ATTEMPT] == str(run.attempt - 1):
            try:
                adopted = _look(engine, run, found, config_in)
                if adopted is not None:
                    engine.hand_over(adopted.container, str(run.pk), run.attempt)
                    log.info("run.adopted", seconds=adopted.seconds)
                    return adopted
            except Unreachable:
                raise
            except EngineFault as fault:
                log.info("run.not_adopted", fault=str(fault))
    remove_run(engine, str(run.pk))
    return None


def _look(
    engine: Engine, run: Run, found: dict[str, Any], config_in: Callable[[Chamber], dict[str, Any]]
) -> Adopted | None:
    labels = found["Labels"]
    if OPTIONS not in labels or not worker_is_gone(labels[WORKER]):
        return None
    chamber = engine.chamber_of(labels, run.wants.output_mb)
    expected = labels_of(str(run.pk), run.attempt - 1, labels[WORKER], chamber, config_in(chamber))
    progress = engine.progress(found["Id"])
    if labels[OPTIONS] != expected[OPTIONS] or not progress.seconds:
        return None
    if not progress.running and progress.exit_code == KILLED:
        return None  # by its worker, by the kernel or by itself: who can tell
    return Adopted(chamber, str(found["Id"]), progress.seconds)
