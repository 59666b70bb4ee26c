"""One exchange, from the first look at the stranger's server to the report. The exit status says how it went."""

from __future__ import annotations

import argparse
import os
import threading
import time
from pathlib import Path
from typing import NoReturn

from .calls import READY_SECONDS, Caller, CallFailed, NeverReady
from .desk import Desk
from .plan import Plan
from .report import Report
from .server import listen

DONE, NEVER_READY, CALL_FAILED, NO_POST, TIME_OVER, PORT_TAKEN = 0, 10, 11, 12, 13, 14
REPORT = "exchange.json"
GRACE_SECONDS = 0.5


def main() -> NoReturn:
    """The program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--input", type=Path, default=Path("/input"))
    parser.add_argument("--output", type=Path, default=Path("/output"))
    for name, port in (("server", 80), ("challenge", 8001), ("target", 8002)):
        parser.add_argument(f"--{name}", type=int, default=port)
    given = parser.parse_args()
    plan = Plan.read(given.input / "plan.json")
    report = Report(given.output / REPORT, plan.called, plan.offered)
    deadline = time.monotonic() + plan.seconds
    grace = plan.seconds + GRACE_SECONDS  # calls end at the deadline by themselves, unless a server drips
    watch = threading.Timer(grace, _leave, (report, TIME_OVER, "The time is over."))
    watch.daemon = True
    watch.start()
    desk = Desk(plan, given.input, given.output, report)
    try:
        listen(given.challenge, {**plan.serve, **plan.record}, desk)
        if plan.target:
            listen(given.target, dict(plan.target), desk)
    except OSError:
        _leave(report, PORT_TAKEN, "Somebody else listens on the gateway's ports.")
    caller = Caller(given.server, given.input, given.output, report, deadline)
    try:
        caller.wait_until_ready(plan.ready)
        for call in plan.calls:
            caller.call(call)
    except CallFailed as failed:
        over = time.monotonic() >= deadline
        status = NEVER_READY if isinstance(failed, NeverReady) else TIME_OVER if over else CALL_FAILED
        _leave(report, status, str(failed))
    while (missing := desk.missing()) and caller.goes_on:
        time.sleep(READY_SECONDS)
    if missing:
        _leave(report, NO_POST, f"Nothing was posted to {', '.join(missing)}.")
    _leave(report, DONE, "")


def _leave(report: Report, status: int, problem: str) -> NoReturn:
    """Ends the process with all its threads, whatever they wait for."""
    report.close(problem)
    os._exit(status)
