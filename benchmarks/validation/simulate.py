"""Arenas whose truth is known: real secret deals of a made-up table, and leaks of a planted size.

Only what containers would hand in is invented, answers and scores. Coins, folds, leaks, resamples and the boards'
scores come from the same functions that the server calls.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

from challenges import splits, tables
from challenges.scenarios import registry
from challenges.scenarios.base import Board, Game, Utility
from challenges.schema import Column, Schema
from challenges.splits import Deal, Sizes

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

SCHEMA = Schema(
    (
        Column("measure", "integer", minimum=0, maximum=1e9),
        Column("outcome", "category", "target", categories=("no", "yes")),
    ),
    target="outcome",
)
GAME = Game("validation", "model-membership", SCHEMA)
U0, U1 = 0.5, 0.8  # the anchors of the utility
REVEALED = 0.2  # the default share of candidates that attacks are told about and not scored on
_AUX, _CORE = 40, 20  # nobody trains here: these parts only have to exist


def boards(
    *, scored: int, seeds: int, folds: int = 1, secret: bytes, scope: str = "final", tests: int = 40
) -> list[Board]:
    """The boards of one evaluation, one per seed, with `scored` scored candidates each.

    `tests` patients are in the test part. Who is a member follows from the secret and the scope, as on the server.
    """
    candidates = round(scored / (1 - REVEALED))
    sizes = Sizes(_AUX, _CORE, candidates)
    path = _table(_AUX + _CORE + candidates + tests)
    table = tables.read(path)
    made = []
    for seed in range(seeds):
        deal = splits.deal(
            table,
            SCHEMA,
            secret=secret,
            challenge=GAME.slug,
            phase="final",
            scope=scope,
            seed=seed,
            sizes=sizes,
            revealed=REVEALED,
            folds=folds,
        )
        resample = splits.derive(secret, "resample")
        made.append(Board(GAME, path, deal, key=secret, seed=seed, resample=resample))
    return made


@lru_cache(maxsize=8)
def _table(rows: int) -> Path:
    """A canonical table, every third of whose patients has the outcome."""
    path = _scratch() / f"{rows}.parquet"
    frame = pd.DataFrame({"measure": np.arange(rows), "outcome": np.where(np.arange(rows) % 3, "no", "yes")})
    tables.write_frame(frame, SCHEMA, path)
    return path


@cache
def _scratch() -> Path:
    folder = tempfile.mkdtemp(prefix="anomed-validation-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@dataclass(frozen=True)
class Memory:
    """A defense that knows a share of its members by heart: who can read it recognises these with certainty.

    All others look alike. Then A = B = share, whatever alpha is: the area is (1 + share) / 2, the true-positive rate
    share + (1 - share) alpha.
    """

    share: float

    def truth(self, alpha: float) -> tuple[float, float]:
        """A and B of an attack that reads all of it, in the limit of many candidates."""
        return self.share, self.share

    def scores(self, deal: Deal, seen: Iterable[float], random: np.random.Generator) -> list[Floats]:
        """Scores of one attack for each entry of `seen`, the share of the memory that the attack can read."""
        member = deal.scored_member
        known = member & (random.random(len(member)) < self.share)
        return [random.random(len(member)) + 2 * (known & (random.random(len(member)) < read)) for read in seen]


@dataclass(frozen=True)
class Shift:
    """A defense that is a little surer of every member: scores are normal, those of members higher by a constant.

    With A = leak the shift is sqrt(2) times the normal quantile of (1 + A) / 2; B follows from the binormal curve.
    """

    leak: float

    @property
    def distance(self) -> float:
        return float(np.sqrt(2) * norm.ppf((1 + self.leak) / 2))

    def truth(self, alpha: float) -> tuple[float, float]:
        """A and B of an attack that sees all of it, in the limit of many candidates."""
        hits = float(norm.cdf(self.distance - norm.ppf(1 - alpha)))
        return self.leak, (hits - alpha) / (1 - alpha)

    def scores(self, deal: Deal, seen: Iterable[float], random: np.random.Generator) -> list[Floats]:
        """Scores of one attack for each entry of `seen`, the share of the shift that the attack can see."""
        member = deal.scored_member
        return [random.normal(self.distance * read * member, 1) for read in seen]


@dataclass(frozen=True)
class Predictor:
    """A defense's answers: normal scores, those of patients with the outcome higher by a constant.

    The scores of the seeds are alike, for the models saw much the same data. u is the normal probability of the
    constant over sqrt(2).
    """

    utility: float  # U, between the anchors U0 and U1
    alike: float = 0.9

    def release(self, board: Board, common: Floats, random: np.random.Generator) -> Utility:
        """The raw utility of a release, judged by the scenario; `common` [test patients] is what all seeds share."""
        test = board.deal.test
        distance = np.sqrt(2) * norm.ppf(U0 + self.utility * (U1 - U0))
        ill = (tables.read(board.table)["outcome"].to_numpy() == "yes")[test]
        score = distance * ill + np.sqrt(self.alike) * common + np.sqrt(1 - self.alike) * random.normal(size=len(test))
        answers = np.full(len(board.deal.queries), 0.5)
        answers[np.searchsorted(board.deal.queries, test)] = norm.cdf(score)
        folder = _scratch() / "release"
        folder.mkdir(exist_ok=True)
        np.save(folder / "answers.npy", np.column_stack([1 - answers, answers]))
        return registry.get(GAME.scenario).utility(board, folder)
