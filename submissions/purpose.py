"""What the sandbox asks of us about a run: its inputs, how to read its outputs, and what follows from them."""

from pathlib import Path
from typing import Any

from challenges.scenarios.base import Scenario
from sandbox.models import Run
from sandbox.purposes import Question, Reader
from submissions import controls, flow, reading, scoring
from submissions.models import Control, Step, Twin
from submissions.steps import scenario_of


class SubmissionStep:
    """What most containers are run for: a step of a submission."""

    def write_inputs(self, run: Run, folder: Path) -> None:
        step = _step(run)
        flow.run_began(step)
        scenario_of(step.submission).write_inputs(step.name, scoring.board_of(step), folder)

    def reader(self, run: Run, collected: Path, result: Path) -> Reader:
        step = _step(run)
        scenario = scenario_of(step.submission).slug
        return reading.read, (scenario, step.name, scoring.board_of(step), collected, result)

    def question(self, run: Run) -> Question | None:
        return None

    def judge(self, run: Run, result: Path, read: dict[str, Any]) -> dict[str, Any]:
        return scoring.judge(_step(run), result)

    def settle(self, run: Run, verdict: dict[str, Any] | None) -> None:
        step = Step.objects.filter(run=run).select_related(*_CONTEXT).first()
        if step is not None:  # else its entry was deleted meanwhile
            flow.run_ended(step, run, verdict)


class BlindControl:
    """A run that nobody's score depends on: a step of a twin, or an attack against one."""

    def write_inputs(self, run: Run, folder: Path) -> None:
        part, scenario = _part(run)
        scenario.write_inputs(run.step, controls.board_of(part), folder)

    def reader(self, run: Run, collected: Path, result: Path) -> Reader:
        part, scenario = _part(run)
        return reading.read, (scenario.slug, run.step, controls.board_of(part), collected, result)

    def question(self, run: Run) -> Question | None:
        return None

    def judge(self, run: Run, result: Path, read: dict[str, Any]) -> dict[str, Any]:
        part, _scenario = _part(run)
        return controls.weigh(part, result) if isinstance(part, Control) else {}

    def settle(self, run: Run, verdict: dict[str, Any] | None) -> None:
        controls.settle(run, verdict)


def _part(run: Run) -> tuple[Twin | Control, Scenario]:
    part = controls.part_of(run)
    if part is None:
        raise LookupError("The blind control that this run was for is gone.")
    return part, scenario_of(part.defense if isinstance(part, Twin) else part.attack)


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
