"""De-identified recordings against an attacker who holds an earlier recording: can a person be found again?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import pandas as pd
import pyarrow as pa
from django.utils.translation import gettext_lazy as _
from scipy.spatial.distance import cdist

from challenges import tables, zoo
from challenges.anchors import Anchors
from challenges.features import matrix
from challenges.findings import Finding
from challenges.metrics import similarity
from challenges.metrics.exposure import Told
from challenges.scenarios import criteria, trials, words
from challenges.scenarios.anonymised_outputs import read_guesses
from challenges.scenarios.base import Board, Floats, Game, Leaks, Scenario, Utility, require, write_task
from challenges.scenarios.containers import names_of, people, write_named
from challenges.scenarios.criteria import Criterion
from challenges.scenarios.outputs import read_rows
from challenges.scenarios.residual import Attempts, residual_leaks
from challenges.scenarios.trials import Trial
from challenges.scenarios.words import Words
from challenges.schema import Column, Schema, TableError
from challenges.splits import Deal, Flags, Positions, derive, shuffle

_RELEASE: Final = "release.npy"
_MATCHES: Final = "matches.npy"
_NOBODY: Final = -1


class SignalLinkage(Scenario):
    """The scenario `signal-linkage`: see docs/scenarios/signal-linkage.md.

    A row of the table is a person with two recordings: the quasi-identifiers are the values of the earlier one, which
    attacks know, the features those of the later one, which defenses release. The target stays with the platform.
    A release is `release.npy` (float64, row i is the recording of the i-th of `deal.train`, one column per feature), an
    attack's result `matches.npy` (int64, aligned to `deal.scored`: the row of the release it points at, or -1).
    Known candidates are told to nobody: membership is not the question.
    """

    slug: ClassVar[str] = "signal-linkage"
    title: ClassVar[Any] = _("De-identified recordings against an earlier recording")
    summary: ClassVar[Any] = _(
        "Defenses release recordings of patients without names. Attacks hold an earlier recording of a person and "
        "point at the one in the release that is theirs."
    )
    defense_steps: ClassVar[tuple[str, ...]] = ("release",)
    criteria: ClassVar[Mapping[str, Criterion]] = criteria.LINKAGE
    words: ClassVar[Words] = words.LINKAGE
    readings: ClassVar[Mapping[str, Any]] = {
        "linkage": _(
            "By an earlier recording it finds the released recording of %(rate)s of 100 people in the data%(span)s. "
            "Pointing at random would find that of %(chance)s."
        ),
        "likeness": _(
            "It points at the released recording that is most like a person’s own for %(rate)s of 100 people in the "
            "data%(span)s, and for %(chance)s of 100 people who are not in the data."
        ),
    }
    sentences: ClassVar[Mapping[str, tuple[Any, Any]]] = {
        "recordings": (
            _("Recordings"),
            _("Each person has an earlier recording of %(earlier)s values and a later one of %(later)s values."),
        ),
        "recordings-unfit": (
            _("Recordings"),
            _(
                "There must be two columns or more with the role “quasi-identifier” (the earlier recording) and with "
                "the role “feature” (the later one), all of numbers and without empty cells. Choose the roles on the "
                "page “Data”."
            ),
        ),
    }

    def collect(self, step: str) -> dict[str, list[str]]:
        """`release` after release, `guesses` after attack."""
        return {"tables": ["release" if step == "release" else "guesses"], "files": [], "folders": []}

    def metrics(self, game: Game) -> tuple[str, ...]:
        """Whether the person's row is found by its token, and whether the row is found that is most like the person."""
        return ("linkage", "likeness")

    def write_inputs(self, step: str, board: Board, folder: Path) -> None:
        """Writes the step's tables, shuffled, with tokens of this run. Raises LookupError for an unknown step."""
        files = {"release": self._write_traces, "attack": self._write_attack}[step](board, folder)
        write_task(step, board, folder, files)

    def read_outputs(self, step: str, board: Board, collected: Path, result: Path) -> dict[str, Any]:
        """Turns `release` into `release.npy`, `guesses` into `matches.npy`."""
        result.mkdir(parents=True, exist_ok=True)
        return {"release": self._read_release, "attack": self._read_guesses}[step](board, collected, result)

    def utility(self, board: Board, release: Path) -> Utility:
        """What the recordings teach about the target, which the platform joins to them by their tokens.

        `facts` also hold how far values are from the recorded ones on average, for which share of the rows their own
        recording is the nearest of all, and how alike both tables are (see `metrics.similarity`).
        """
        released, schema, deal = np.load(release / _RELEASE), board.game.schema, board.deal
        table, later = tables.read(board.table), recording(schema)
        learnt = _taught(released, table, deal, board.game, board.resample)
        recorded = table.iloc[deal.train]
        own = matrix(recorded, schema, later)
        made = pd.DataFrame(released, columns=[column.name for column in later])
        told = {
            "mean_absolute_change": float(np.abs(released - own).mean()),
            "own_row_is_nearest": float((_nearest(own, released, board.key) == np.arange(len(own))).mean()),
            "similarity": similarity.compare(recorded, made, Schema(later)),
        }
        return replace(learnt, facts={**learnt.facts, **told})

    def leaks(self, board: Board, result: Path) -> Leaks:
        """The signed residual risk of each fold and metric (SCORING 3), control persons being those not in the release.

        `linkage`: the attack points at the row under the person's own token. Control persons have none; each gets the
        row of somebody drawn at random, so that their hits are chance. `likeness`: it points at the row that is nearest
        to the person's own later recording, for control persons too. A defense that exchanges the tokens among
        persons escapes the first and not the second.
        """
        everybody = np.ones(len(board.deal.scored), dtype=np.bool_)
        hits = zip(self.metrics(board.game), self._hits(board, result), strict=True)
        return residual_leaks(board, {metric: Attempts(counted=everybody, hit=hit) for metric, hit in hits})

    def told(self, board: Board, result: Path) -> Told:
        """For each person, whether the attack found the person in either way."""
        found = np.logical_or(*self._hits(board, result))
        return Told(board.deal.scored_member, board.deal.scored_fold, found[None, :].astype(np.float64))

    def _hits(self, board: Board, result: Path) -> tuple[Flags, Flags]:
        """Whom of `deal.scored` the attack found by token, and whom by likeness."""
        deal, schema = board.deal, board.game.schema
        released, matches = np.load(require(board.release) / _RELEASE), np.load(result / _MATCHES)
        train = board.released.train
        own, absent = np.searchsorted(train, deal.scored), np.flatnonzero(~np.isin(deal.scored, train))
        own[absent] = np.resize(shuffle(derive(board.key, "stand-ins"), len(train)), len(absent))
        later = matrix(tables.read(board.table).iloc[deal.scored], schema, recording(schema))
        return matches == own, matches == _nearest(later, released, board.key)

    def reference_release(self, board: Board, folder: Path) -> None:
        """The recordings of the deal's training part as they are."""
        schema = board.game.schema
        folder.mkdir(parents=True, exist_ok=True)
        own = matrix(tables.read(board.table).iloc[board.deal.train], schema, recording(schema))
        np.save(folder / _RELEASE, canonical(own, schema))

    # Before publishing

    def look(self, trial: Trial) -> list[Finding]:
        """The two recordings, classes, folds, and the blind control of the deals."""
        columns = background(trial.schema), recording(trial.schema)
        if min(map(len, columns)) < 2 or any(
            column.type == "category" or column.missing for column in sum(columns, ())
        ):
            return [Finding("error", "recordings-unfit")]
        facts = {"earlier": len(columns[0]), "later": len(columns[1])}
        found = [Finding("ok", "recordings", facts), *trials.classes(trial), *trials.folds(trial)]
        return [*found, *trials.blindness(trial)]

    def look_at_sample(self, trial: Trial) -> list[Finding]:
        """Whether the sample holds all classes in each part, and members and controls in each fold."""
        return trials.rehearsal(trial)

    def anchors(self, table: pd.DataFrame, schema: Schema, deal: Deal, game: Game) -> Anchors:
        """A flat line for everybody, and the recordings as they are."""
        raw = matrix(table.iloc[deal.train], schema, recording(schema))
        try:
            flat, whole = (_taught(released, table, deal, game, b"") for released in (np.zeros_like(raw), raw))
        except ValueError as error:
            raise TableError(f"The anchors cannot be computed: {error}") from error
        detail = {"metric": game.metric, "train": len(deal.train), "test": len(deal.test), **whole.facts}
        return Anchors(flat.value, whole.value, detail)

    # What containers get

    def _write_traces(self, board: Board, folder: Path) -> dict[str, str]:
        return write_named(board, folder, "traces", people(board, board.deal.train, recording(board.game.schema)))

    def _write_attack(self, board: Board, folder: Path) -> dict[str, str]:
        schema, deal = board.game.schema, board.deal
        released = np.load(require(board.release) / _RELEASE)
        earlier, later = background(schema), recording(schema)
        kinds = tables.arrow_schema(later)
        shown = pa.table([pa.array(released[:, at], kind.type) for at, kind in enumerate(kinds)], schema=kinds)
        return {
            **write_named(board, folder, "release", shown),
            **write_named(board, folder, "background", people(board, deal.scored, earlier)),
            **write_named(board, folder, "aux", people(board, deal.aux, (*earlier, *later))),
        }

    # What containers leave

    def _read_release(self, board: Board, collected: Path, result: Path) -> dict[str, Any]:
        schema, rows = board.game.schema, len(board.deal.train)
        names = names_of(board, "traces", rows)
        values = read_rows(collected, "release", names, tuple(column.name for column in recording(schema)))
        np.save(result / _RELEASE, canonical(values, schema))
        return {"rows": rows}

    def _read_guesses(self, board: Board, collected: Path, result: Path) -> dict[str, Any]:
        shown = names_of(board, "release", len(board.released.train))
        asked = names_of(board, "background", len(board.deal.scored))
        match = Column("match", "category", categories=tuple(shown))
        texts = read_guesses(collected, "guesses", asked, (match,))["match"].texts
        matches = pd.Index(shown).get_indexer(pd.Index(texts))  # -1 where nobody is pointed at
        np.save(result / _MATCHES, matches.astype(np.int64))
        return {"rows": len(matches), "pointed": int((matches != _NOBODY).sum())}


