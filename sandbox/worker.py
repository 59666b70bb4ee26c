"""Driving runs: claim, drive, finish. What a wake-up does.

One process drives one run at a time. A second thread renews the lease and stops the container when the run was
cancelled or taken over; a few more prepare the next chamber and remove used ones.
"""

import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog

from sandbox import leases, tasks
from sandbox.attempt import Attempt
from sandbox.chambers import chambers
from sandbox.conf import conf
from sandbox.contracts import Contract
from sandbox.engine import EngineFault, Restarted, Unreachable
from sandbox.exchange import Exchange
from sandbox.models import Run
from sandbox.placement import NoRoom
from sandbox.reasons import Reason, gettext_noop
from sandbox.renewal import Superseded
from sandbox.troubles import insist, will_pass
from sandbox.workers import alone, listen

log = structlog.get_logger(__name__)

LINE_SECONDS = 0.1  # between two looks for a free slot that nobody rings for: of one worker, and cheap


def work() -> int:
    """Drives due runs one after the other; returns how many.

    Ends when none is left that it could take. While all slots are in use it stands in line: a cluster has one worker
    more than slots, so that a slot does not wait for the reading of the last run's outputs. After a while it also ends,
    and sends a wake-up for the rest, so that the cluster can stop or renew its process.
    """
    started = time.monotonic()
    driven = 0
    while time.monotonic() - started < conf().work_seconds:
        run = leases.claim(chambers().worker)
        if run is not None:
            drive(run)
            driven += 1
        elif not _stand_in_line(until=started + conf().work_seconds):
            return driven
    tasks.send_wakeup()
    return driven


def _stand_in_line(until: float) -> bool:
    """Waits for a free slot, if that is what runs wait for; False if there is nothing to wait for.

    One worker of a machine is enough: the others go back to the queue, and are woken.
    """
    waited = False
    with alone("line") as first:
        while first and time.monotonic() < until and leases.line_up():
            waited = True
            listen(LINE_SECONDS)
    return waited


def drive(run: Run) -> None:
    """Takes a claimed run to its end, whatever happens; or gives it back after a fault of the platform."""
    with structlog.contextvars.bound_contextvars(**run.log_data()):
        if run.lost_leases > conf().max_lost_leases:
            _end(run, Reason.PLATFORM_FAULT, gettext_noop("Its workers ended again and again before it did."))
            return
        attempt = Exchange(run) if run.contract == Contract.WEB else Attempt(run)
        try:
            attempt.drive(_end)
        except Superseded:
            log.info("run.superseded")
        except Exception as error:
            _patiently(partial(_fault, attempt, error))
        finally:
            attempt.clear()
            _patiently(partial(leases.release, run))


def _patiently(write: Callable[[], Any]) -> None:
    """Writes to the books, if need be later. If they stay closed, somebody takes the run when its lease has ended."""
    until = time.monotonic() + conf().lease_seconds
    try:
        insist(write, while_=lambda: time.monotonic() < until)
    except Exception as error:
        if not will_pass(error):
            raise
        log.warning("run.left", **_place_of(error))


def _fault(attempt: Attempt, error: Exception) -> None:
    run = attempt.run
    unreachable = isinstance(error, Unreachable)
    passing = will_pass(error) or isinstance(error, NoRoom)
    place = _place_of(error)
    log.warning("run.fault", faults=run.faults, **place)
    # an engine knows no values of the data; the message of any other error may quote them
    detail = f"{place['error']}: {error if isinstance(error, EngineFault) else ', '.join(place['where'])}"
    counts = not (unreachable or passing or isinstance(error, Restarted) or attempt.engine_was_restarted)
    # nobody is to blame for an engine that fell under a run; but one that takes each engine down must end too
    lost = not (counts or passing) and attempt.engine_served
    if (counts and run.faults + 1 >= conf().max_faults) or (lost and run.lost_leases >= conf().max_lost_leases):
        _end(run, Reason.PLATFORM_FAULT, detail)
    else:
        rest = conf().retry_seconds if passing else 0
        leases.give_back(run, detail=detail, counts=counts, lost=lost, rest=rest, avoid_host=unreachable)


def _place_of(error: Exception) -> dict[str, Any]:
    """What an error was and where; without its message, which may quote what was read."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    return {"error": type(error).__name__, "where": [f"{frame.filename}:{frame.lineno}" for frame in frames]}


def _end(run: Run, reason: Reason | None, detail: str, verdict: Any = None, **facts: Any) -> None:
    """Ends the run. If its purpose cannot settle a failure either, the run ends all the same."""
    try:
        ended = leases.finish(run, reason=reason, detail=detail, verdict=verdict, **facts)
    except Exception as error:
        if reason != Reason.PLATFORM_FAULT or will_pass(error):
            raise
        log.error("run.unsettled", **_place_of(error))
        ended = leases.give_up(run, f"{detail} ({type(error).__name__})")
    log.info("run.ended" if ended else "run.superseded", state=run.state, reason=run.reason, seconds=run.seconds)
