"""What runs in the isolated child: the scenario reads a container's files. Imports no model and touches no database."""

from pathlib import Path
from typing import Any

from challenges.scenarios import registry
from challenges.scenarios.base import Board, OutputProblem
from sandbox.reasons import Reason, Rejected

_REASONS = {
    "missing": Reason.OUTPUT_MISSING,
    "invalid": Reason.OUTPUT_INVALID,
    "too_large": Reason.OUTPUT_TOO_LARGE,
}


def read(scenario: str, step: str, board: Board, collected: Path, result: Path) -> dict[str, Any]:
    """Turns the hostile files in `collected` into canonical ones in `result`. Raises Rejected."""
    try:
        return registry.get(scenario).read_outputs(step, board, collected, result)
    except OutputProblem as problem:
        raise Rejected(_REASONS[problem.kind], problem.sentence) from problem
