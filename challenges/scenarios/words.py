"""What the boards and the matrix say of a game: what its attacks are after, in whole sentences for everybody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from django.utils.translation import gettext_lazy as _


@dataclass(frozen=True)
class Words:
    """Lazy texts: the worst leak in the boards' legend, the cells above the matrix, an attack where there is none."""

    worst_leak: Any
    cells: Any
    first_attack: Any


MEMBERSHIP: Final = Words(
    _(
        "What the best attack of another team learns about who was in the data: 0 = no more than by guessing, 1 = "
        "everything."
    ),
    _(
        "Every attack meets every defense of other teams. Each cell says how much that attack learned about who was in "
        "the data."
    ),
    _(
        "Without attacks every defense looks safe. Enter one: the starter kits hold the classics of membership "
        "inference."
    ),
)
RECONSTRUCTION: Final = Words(
    _(
        "What the best attack of another team finds out of people’s secret values, beyond what it guesses as well of "
        "people who are not in the table: 0 = nothing, 1 = everything."
    ),
    _(
        "Every attack meets every defense of other teams. Each cell says how much of people’s secret values that "
        "attack found out, beyond what it guesses as well of people who are not in the table."
    ),
    _(
        "Without attacks every defense looks safe. Enter one: the starter kits hold attacks that look people up by "
        "what is known of them, and attacks that learn what goes with it."
    ),
)
LINKAGE: Final = Words(
    _(
        "How often the best attack of another team finds a person’s recording, beyond chance: 0 = no more than by "
        "pointing at random, 1 = always."
    ),
    _(
        "Every attack meets every defense of other teams. Each cell says how often that attack found a person’s "
        "recording, beyond chance."
    ),
    _(
        "Without attacks every defense looks safe. Enter one: the starter kits hold one that points at the recording "
        "most like the one it knows."
    ),
)
