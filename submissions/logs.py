"""What a container printed, as text that is safe to show: bounded, decoded, without control characters."""

import re

from django.db.models import QuerySet

from sandbox.models import Run
from submissions.models import Step, Submission

MOST = 256 * 1024  # bytes that a page shows: the end, where errors are
# Colours and cursor movements of terminals (ECMA-48), then all other control characters but tab and line break, and
# the signs that make text look different from what it is (bidirectional controls, zero width).
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


def readable(raw: bytes) -> str:
    """The text of a log without anything that a reader cannot see. Never fails."""
    text = raw.decode("utf-8", errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROLS.sub("", _ESCAPES.sub("", text))


def of_run(run: Run, *, most: int = MOST) -> str:
    """The last `most` bytes of what this run's container printed; empty if it printed nothing.

    Whether somebody may read it is the caller's to know: logs of private runs are for organisers only.
    """
    try:
        with run.log_path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - most))
            return readable(file.read(most))
    except FileNotFoundError:
        return ""


def rehearsal_steps(submission: Submission) -> QuerySet[Step]:
    """The steps whose logs the team may read: those of the rehearsal, never one of a private run."""
    return submission.steps.filter(phase=None, duel=None, run__private=False).select_related("run")


def rehearsal(submission: Submission) -> str:
    """What the containers of an entry's rehearsal printed, step after step."""
    return "\n".join(f"== {step.name} ==\n{of_run(step.run)}" for step in rehearsal_steps(submission))
