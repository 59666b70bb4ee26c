"""Reconstruction: of all rows of the release that could be the person's, the secret that most of them share.

Rows whose cells allow everything that is known of the person could be theirs. One that allows little else weighs more:
by the chance that it means just this person's values, if all that a cell allows are alike.
"""

import numpy as np
import pandas as pd
from anomed_cells import Column, most_likely, secrets, shares, spans
from anomed_task import Task, run

# Persons that are compared with the whole release at a time: bounds the memory.
AT_A_TIME = 200


def attack(task: Task) -> None:
    release, aux, persons = task.table("release"), task.table("aux"), task.table("background")
    known, wanted = task.with_role("quasi-identifier"), task.with_role("secret")
    told = {column["name"]: secrets(release, column) for column in wanted}
    fallback = {column["name"]: anywhere(release, aux, column) for column in wanted}
    found: dict[str, list] = {column["name"]: [] for column in wanted}
    for start in range(0, len(persons), AT_A_TIME):
        some = persons.iloc[start : start + AT_A_TIME]
        chances = np.ones((len(some), len(release)))
        for column in known:
            chances *= chance(some[column["name"]], release[column["name"]], column)
        for column in wanted:
            name = column["name"]
            for weights in chances:
                rows = weights > 0
                guess = most_likely(told[name][rows], weights[rows], column) if rows.any() else None
                found[name].append(fallback[name] if guess is None else guess)
    task.save("guesses", persons[["row"]].assign(**found))


def anywhere(release: pd.DataFrame, aux: pd.DataFrame, column: Column) -> object:
    """The best guess about somebody of whom nothing is known: from the release, or else from other people."""
    told = (most_likely(secrets(table, column), np.ones(len(table)), column) for table in (release, aux))
    return next((guess for guess in told if guess is not None), None)


def chance(persons: pd.Series, cells: pd.Series, column: Column) -> np.ndarray:
    """[persons, rows]: how likely each cell means just the person's value; 1 where nothing is known of the person."""
    if column["type"] == "category":
        codes = pd.Categorical(persons.astype("string"), categories=column["categories"]).codes
        return np.where(codes[:, None] >= 0, shares(cells, column).T[codes], 1.0)
    (low, high), values = spans(cells, column).T, persons.to_numpy(float, na_value=np.nan)[:, None]
    step = 10.0 ** -column.get("decimals", 0)
    inside = (values >= low - step / 2) & (values <= high + step / 2)
    return np.where(np.isnan(values), 1.0, inside / ((high - low) / step + 1))


if __name__ == "__main__":
    run(attack=attack)
