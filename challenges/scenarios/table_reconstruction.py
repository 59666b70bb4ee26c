"""An anonymised table against background knowledge: can one look up what one does not know about a person?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from django.utils.translation import gettext_lazy as _

from challenges import anchors, anonymised, features, generalised, tables, zoo
from challenges.anchors import Anchors
from challenges.findings import Finding
from challenges.metrics import risk, similarity
from challenges.metrics.exposure import Told
from challenges.metrics.utility import HIGHER_IS_BETTER
from challenges.scenarios import trials, web, words
from challenges.scenarios.anonymised_outputs import read_anonymised, read_guesses
from challenges.scenarios.base import Board, Game, Images, Leaks, Scenario, Utility, require, write_task
from challenges.scenarios.containers import names_of, people, write_named, write_shuffled
from challenges.scenarios.criteria import RECONSTRUCTION, Criterion
from challenges.scenarios.residual import Attempts, residual_leaks
from challenges.scenarios.table_release import (
    GUESSES,
    RELEASE,
    SCHEME,
    as_guessed,
    keep_guesses,
    quasi_identifiers,
    read_scheme,
    secrets,
    write_release,
)
from challenges.scenarios.trials import Trial
from challenges.scenarios.web_reconstruction import WebReconstruction
from challenges.scenarios.words import Words
from challenges.schema import Column, Schema, TableError
from challenges.splits import Deal


class TableReconstruction(Scenario):
    """The scenario `table-reconstruction` of DESIGN 4.

    Its release is `release.parquet` (see `anonymised.write`) and `scheme.json`. An attack's result is
    `guesses.parquet`: the columns with the role “secret”, aligned to `deal.scored`, empty where nothing was guessed.
    Known candidates are told to nobody here: membership is not the question.
    """

    slug: ClassVar[str] = "table-reconstruction"
    title: ClassVar[Any] = _("Anonymised table against background knowledge")
    summary: ClassVar[Any] = _(
        "Defenses release a table of patients in which nobody should be found again. Attacks know a few facts about "
        "a person, look for that person in the table and tell what they did not know."
    )
    defense_steps: ClassVar[tuple[str, ...]] = ("release",)
    criteria: ClassVar[Mapping[str, Criterion]] = RECONSTRUCTION
    words: ClassVar[Words] = words.RECONSTRUCTION
    others: ClassVar[Mapping[str, Images]] = {web.CONTRACT: WebReconstruction()}
    sentences: ClassVar[Mapping[str, tuple[Any, Any]]] = {
        "known-and-secret": (
            _("Known and secret columns"),
            _("Attacks know %(known)s of a person and guess %(secret)s."),
        ),
        "no-known-columns": (
            _("Known and secret columns"),
            _(
                "No column is a quasi-identifier: attacks would know nothing of a person. On the page “Data”, choose "
                "the columns that others may know."
            ),
        ),
        "no-secret-columns": (
            _("Known and secret columns"),
            _(
                "No column is secret: attacks would have nothing to guess. On the page “Data”, choose the columns that "
                "nobody may learn."
            ),
        ),
    }

    def collect(self, step: str) -> dict[str, list[str]]:
        """`release` and `scheme.json` after release, `guesses` after attack."""
        if step == "release":
            return {"tables": ["release"], "files": [SCHEME], "folders": []}
        return {"tables": ["guesses"], "files": [], "folders": []}

    def metrics(self, game: Game) -> tuple[str, ...]:
        """The names of the secret columns."""
        return tuple(column.name for column in secrets(game.schema))

    def write_inputs(self, step: str, board: Board, folder: Path) -> None:
        """Writes what DESIGN 4 lists for the step, shuffled. Raises LookupError for an unknown step."""
        files = {"release": self._write_table, "attack": self._write_attack}[step](board, folder)
        write_task(step, board, folder, files)

    def read_outputs(self, step: str, board: Board, collected: Path, result: Path) -> dict[str, Any]:
        """Turns `release` and `scheme.json` into their canonical forms, `guesses` into `guesses.parquet`."""
        result.mkdir(parents=True, exist_ok=True)
        return {"release": self._read_release, "attack": self._read_guesses}[step](board, collected, result)

    def utility(self, board: Board, release: Path) -> Utility:
        """What the fixed zoo of models learns from the release, cells read by their expectation (see `anonymised`).

        `facts` also hold what can be told of the table itself, and how alike it is to the one it was made from, cells
        that allow several values being drawn.
        """
        schema, deal = board.game.schema, board.deal
        table, released = tables.read(board.table), anonymised.read(release / RELEASE, schema)
        learnt = _taught(released, table, deal, board.game, board.resample)
        told = anonymised.facts(released, schema, len(deal.train))
        alike = similarity.compare(table.iloc[deal.train], anonymised.drawn(released, schema), schema)
        return replace(learnt, facts={**learnt.facts, **told, "similarity": alike})

    def leaks(self, board: Board, result: Path) -> Leaks:
        """The signed residual risk of each fold and secret: people in the table against those who are not."""
        return residual_leaks(board, _attempts(board, result))

    def told(self, board: Board, result: Path) -> Told:
        """How many of a person's secrets the attack guessed."""
        guessed = np.sum([made.hit for made in _attempts(board, result).values()], axis=0, dtype=np.float64)
        return Told(board.deal.scored_member, board.deal.scored_fold, np.atleast_2d(guessed))

    def reference_release(self, board: Board, folder: Path) -> None:
        """The deal's training part with its quasi-identifiers told roughly."""
        folder.mkdir(parents=True, exist_ok=True)
        schema, train = board.game.schema, board.deal.train
        table = anonymised.coarsened(tables.read(board.table).iloc[train], schema)
        write_release(table, "generalization", board, folder)

    # Before publishing

    def look(self, trial: Trial) -> list[Finding]:
        """The usual, and whether there is something to know and something to guess."""
        usual = [*trials.size(trial), *trials.classes(trial), *trials.folds(trial), *trials.blindness(trial)]
        return [*_look_at_columns(trial.schema), *usual]

    def look_at_sample(self, trial: Trial) -> list[Finding]:
        """Whether the sample holds all classes in each part, and people and control persons in each fold."""
        return trials.rehearsal(trial)

    def anchors(self, table: pd.DataFrame, schema: Schema, deal: Deal, game: Game) -> Anchors:
        """u1: what the training part teaches as it is. u0: what a table of empty cells teaches, or an answer that looks
        at nobody, whichever is better.
        """
        train, test, metric = table.iloc[deal.train], table.iloc[deal.test], game.metric
        try:
            whole = _taught(anonymised.of(train, schema), table, deal, game, b"")
            empty = _taught(anonymised.suppressed(len(train), schema), table, deal, game, b"").value
            constant = anchors.constant(train[schema.target].to_numpy(), test[schema.target].to_numpy(), schema, metric)
        except ValueError as error:
            raise TableError(f"The anchors cannot be computed: {error}") from error
        u0 = (max if HIGHER_IS_BETTER[metric] else min)(empty, constant)
        detail = {"metric": metric, "train": len(train), "test": len(test), "empty": empty, **whole.facts}
        return Anchors(u0, whole.value, detail)

    # What containers get

    def _write_table(self, board: Board, folder: Path) -> dict[str, str]:
        return write_shuffled(board, folder, "table", people(board, board.deal.train, board.game.schema.shared))

    def _write_attack(self, board: Board, folder: Path) -> dict[str, str]:
        release, deal, schema = require(board.release), board.deal, board.game.schema
        for name in (RELEASE, SCHEME):
            (folder / name).write_bytes((release / name).read_bytes())
        return {
            "release": RELEASE,
            "scheme": SCHEME,
            **write_named(board, folder, "background", people(board, deal.scored, quasi_identifiers(schema))),
            **write_named(board, folder, "aux", people(board, deal.aux, schema.shared)),
        }

    # What containers leave

    def _read_release(self, board: Board, collected: Path, result: Path) -> dict[str, Any]:
        schema = board.game.schema
        table = read_anonymised(collected, "release", schema.shared, len(board.deal.train))
        scheme = read_scheme(collected / SCHEME, f"The file {SCHEME}")
        write_release(table, scheme, board, result)
        return {"rows": len(table[schema.target]), "scheme": scheme}

    def _read_guesses(self, board: Board, collected: Path, result: Path) -> dict[str, Any]:
        schema, positions = board.game.schema, board.deal.scored
        names = names_of(board, "background", len(positions))
        guesses = read_guesses(collected, "guesses", names, tuple(as_guessed(column) for column in secrets(schema)))
        keep_guesses(guesses, result)
        return {"rows": len(positions)}


