"""Looks each person up: the rows that are most similar in what is known tell the rest.

The package anomed-deanonymizer has a base class for this, but no server: /, /fit and /evaluate are made here, as its
other servers have them.
"""

import json
import os
from pathlib import Path

import anomed_challenge
import anomed_deanonymizer as deanon
import anomed_utils as utils
import falcon
import numpy as np
import pandas as pd
import requests

GUESSES = Path("/persistent_data/guesses.parquet")
CHALLENGE = f"http://{os.getenv('CHALLENGE_HOST')}"
TARGET = f"http://{os.getenv('ATTACK_TARGET_HOST')}"


class NearestRow(deanon.TabularDataReidentificationAttack):
    """Gower's distance: the mean over the known columns of how far apart two cells are, from 0 to 1."""

    def reidentify(
        self,
        anonymized_data: pd.DataFrame,
        anonymization_scheme: anomed_challenge.AnonymizationScheme,
        background_knowledge: pd.DataFrame,
    ) -> pd.DataFrame:
        rows = plain(anonymized_data)
        known = [name for name in background_knowledge if name in rows]
        distance = sum(apart(background_knowledge[name], rows[name]) for name in known)
        # Of rows that fit alike each is as likely: what most of them have is guessed.
        nearest = [np.flatnonzero(row <= row.min() + 1e-9) for row in distance]
        return pd.DataFrame(
            {name: [likeliest(rows[name].iloc[at]) for at in nearest] for name in rows if name not in known},
            index=background_knowledge.index,
        )


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """A generalised table with its ranges as their middles and its one-hot columns as one column of categories."""
    found: dict[str, pd.Series] = {}
    for name, cells in table.items():
        if pd.api.types.is_bool_dtype(cells) and "_" in name:
            column, _, category = name.rpartition("_")
            former = found.get(column, pd.Series(None, index=table.index, dtype=object))
            found[column] = former.where(~cells | former.notna(), category)  # of several allowed ones the first
        elif isinstance(next(iter(cells.dropna()), None), (list, tuple, np.ndarray)):
            found[name] = cells.map(lambda pair: np.nan if pair is None else float(np.mean(pair)))
        else:
            found[name] = cells
    return pd.DataFrame(found)


def apart(persons: pd.Series, cells: pd.Series) -> np.ndarray:
    """[persons, rows]: the difference over the range, or whether texts differ; 1 where one of both is empty."""
    if pd.api.types.is_numeric_dtype(persons) and pd.api.types.is_numeric_dtype(cells):
        ours, theirs = persons.to_numpy(float, na_value=np.nan), cells.to_numpy(float, na_value=np.nan)
        span = np.ptp(theirs[~np.isnan(theirs)]) if (~np.isnan(theirs)).any() else 0
        return np.nan_to_num(np.abs(ours[:, None] - theirs) / max(span, 1e-9), nan=1).clip(0, 1)
    ours, theirs = persons.astype(object).to_numpy(), cells.astype(object).to_numpy()
    return (ours[:, None] != theirs).astype(float)


def likeliest(cells: pd.Series) -> object:
    """The median of numbers, the commonest of others; nothing where all are empty."""
    cells = cells.dropna()
    if not len(cells):
        return None
    return cells.median() if pd.api.types.is_numeric_dtype(cells) else cells.value_counts().index[0]


class Fit:
    """POST /fit: looks everybody up, for a table does not change."""

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        background = utils.get_dataframe_or_raise(f"{CHALLENGE}/data/deanonymizer/background-knowledge", timeout=10)
        released = utils.get_dataframe_or_raise(f"{TARGET}/anon_data", timeout=10)
        scheme = requests.get(f"{TARGET}/anon_data_scheme", timeout=10).json()["scheme"]
        NearestRow().reidentify(released, scheme, background).to_parquet(GUESSES)
        response.text = json.dumps({"message": "Everybody has been looked up."})
        response.status = falcon.HTTP_CREATED


class Evaluation:
    """POST /evaluate: posts what was found."""

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        if not GUESSES.exists():
            raise falcon.HTTPBadRequest(description="This deanonymizer is not fitted yet.")
        posted = requests.post(f"{CHALLENGE}/utility/deanonymizer", data=GUESSES.read_bytes(), timeout=60)
        if posted.status_code != 201:
            raise falcon.HTTPInternalServerError(description="Utility evaluation failed.")
        response.text = json.dumps({"message": "The guesses were posted.", "evaluation": posted.json()})
        response.status = falcon.HTTP_CREATED


application = falcon.App()
application.add_route("/", utils.StaticJSONResource({"message": "Deanonymizer server is alive!"}))
application.add_route("/fit", Fit())
application.add_route("/evaluate", Evaluation())
