"""What the sandbox asks of us about a run: its inputs, how to read its outputs, and what follows from them."""

from pathlib import Path
from typing import Any

from sandbox.models import Run
from sandbox.purposes import Known, Question, Reader
from submissions import controls, flow, questions, reading, scoring
from submissions.models import Control, Step, Submission, Twin
from submissions.steps import images_of


class SubmissionStep:
    """What most containers are run for: a step of a submission."""

    def write_inputs(self, run: Run, folder: Path) -> None:
        step = _step(run)
        flow.run_began(step)
        images_of(step.submission).write_inputs(step.name, scoring.board_of(step), folder)

    def reader(self, run: Run, collected: Path, result: Path) -> Reader:
        step = _step(run)
        entry = step.submission
        board = scoring.board_of(step)
        return reading.read, (entry.challenge.scenario, entry.contract, step.name, board, collected, result)

    def question(self, run: Run) -> Question | Known | None:
        return questions.of_step(_step(run))

    def account(self, run: Run, told: Path) -> Reader | None:
        entry = _step(run).submission
        return reading.read_account, (entry.challenge.scenario, entry.contract, told)

    def judge(self, run: Run, result: Path, read: dict[str, Any]) -> dict[str, Any]:
        return {"exchange": read.get("web", {}), "columns": scoring.judge(_step(run), result)}

    def settle(self, run: Run, verdict: dict[str, Any] | None) -> None:
        step = Step.objects.filter(run=run).select_related(*_CONTEXT).first()
        if step is None:  # its entry was deleted meanwhile
            return
        if verdict is not None and verdict["exchange"]:
            step.exchange = verdict["exchange"]
            step.save(update_fields=["exchange"])
        flow.run_ended(step, run, verdict and verdict.get("columns"))


class BlindControl:
    """A run that nobody's score depends on: a step of a twin, or an attack against one."""

    def write_inputs(self, run: Run, folder: Path) -> None:
        part, entry = _part(run)
        images_of(entry).write_inputs(run.step, controls.board_of(part), folder)

    def reader(self, run: Run, collected: Path, result: Path) -> Reader:
        part, entry = _part(run)
        board = controls.board_of(part)
        return reading.read, (entry.challenge.scenario, entry.contract, run.step, board, collected, result)

    def question(self, run: Run) -> Question | Known | None:
        part, _entry = _part(run)
        return questions.of_control(part, controls.board_of(part.twin)) if isinstance(part, Control) else None

    def account(self, run: Run, told: Path) -> Reader | None:
        return None

    def judge(self, run: Run, result: Path, read: dict[str, Any]) -> dict[str, Any]:
        part, _entry = _part(run)
        return controls.weigh(part, result) if isinstance(part, Control) else {}

    def settle(self, run: Run, verdict: dict[str, Any] | None) -> None:
        controls.settle(run, verdict)


def _part(run: Run) -> tuple[Twin | Control, Submission]:
    part = controls.part_of(run)
    if part is None:
        raise LookupError("The blind control that this run was for is gone.")
    return part, part.defense if isinstance(part, Twin) else part.attack


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