def _hit_decimals(column: Column) -> int | None:
    """What `risk.hits` needs to know of a column."""
    return None if column.type == "category" else generalised.decimals(column)


def _taught(released: anonymised.Anonymised, table: pd.DataFrame, deal: Deal, game: Game, resample: bytes) -> Utility:
    """What the zoo learns from an anonymised table, tested on the deal's test part."""
    schema, test = game.schema, table.iloc[deal.test]
    inputs, targets, weights = anonymised.training(released, schema)
    return zoo.tstr(
        inputs,
        targets,
        features.matrix(test, schema),
        test[schema.target].to_numpy(),
        schema=schema,
        metric=game.metric,
        resample=resample,
        weights=weights,
    )


def _look_at_columns(schema: Schema) -> list[Finding]:
    facts = {
        "known": ", ".join(column.name for column in quasi_identifiers(schema)),
        "secret": ", ".join(column.name for column in secrets(schema)),
    }
    missing = [Finding("error", f"no-{name}-columns") for name, names in facts.items() if not names]
    return missing or [Finding("ok", "known-and-secret", facts)]


def _attempts(board: Board, result: Path) -> dict[str, Attempts]:
    """For each secret, whose is known to the platform and whose the attack guessed."""
    truth = tables.read(board.table).iloc[board.deal.scored]
    guesses = tables.read(result / GUESSES)
    return {
        column.name: Attempts(
            counted=truth[column.name].notna().to_numpy(),
            hit=risk.hits(truth[column.name], guesses[column.name], _hit_decimals(column)),
        )
        for column in secrets(board.game.schema)
    }
