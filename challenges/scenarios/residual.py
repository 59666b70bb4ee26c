"""What the games of residual risk share: hits on people in the data, against hits on control persons (SCORING 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from challenges.metrics import bootstrap, risk
from challenges.scenarios import resamples
from challenges.scenarios.base import Board, Floats, Leaks
from challenges.splits import Flags


@dataclass(frozen=True, eq=False)
class Attempts:
    """What an attack achieved about one secret: for each of `deal.scored`, whether it counts and whether it is a hit.

    A person does not count whose secret is not known to the platform either.
    """

    counted: Flags
    hit: Flags


def residual_leaks(board: Board, attempts: Mapping[str, Attempts]) -> Leaks:
    """The signed risk of each fold and metric, from the hits on members and on control persons (the other candidates).

    `attempts` maps each of the scenario's metrics to what was achieved. A unit in which nobody counts on either side
    says nothing: 0, with an error of 1.
    """
    member, fold = board.deal.scored_member, board.deal.scored_fold
    counts = resamples.of_scored(board)
    units = [fold == number for number in range(int(fold.max()) + 1)]
    found = [[_unit(made, unit, member) for made in attempts.values()] for unit in units]
    return Leaks(
        values=np.array([[value for value, _error in row] for row in found]),
        errors=np.array([[error for _value, error in row] for row in found]),
        replicates=np.stack(
            [np.column_stack([_replicates(made, u, member, counts) for made in attempts.values()]) for u in units],
            axis=1,
        ),
        detail={name: _detail(made, member) for name, made in attempts.items()},
    )


def _tally(made: Attempts, member: Flags) -> tuple[int, int, int, int]:
    """The arguments of `risk.residual_risk`."""
    targets, controls = made.counted & member, made.counted & ~member
    return int(targets.sum()), int(made.hit[targets].sum()), int(controls.sum()), int(made.hit[controls].sum())


def _unit(made: Attempts, unit: Flags, member: Flags) -> tuple[float, float]:
    tally = _tally(Attempts(made.counted & unit, made.hit), member)
    return risk.signed_risk(*tally) if tally[0] and tally[2] else (0.0, 1.0)


def _replicates(made: Attempts, unit: Flags, member: Flags, counts: bootstrap.Counts) -> Floats:
    """The signed risk over each resample: [RESAMPLES]."""
    targets, controls = (np.flatnonzero(made.counted & unit & side) for side in (member, ~member))
    if not len(targets) or not len(controls):
        return np.zeros(len(counts))
    rates = [_rates(made.hit[side], counts[:, side]) for side in (targets, controls)]
    return risk.signed_risks(rates[0], len(targets), rates[1], len(controls))


def _rates(hit: Flags, counts: bootstrap.Counts) -> Floats:
    """The share of hits over each resample; a resample that happens to hold nobody who counts has the whole's."""
    some = counts.any(axis=1)
    result = np.full(len(counts), hit.mean())
    result[some] = bootstrap.rate(hit, counts[some])
    return result


def _detail(made: Attempts, member: Flags) -> dict[str, Any]:
    tally = _tally(made, member)
    return risk.to_json(risk.residual_risk(*tally), tally) if tally[0] and tally[2] else {}
