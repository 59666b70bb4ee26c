"""The three criteria of Opinion 05/2014 of the Article 29 Working Party (WP 216), and what a game says about each.

An anonymised release should let nobody single out a person, link records of a person, or infer values of a person.
Each scenario declares how far its attacks speak to each of them; readers of a risk card see that, and what is open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from django.utils.translation import gettext_lazy as _

CRITERIA: Final = ("singling_out", "linkability", "inference")
Extent = Literal["measured", "partly", "not_measured"]


@dataclass(frozen=True)
class Criterion:
    """How far a scenario's attacks measure one criterion, and in a sentence what they did and did not try."""

    extent: Extent
    reason: Any  # lazy text


# Whoever is told from a person's whole record whether it was in the data.
MEMBERSHIP: Final[Mapping[str, Criterion]] = {
    "singling_out": Criterion(
        "not_measured", _("No attack searched for a person who can be picked out without being known before.")
    ),
    "linkability": Criterion(
        "partly",
        _(
            "Attackers held a person’s complete record and tried to tell whether it belongs to the data. Linking "
            "incomplete records, or two records of the same person, was not tried."
        ),
    ),
    "inference": Criterion(
        "partly",
        _(
            "One fact was inferred: that a person’s record was in the data. Where everybody in the data is ill, that "
            "fact is a diagnosis. Unknown values of a person were not inferred."
        ),
    ),
}
# Whoever knows some values of a person and guesses others.
RECONSTRUCTION: Final[Mapping[str, Criterion]] = {
    "singling_out": Criterion(
        "not_measured",
        _("No attack searched the table for people who can be picked out without knowing anything about them."),
    ),
    "linkability": Criterion(
        "partly",
        _(
            "Attackers may have linked what they knew of a person with rows of the table, but only what they learned "
            "by it was counted, not whether a link was right."
        ),
    ),
    "inference": Criterion(
        "measured",
        _(
            "Attackers knew some values of a person and guessed the secret ones. What they guess as well of people "
            "who are not in the table is subtracted."
        ),
    ),
}
# Whoever recognises a person in de-identified records by an earlier recording.
LINKAGE: Final[Mapping[str, Criterion]] = {
    "singling_out": Criterion(
        "partly",
        _(
            "Whoever finds a person’s recording has singled that person out. Picking out people of whom nothing was "
            "known before was not tried."
        ),
    ),
    "linkability": Criterion(
        "measured",
        _(
            "Attackers held an earlier recording of a person and searched the release for the same person. How often "
            "they point at somebody although the person is not in it is subtracted."
        ),
    ),
    "inference": Criterion(
        "not_measured", _("No attack tried to learn an unknown value of a person from the recordings.")
    ),
}
