"""The blind control of one attack: what it took from a release made from other people, against chance (SCORING 4)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from challenges import splits, tables
from challenges.metrics import control
from challenges.metrics.control import DRAWS, Excess
from challenges.scenarios.base import Board, Scenario


def weigh(scenario: Scenario, board: Board, result: Path) -> tuple[Excess, dict[str, Any]]:
    """How much an attack's canonical result takes beyond chance, all units and metrics together, and `Leaks.detail`.

    `board` is that of the control: its `deal` is what the attack was asked about, its `other` what the release was made
    with. Chance is what the same answers take when the coins of those who were asked about are tossed again.
    """
    table, quick = tables.read(board.table), replace(board, resampled=False)
    taken = scenario.leaks(quick, result)
    by_chance = []
    for number in range(DRAWS):
        key = splits.derive(board.key, "chance", str(number))
        deal = splits.dealt_again(board.deal, table, board.game.schema, key=key)
        by_chance.append(float(scenario.leaks(replace(quick, deal=deal), result).values.mean()))
    return control.excess(float(taken.values.mean()), by_chance), taken.detail
