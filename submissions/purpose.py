"""What the sandbox asks of us about a run: its inputs, how to read its outputs, and what follows from them."""

from pathlib import Path
from typing import Any

from sandbox.models import Run
from sandbox.purposes import Reader
from submissions import flow, reading, scoring
from submissions.models import Step
from submissions.steps import scenario_of


class SubmissionStep:
    """The one purpose that this site runs containers for: a step of a submission."""

    def write_inputs(self, run: Run, folder: Path) -> None:
        step = _step(run)
        flow.run_began(step)
        scenario_of(step.submission).write_inputs(step.name, scoring.board_of(step), folder)

    def reader(self, run: Run, collected: Path, result: Path) -> Reader:
        step = _step(run)
        scenario = scenario_of(step.submission).slug
        return reading.read, (scenario, step.name, scoring.board_of(step), collected, result)

    def judge(self, run: Run, result: Path, read: dict[str, Any]) -> dict[str, Any]:
        return scoring.judge(_step(run), result)

    def settle(self, run: Run, verdict: dict[str, Any] | None) -> None:
        step = Step.objects.filter(run=run).select_related(*_CONTEXT).first()
        if step is not None:  # else its entry was deleted meanwhile
            flow.run_ended(step, run, verdict)


_CONTEXT = (
    "submission__challenge__dataset",
    "submission__team",
    "submission__image",
    "phase__challenge__dataset",
    "previous__run",
    "duel__attack__challenge__dataset",
    "duel__release__submission__challenge",
    "duel__release__phase",
)


def _step(run: Run) -> Step:
    return Step.objects.select_related(*_CONTEXT).get(run=run)
