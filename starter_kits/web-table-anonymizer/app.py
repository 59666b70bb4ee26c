"""Microaggregation: patients who are alike form groups of K, and the mean of the group stands in for each of them.

Groups are found by MDAV (maximum distance to average vector): the patient farthest from the average and those nearest
to that one form a group, then the patient farthest from the first and those nearest, and so on (Domingo-Ferrer and
Torra, Ordinal, Continuous and Heterogeneous k-Anonymity Through Microaggregation, 2005, section 2). The package
anomed-anonymizer keeps the table (PersistingTabularDataAnonymizer) and makes a web server of all that.
"""

import os
from collections.abc import Iterator

import anomed_anonymizer as anon
import numpy as np
import pandas as pd

# The thing to change first: larger groups hide better and blur more.
K = 5
# Columns that stay as they are: what models are to predict. Whoever is asked about is not known by them.
KEPT = {"high_pressure"}
# Means get as many decimals as the column has, up to this many.
MOST_DECIMALS = 6

CHALLENGE = f"http://{os.getenv('CHALLENGE_HOST')}"


class Microaggregation(anon.TabularDataAnonymizer):
    def anonymize(self, leaky_data: pd.DataFrame) -> tuple[pd.DataFrame, str]:
        table = leaky_data.drop(columns=KEPT, errors="ignore")
        label = np.empty(len(table), dtype=int)
        for number, group in enumerate(groups(points(table))):
            label[group] = number
        released = leaky_data.copy()
        for name, cells in table.items():
            if pd.api.types.is_numeric_dtype(cells):
                means = cells.astype(float).groupby(label).transform("mean").round(decimals(cells))
                released[name] = means.astype(cells.dtype)
            else:
                released[name] = cells.astype(object).groupby(label).transform(commonest)
        return released, "microaggregation"


def points(table: pd.DataFrame) -> np.ndarray:
    """[rows, dimensions]: standardised numbers, and a 0/1 column for each category; empty cells are average."""
    numbers = pd.get_dummies(table.convert_dtypes(), dtype=float).astype(float).to_numpy(na_value=np.nan)
    centred = numbers - np.nanmean(numbers, axis=0)
    return np.nan_to_num(centred / np.maximum(np.nanstd(numbers, axis=0), 1e-9))


def decimals(cells: pd.Series) -> int:
    """How many decimals the numbers of a column have."""
    numbers = cells.dropna().to_numpy(float)
    return next((many for many in range(MOST_DECIMALS) if np.allclose(numbers, numbers.round(many))), MOST_DECIMALS)


def groups(points: np.ndarray) -> Iterator[np.ndarray]:
    """Positions of the patients of each group: K of them, in the last one up to 2 K - 1."""
    left = np.arange(len(points))
    while len(left) >= 2 * K:
        first = farthest(points[left], points[left].mean(axis=0))
        around = [first] if len(left) < 3 * K else [first, farthest(points[left], points[left][first])]
        for centre in points[left][around]:
            nearest = np.argsort(distances(points[left], centre), kind="stable")[:K]
            yield left[nearest]
            left = np.delete(left, nearest)
    yield left


def farthest(points: np.ndarray, centre: np.ndarray) -> int:
    return int(distances(points, centre).argmax())


def distances(points: np.ndarray, centre: np.ndarray) -> np.ndarray:
    return ((points - centre) ** 2).sum(axis=1)


def commonest(cells: pd.Series) -> object:
    counts = cells.value_counts()
    return counts.index[0] if len(counts) else None


application = anon.tabular_data_anonymizer_server_factory(
    anonymizer_identifier="web-table-anonymizer",
    anonymizer_obj=Microaggregation(),
    output_dir="/persistent_data",
    leaky_data_url=f"{CHALLENGE}/data/anonymizer/leaky",
    utility_evaluation_url=f"{CHALLENGE}/utility/anonymizer",
)
