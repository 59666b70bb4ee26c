"""Public numbers are rounded in one place: every other module asks it."""

import ast
import math
from pathlib import Path

import pytest

from challenges.metrics import rounding

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("exact", "shown"), [(0.1249, 0.12), (0.126, 0.13), (-0.004, 0.0), (71.238, 71.24)])
def test_everybody_sees_hundredths(exact: float, shown: float) -> None:
    assert rounding.public(exact) == shown
    assert math.copysign(1, rounding.public(-0.001)) == 1


def test_no_other_module_has_its_own_hundredths() -> None:
    """`round(x, 2)` is written nowhere else in the programs that show scores (but of seconds in a log)."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for folder in ("challenges", "submissions", "anomed_site")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "round"
        and [getattr(argument, "value", None) for argument in node.args[1:]] == [rounding.DECIMALS]
        and getattr(node.args[0], "id", "") != "took"
    ]
    assert found == []
