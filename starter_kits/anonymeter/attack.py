"""Anonymeter's three attacks, turned from a verdict on a table into a suspicion of each record.

Anonymeter counts how often guesses drawn from a synthetic table come true among people who were in the training data,
and how often among others (Giomi et al., A Unified Framework for Quantifying Privacy Risk in Synthetic Data, PoPETs
2023). Here they are counted record by record, once for the release and once for `aux` in its place: three counts, for
the three criteria of the Article 29 Working Party. How telling each is, the known candidates show.
"""

import numpy as np
import pandas as pd
import polars as pl
from anomed_task import Task, run
from anonymeter.evaluators.inference_evaluator import evaluate_inference_guesses
from anonymeter.evaluators.linkability_evaluator import LinkabilityIndexes
from anonymeter.evaluators.singling_out_evaluator import multivariate_singling_out_queries
from anonymeter.neighbors.mixed_types_kneighbors import MixedTypeKNeighbors
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

# The things to change first: with more of each the attack sees more and takes longer.
PREDICATES, COLUMNS_IN_A_PREDICATE = 500, 4
HALVES, NEIGHBOURS = 4, 3
SECRETS = 8


def attack(task: Task) -> None:
    tables = {name: filled(task, task.table(name)) for name in ("candidates", "known", "release", "aux")}
    asked = pd.concat([tables["known"], tables["candidates"]], ignore_index=True)
    member = task.table("known")["member"].to_numpy(bool)
    # The same seed, so that both tables are asked about the same columns.
    counts = [came_true(tables[name], asked, np.random.default_rng(task.seed)) for name in ("release", "aux")]
    evidence = np.column_stack(counts)
    scores = evidence[len(member) :, :3].sum(axis=1)
    if 0 < member.sum() < len(member):
        weigh = make_pipeline(StandardScaler(), LogisticRegression(C=0.1)).fit(evidence[: len(member)], member)
        scores = weigh.decision_function(evidence[len(member) :])
    task.save("scores", task.table("candidates")[["row"]].assign(score=scores))


def filled(task: Task, table: pd.DataFrame) -> pd.DataFrame:
    """The declared columns without empty cells, which Anonymeter's distance cannot bear."""
    columns = {}
    for column in task.columns:
        cells = table[column["name"]]
        if column["type"] == "category":
            columns[column["name"]] = cells.astype("string").fillna("missing").astype(object)
        else:
            columns[column["name"]] = cells.astype(float).fillna(column["minimum"])
    return pd.DataFrame(columns)


def came_true(table: pd.DataFrame, asked: pd.DataFrame, random: np.random.Generator) -> np.ndarray:
    """How often guesses drawn from `table` come true for each record: singled out, linked, inferred [asked, 3]."""
    return np.column_stack([kind(table, asked, random) for kind in (singled_out, linked, inferred)])


def singled_out(table: pd.DataFrame, asked: pd.DataFrame, random: np.random.Generator) -> np.ndarray:
    """Of predicates that hold for exactly one row of the table those that hold for a record; rare ones count more."""
    columns = min(COLUMNS_IN_A_PREDICATE, table.shape[1])
    predicates = multivariate_singling_out_queries(pl.from_pandas(table), PREDICATES, columns, 10 * PREDICATES, random)
    if not predicates:
        return np.zeros(len(asked))
    named = [predicate.alias(str(place)) for place, predicate in enumerate(predicates)]
    holds = pl.from_pandas(asked).select(named).to_numpy().astype(float)
    return holds @ -np.log((holds.sum(axis=0) + 1) / (len(asked) + 1))


def linked(table: pd.DataFrame, asked: pd.DataFrame, random: np.random.Generator) -> np.ndarray:
    """How often half of a record's columns and the other half lead to the same row of the table."""
    times = np.zeros(len(asked))
    for _ in range(HALVES):
        columns = random.permutation(table.columns)
        halves = np.array_split(columns, 2)
        found = [nearest(table, asked, list(half), NEIGHBOURS) for half in halves]
        times[list(LinkabilityIndexes(*found).find_links(NEIGHBOURS))] += 1
    return times


def inferred(table: pd.DataFrame, asked: pd.DataFrame, random: np.random.Generator) -> np.ndarray:
    """How often a record's cell is that of the row which is nearest to it in all other columns."""
    times = np.zeros(len(asked))
    for secret in random.permutation(table.columns)[:SECRETS]:
        others = [column for column in table.columns if column != secret]
        guesses = table[secret].iloc[nearest(table, asked, others, 1)[:, 0]].reset_index(drop=True)
        times += evaluate_inference_guesses(guesses, asked[secret], regression=table[secret].dtype == float)
    return times


def nearest(table: pd.DataFrame, asked: pd.DataFrame, columns: list[str], neighbours: int) -> np.ndarray:
    """The places of the nearest rows of the table [asked, neighbours]."""
    return MixedTypeKNeighbors(n_neighbors=neighbours, n_jobs=1).fit(table[columns]).kneighbors(asked[columns])


if __name__ == "__main__":
    run(attack=attack)
