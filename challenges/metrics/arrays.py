"""Checks that the measures share: each refuses with a ValueError in a plain sentence."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def as_numbers(values: ArrayLike, what: str, ndim: int = 1) -> NDArray[Any]:
    """The values as an array of finite real numbers with `ndim` dimensions; whole numbers keep their exact type."""
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "biuf":
            array = array.astype(np.float64, casting="safe" if array.dtype.kind in "cSU" else "unsafe")
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{what} must be real numbers in an array of equal rows.") from None
    if array.ndim != ndim:
        raise ValueError(f"{what} must have {ndim} dimension{'s' if ndim > 1 else ''}, not {array.ndim}.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{what} must be finite: no NaN, no infinity.")
    return array


def as_number(value: float, what: str) -> float:
    """The value as a finite number."""
    number = float(as_numbers(value, what, ndim=0))
    if not math.isfinite(number):
        raise ValueError(f"{what} must be finite: no NaN, no infinity.")
    return number


def as_share(value: float, what: str) -> float:
    """The value as a number between 0 and 1."""
    number = as_number(value, what)
    if not 0 <= number <= 1:
        raise ValueError(f"{what} must lie between 0 and 1.")
    return number


def as_counts(*values: int) -> tuple[int, ...]:
    """The values as whole numbers that are not negative."""
    try:
        counts = tuple(operator.index(value) for value in values)
    except TypeError:
        raise ValueError("Counts must be whole numbers.") from None
    if min(counts) < 0:
        raise ValueError("Counts must not be negative.")
    return counts
