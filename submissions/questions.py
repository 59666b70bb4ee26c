"""Live questions: an attack that talks to its target asks about rows for which nobody has an answer yet.

The release's own defense answers, in a run of its last step that knows nothing but the question and its model.
"""

from dataclasses import replace
from pathlib import Path

from challenges import splits
from challenges.scenarios.base import Board
from sandbox.purposes import Known, Question, Reader
from submissions import reading, scoring, steps
from submissions.models import Control, Step, Submission


def of_step(step: Step) -> Question | Known | None:
    """How an attack's questions are answered: on the public sample by the platform's own reference model."""
    scenario = steps.scenario_of(step.submission)
    if step.name != scenario.attack_step:
        return None
    if step.duel is None:
        board = scoring.board_of(step)
        return Known(lambda asked, answer: (reading.answer_for_reference, (scenario.slug, board, asked, answer)))
    release = step.duel.release
    made = release.submission.steps.filter(
        phase=release.phase, seed=release.seed, duel=None, name=scenario.defense_steps[-1]
    ).last()
    return None if made is None else _by(release.submission, scoring.board_of(made), str(step.run_id))


def of_control(control: Control, board: Board) -> Question | Known | None:
    """The same for a blind control, whose target is a twin: `board` is that of the twin's last step."""
    return _by(control.twin.defense, board, str(control.run_id))


def _by(defense: Submission, board: Board, run: str) -> Question | None:
    if defense.image is None or board.previous is None or not board.previous.is_dir():
        return None  # its model is gone
    scenario, contract = steps.scenario_of(defense), defense.contract
    name = scenario.defense_steps[-1]

    def write(asked: Path, folder: Path) -> Reader:
        return reading.write_questions, (scenario.slug, contract, _keyed(board, run, asked), asked, folder)

    def read(asked: Path, collected: Path, answer: Path) -> Reader:
        return reading.read_answers, (scenario.slug, contract, _keyed(board, run, asked), asked, collected, answer)

    return Question(
        image=defense.image,
        step=name,
        contract=contract,
        limits=steps.limits_of(defense.challenge),
        collect=scenario.images(contract).collect(name),
        write=write,
        read=read,
    )


def _keyed(board: Board, run: str, asked: Path) -> Board:
    """With tokens and an order of rows of its own."""
    return replace(board, key=splits.derive(board.key, "question", run, asked.stem))
