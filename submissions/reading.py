"""What runs in the isolated child: the scenario reads a container's files, and measures what was released.

Imports no model and touches no database.
"""

from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from challenges.metrics import bootstrap
from challenges.scenarios import registry
from challenges.scenarios.base import Board, OutputProblem
from sandbox.reasons import Reason, Rejected

_REASONS = {
    "missing": Reason.OUTPUT_MISSING,
    "invalid": Reason.OUTPUT_INVALID,
    "too_large": Reason.OUTPUT_TOO_LARGE,
}


def read(scenario: str, contract: str, step: str, board: Board, collected: Path, result: Path) -> dict[str, Any]:
    """Turns the hostile files in `collected` into canonical ones in `result`. Raises Rejected."""
    with _rejecting():
        return registry.get(scenario).images(contract).read_outputs(step, board, collected, result)


def read_account(scenario: str, contract: str, told: Path) -> dict[str, Any]:
    """What a gateway tells of an exchange that failed, as `settle` gets it. Raises Rejected."""
    with _rejecting():
        return {"exchange": registry.get(scenario).images(contract).read_account(told)}


def write_questions(scenario: str, contract: str, board: Board, asked: Path, folder: Path) -> dict[str, Any]:
    """Makes a hostile question the inputs of a defense's last step. Raises Rejected."""
    with _rejecting():
        return {"rows": registry.get(scenario).images(contract).write_questions(board, asked, folder)}


def read_answers(
    scenario: str, contract: str, board: Board, asked: Path, collected: Path, answer: Path
) -> dict[str, Any]:
    """Makes the hostile files in `collected` the answer to a question. Raises Rejected."""
    with _rejecting():
        registry.get(scenario).images(contract).read_answers(board, asked, collected, answer)
        return {}


def answer_for_reference(scenario: str, board: Board, asked: Path, answer: Path) -> dict[str, Any]:
    """Answers a hostile question as the platform's own reference release would. Raises Rejected."""
    with _rejecting():
        return {"rows": registry.get(scenario).reference_answers(board, asked, answer)}


@contextmanager
def _rejecting() -> Iterator[None]:
    try:
        yield
    except OutputProblem as problem:
        raise Rejected(_REASONS[problem.kind], problem.sentence) from problem
    except LookupError as error:
        raise Rejected(Reason.OUTPUT_INVALID, str(error)) from error


def worth(scenario: str, board: Board, release: Path) -> dict[str, Any]:
    """`Utility` of a canonical release as plain data: `utility`, packed `replicates` in base64, `facts`."""
    utility = registry.get(scenario).utility(board, release)
    replicates = b64encode(bootstrap.pack(utility.replicates)).decode()
    return {"utility": utility.value, "replicates": replicates, "facts": utility.facts}
