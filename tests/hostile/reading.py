"""What runs in the isolated child of the mutation run; importable without Django set up."""

from pathlib import Path
from typing import Any

from challenges.scenarios.base import OutputProblem
from challenges.scenarios.outputs import read_rows
from sandbox.reasons import Reason, Rejected

TOKENS = [f"r{number:016x}" for number in range(600)]  # more than a rehearsal has: programs take it for a private run
_REASONS = {
    "missing": Reason.OUTPUT_MISSING,
    "invalid": Reason.OUTPUT_INVALID,
    "too_large": Reason.OUTPUT_TOO_LARGE,
}


def read(collected: Path) -> dict[str, Any]:
    """The scores, as the scenario reads them."""
    try:
        return {"rows": len(read_rows(collected, "scores", TOKENS, ("score",)))}
    except OutputProblem as problem:
        raise Rejected(_REASONS[problem.kind], problem.sentence) from problem
