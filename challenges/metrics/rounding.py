"""How fine the numbers are that everybody sees (SCORING 4)."""

from __future__ import annotations

from typing import Final

DECIMALS: Final = 2


def public(value: float) -> float:
    """The value as everybody may see it; the sum turns a rounded -0.0 into 0.0."""
    return round(value, DECIMALS) + 0.0
