"""A synthetic table against membership inference: may one learn from invented patients who the real ones were?"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import pandas as pd
from django.utils.translation import gettext_lazy as _

from challenges import anchors, closeness, features, tables, zoo
from challenges.anchors import Anchors
from challenges.metrics import similarity
from challenges.metrics.utility import HIGHER_IS_BETTER
from challenges.scenarios.base import Board, Game, Utility, write_task
from challenges.scenarios.containers import write_shuffled
from challenges.scenarios.membership import MembershipScenario
from challenges.scenarios.options import Option
from challenges.scenarios.outputs import read_table
from challenges.schema import Column, Schema
from challenges.splits import Deal, derive, shuffle

_RELEASE: Final = "release.parquet"
_FEWEST_ROWS, _MOST_ROWS = 100, 1_000_000
# A model that learnt from one meaningless table is right or wrong by chance: u0 is the mean over several, each also
# with its target turned round, which teaches the opposite.
_UNIFORM_TABLES: Final = 3
# Facts of a release are shown to one digit more than anybody could tell apart, and to no more.
_DECIMALS: Final = 3


class SyntheticMembership(MembershipScenario):
    """The scenario `synthetic-membership` of DESIGN 4.

    Its release is `release.parquet`: invented records in canonical form, in an order that the platform drew.
    """

    slug: ClassVar[str] = "synthetic-membership"
    title: ClassVar[Any] = _("Synthetic table against membership inference")
    summary: ClassVar[Any] = _(
        "Defenses invent a table from which as much can be learnt as from the real one, without giving its patients "
        "away. Attacks see the invented table and tell who was in the real one."
    )
    defense_steps: ClassVar[tuple[str, ...]] = ("release",)
    options: ClassVar[tuple[Option, ...]] = (
        Option(
            "rows",
            int,
            _("how many rows a synthetic table has; by default as many as the training part"),
            minimum=_FEWEST_ROWS,
            maximum=_MOST_ROWS,
        ),
    )

    def collect(self, step: str) -> dict[str, list[str]]:
        """`release` after release, `scores` after attack."""
        return {"tables": [{"release": "release", "attack": "scores"}[step]], "files": [], "folders": []}

    def write_inputs(self, step: str, board: Board, folder: Path) -> None:
        """Writes what DESIGN 4 lists for the step. All tables are shuffled; tokens hold for this run only."""
        if step == self.attack_step:
            self.write_attack(board, folder)
        else:
            write_task(step, board, folder, self.write_train(board, folder), rows=self.rows(board))

    def read_outputs(self, step: str, board: Board, collected: Path, result: Path) -> dict[str, Any]:
        """Turns `release` into `release.parquet`, `scores` into `scores.npy`."""
        if step == self.attack_step:
            return self.read_scores(board, collected, result)
        rows = self.rows(board)
        released = read_table(collected, "release", board.game.schema, rows)
        released = released.iloc[shuffle(derive(board.key, "release"), rows)]
        result.mkdir(parents=True, exist_ok=True)
        tables.write_frame(released, board.game.schema, result / _RELEASE)
        return {"rows": rows}

    def write_release(self, board: Board, release: Path, folder: Path) -> dict[str, str]:
        """The invented table, shuffled once more for each attack."""
        return write_shuffled(board, folder, "release", tables.read_arrow(release / _RELEASE))

    def rows(self, board: Board) -> int:
        """How many rows a release has."""
        return int(self.option(board.game, "rows") or len(board.deal.train))

    def utility(self, board: Board, release: Path) -> Utility:
        """What the zoo learns from the table for the test part; facts say how like the training part the table is.

        Copies of training records and the distance to the closest are warnings: SCORING never ranks by them.
        """
        table, deal, schema = tables.read(board.table), board.deal, board.game.schema
        released, train, test = tables.read(release / _RELEASE), table.iloc[deal.train], table.iloc[deal.test]
        learnt = _tstr(released, test, schema, board.game.metric, board.resample)
        facts = {
            **learnt.facts,
            "similarity": similarity.compare(train, released, schema),
            "closeness": closeness.compare(released, train, test, schema),
        }
        return Utility(learnt.value, learnt.replicates, _rounded(facts))

    def anchors(self, table: pd.DataFrame, schema: Schema, deal: Deal, game: Game) -> Anchors:
        """u1 is what the real training part teaches; u0 the better of what teach tables that know only the ranges (a
        mean over some), and of an answer that looks at nobody.

        A table of random numbers may teach worse than nothing: measured against it alone, nothing would be worth much.
        """
        train, test, metric = table.iloc[deal.train], table.iloc[deal.test], game.metric
        real = _tstr(train, test, schema, metric, b"")
        drawn = [uniform_table(schema, len(train), seed) for seed in range(_UNIFORM_TABLES)]
        invented = [*drawn, *(_turned(table, schema.target_column) for table in drawn)]
        uniform = float(np.mean([_tstr(one, test, schema, metric, b"").value for one in invented]))
        constant = anchors.constant(train[schema.target].to_numpy(), test[schema.target].to_numpy(), schema, metric)
        u0 = (max if HIGHER_IS_BETTER[metric] else min)(uniform, constant)
        detail = {"metric": metric, "train": len(train), "test": len(test), "uniform": uniform, **real.facts}
        return Anchors(u0, real.value, detail)

    def reference_release(self, board: Board, folder: Path) -> None:
        """Every column drawn on its own from the training part, with replacement."""
        schema = board.game.schema
        train = tables.read(board.table).iloc[board.deal.train]
        random = np.random.default_rng(0)
        drawn = {
            column.name: train[column.name].to_numpy()[random.integers(0, len(train), self.rows(board))]
            for column in schema.shared
        }
        folder.mkdir(parents=True, exist_ok=True)
        tables.write_frame(pd.DataFrame(drawn), schema, folder / _RELEASE)


def uniform_table(schema: Schema, rows: int, seed: int) -> pd.DataFrame:
    """Records drawn uniformly from the published ranges and categories: whoever has the schema can make them."""
    random = np.random.default_rng(seed)
    return pd.DataFrame({column.name: _uniform(column, rows, random) for column in schema.shared})


def _uniform(column: Column, rows: int, random: np.random.Generator) -> Any:
    if column.type == "category":
        return np.array(column.categories, dtype=object)[random.integers(0, len(column.categories), rows)]
    drawn = random.uniform(column.minimum or 0.0, column.maximum or 0.0, rows)
    return np.round(drawn, column.decimals or 0)


def _turned(table: pd.DataFrame, target: Column) -> pd.DataFrame:
    """The table with its target turned round: the first class is the last, the highest number the lowest."""
    values = table[target.name]
    if target.type == "category":
        return table.assign(
            **{target.name: values.map(dict(zip(target.categories, reversed(target.categories), strict=True)))}
        )
    return table.assign(**{target.name: (target.minimum or 0.0) + (target.maximum or 0.0) - values})


def _tstr(released: pd.DataFrame, test: pd.DataFrame, schema: Schema, metric: str, resample: bytes) -> Utility:
    return zoo.tstr(
        features.matrix(released, schema),
        released[schema.target].to_numpy(),
        features.matrix(test, schema),
        test[schema.target].to_numpy(),
        schema=schema,
        metric=metric,
        resample=resample,
    )


def _rounded(facts: Any) -> Any:
    if isinstance(facts, dict):
        return {name: _rounded(value) for name, value in facts.items()}
    return round(facts, _DECIMALS) if isinstance(facts, float) else facts
