"""How far single records stand out: not how much leaks on average, but for how many people.

The exposure of a record is the share of non-members that an attack scores below it, averaged over the attacks; in
each cross-fitting unit an attack weighs as much as it has learned in the other units, so that useless attacks do not
blur what good ones see. Where nothing leaks, members and non-members have the same exposures; what members have beyond
that is the leak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from challenges.metrics import membership
from challenges.metrics.arrays import as_numbers

BINS: Final = 20  # of the histograms over [0, 1]
CHANCE: Final = 0.05  # of the non-members are allowed above the threshold
_PERMUTATIONS: Final = 200  # enough for the 97.5 % quantile of a band that is shown with two decimals

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Unit = tuple[Flags, NDArray[np.int64]]  # membership, and the scores of each attack as dense ranks


@dataclass(frozen=True, eq=False)
class Told:
    """What attacks said about the records of a release: `scores` [attacks, records], `member` and `unit` [records].

    `unit` numbers the cross-fitting units from 0; scores are compared within a unit only.
    """

    member: Flags
    unit: NDArray[np.int64]
    scores: Floats

    @classmethod
    def together(cls, several: Sequence[Told]) -> Told:
        """All that several attacks said about the same records."""
        return cls(several[0].member, several[0].unit, np.concatenate([told.scores for told in several]))

    def units(self) -> list[Unit]:
        """Of each unit the membership, and the scores of each attack as dense ranks from 0: ties share one."""
        scores = as_numbers(self.scores, "The scores", ndim=2)
        if scores.shape[0] < 1 or not scores.shape[1] == len(self.member) == len(self.unit):
            raise ValueError("There must be at least one attack, and a score for each record.")
        return [_unit(self.member[here], scores[:, here]) for here in (self.unit == k for k in np.unique(self.unit))]


@dataclass(frozen=True)
class Exposure:
    """Exposures of all scored records of a defense; no record's own value.

    `members` and `others` are the shares of members and of non-members in `BINS` equal bins of [0, 1]. `share` is the
    share of members that stand out beyond chance (negative by chance alone), `error` its standard error, `noise` what
    membership dealt at random reaches in 39 of 40 cases.
    """

    records: int
    attacks: int
    threshold: float
    share: float
    error: float
    noise: float
    members: tuple[float, ...]
    others: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and lists, to be stored."""
        return {**self.__dict__, "members": list(self.members), "others": list(self.others)}


def exposures(member: Flags, scores: Floats) -> Floats:
    """For each attack the exposure of each record of a unit: the share of non-members that it scores below it.

    `scores` and the result are [attacks, records]. Ties count half, a non-member's with itself too:
    records of one score have one exposure, or tied members would lie a hair above a threshold of tied non-members.
    """
    return _exposures(*_unit(member, scores))


def measure(releases: Sequence[Told], *, seed: int = 0) -> Exposure:
    """The exposures of all records of a defense's releases.

    The threshold leaves 5 % of the non-members above it; of records that tie at it a part counts, of members and
    non-members alike, or nobody could stand out where an attack says yes to many. With T the members' share above it,
    (T - 0.05) / 0.95 estimates the share of members whom the attacks recognise for certain: among people who are not
    recognised as many are above it as among non-members. `noise` deals membership anew within each unit, 200 times.
    Raises ValueError if a unit has fewer than two members or non-members, or no attack.
    """
    units = [unit for told in releases for unit in told.units()]
    if not units:
        raise ValueError("There is no unit to be measured.")
    member = np.concatenate([flags for flags, _codes in units])
    values = _weighted(units)
    random = np.random.default_rng(seed)
    dealt = np.empty(_PERMUTATIONS)
    for number in range(_PERMUTATIONS):
        shuffled = [(random.permutation(flags), codes) for flags, codes in units]
        dealt[number] = _beyond(np.concatenate([flags for flags, _codes in shuffled]), _weighted(shuffled))
    return Exposure(
        records=len(member),
        attacks=max(len(told.scores) for told in releases),
        threshold=_threshold(values[~member]),
        share=_beyond(member, values),
        error=membership.tpr_standard_error(member, values, CHANCE) / (1 - CHANCE),
        noise=float(np.quantile(dealt, 0.975)),
        members=_histogram(values[member]),
        others=_histogram(values[~member]),
    )


def _unit(member: Flags, scores: Floats) -> Unit:
    if min(int(member.sum()), int((~member).sum())) < 2:
        raise ValueError("There must be at least two members and two non-members.")
    return member, np.asarray(rankdata(scores, method="dense", axis=1), dtype=np.int64) - 1


def _exposures(member: Flags, codes: NDArray[np.int64]) -> Floats:
    attacks, records = codes.shape
    flat = codes + np.arange(attacks)[:, None] * records  # one range of ranks for each attack
    counts = np.bincount(flat[:, ~member].ravel(), minlength=attacks * records).reshape(attacks, records)
    below = np.take_along_axis(np.cumsum(counts, axis=1) - counts / 2, codes, axis=1)
    return np.asarray(below / int((~member).sum()))


def _weighted(units: Sequence[Unit]) -> Floats:
    """The exposures of all records, units one after the other: the means over attacks, weighted by the other units."""
    exposed = [_exposures(flags, codes) for flags, codes in units]
    # The mean exposure of members is the AUC.
    learned = [2 * values[:, flags].mean(axis=1) - 1 for values, (flags, _codes) in zip(exposed, units, strict=True)]
    result = []
    for place, values in enumerate(exposed):
        others = [leak for other, leak in enumerate(learned) if other != place and len(leak) == len(values)]
        weights = np.clip(np.mean(others, axis=0), 0, None) if others else np.ones(len(values))
        result.append(np.average(values, axis=0, weights=weights if weights.sum() > 0 else None))
    return np.concatenate(result)


def _beyond(member: Flags, values: Floats) -> float:
    """The share that stands out: of those who tie at the threshold a part counts, so that 5 % of the non-members do."""
    others = values[~member]
    threshold = _threshold(others)
    tied = float((others == threshold).mean())
    counted = (CHANCE - float((others > threshold).mean())) / tied
    above = float((values[member] > threshold).mean()) + counted * float((values[member] == threshold).mean())
    return (above - CHANCE) / (1 - CHANCE)


def _threshold(others: Floats) -> float:
    """The exposure that at most 5 % of the non-members exceed."""
    return float(np.sort(others)[::-1][min(int(CHANCE * len(others) + 1e-9), len(others) - 1)])


def _histogram(values: Floats) -> tuple[float, ...]:
    counts, _edges = np.histogram(values, bins=BINS, range=(0.0, 1.0))
    return tuple((counts / len(values)).tolist())