def background(schema: Schema) -> tuple[Column, ...]:
    """The values of the earlier recording."""
    return tuple(column for column in schema.columns if column.role == "quasi-identifier")


def recording(schema: Schema) -> tuple[Column, ...]:
    """The values of the later recording."""
    return tuple(column for column in schema.columns if column.role == "feature")


def canonical(values: Floats, schema: Schema) -> Floats:
    """A release as attacks may see it: inside the declared ranges, with the declared decimals."""
    columns = recording(schema)
    low, high = (np.array([getattr(column, end) for column in columns], float) for end in ("minimum", "maximum"))
    decimals = np.array([column.decimals or 0 for column in columns])
    clipped, result = np.clip(values, low, high), np.empty_like(values)
    for digits in np.unique(decimals):
        result[:, decimals == digits] = np.round(clipped[:, decimals == digits], digits)
    return result + 0.0  # no negative zero: its sign would be a hidden channel


def _taught(released: Floats, table: pd.DataFrame, deal: Deal, game: Game, resample: bytes) -> Utility:
    schema = game.schema
    truth = table[schema.target].to_numpy()
    return zoo.tstr(
        released,
        truth[deal.train],
        matrix(table.iloc[deal.test], schema, recording(schema)),
        truth[deal.test],
        schema=schema,
        metric=game.metric,
        resample=resample,
    )


def _nearest(recordings: Floats, released: Floats, key: bytes) -> Positions:
    """For each recording the released row at the least Euclidean distance; of several, one drawn at random."""
    order = shuffle(derive(key, "ties"), len(released))
    nearest: Positions = order[cdist(recordings, released[order]).argmin(axis=1)]
    return nearest
