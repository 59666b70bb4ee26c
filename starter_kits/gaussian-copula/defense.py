"""A Gaussian copula: each column keeps its own distribution, and each pair of columns its correlation. No more is kept.

Behind each column one imagines a hidden normal variable that its cells show in a coarser way: a number its rank, a
category the interval between two thresholds. (Nelsen, An Introduction to Copulas, 2006, for the idea.) That a cell is
empty has a hidden variable of its own: people who skip one question skip others.
"""

import numpy as np
import pandas as pd
from anomed_task import Task, run
from scipy.special import ndtr, ndtri

# A number's distribution is read off at so many places. With more of them it fits better, and soon it tells of single
# patients. Beyond the outermost two nothing is drawn: the heaviest patient of all does not show.
PLACES = 50


def release(task: Task) -> None:
    train = task.table("train")
    orders = {column["name"]: ordered(task, column, train) for column in task.columns if column["type"] == "category"}
    cells = pd.DataFrame({name: as_numbers(train[name], orders.get(name)) for name in train})
    gaps = cells.isna().astype(float).loc[:, cells.isna().any()]
    seen = pd.concat({"cell": cells, "gap": gaps}, axis=1)
    random = np.random.default_rng(task.seed)
    hidden = random.multivariate_normal(np.zeros(seen.shape[1]), correlations(seen), task.rows, method="eigh")
    ranks = pd.DataFrame(ndtr(hidden), columns=seen.columns)
    invented = {}
    for name in cells:
        drawn = drawn_at(ranks["cell", name], cells[name].dropna().to_numpy(), orders.get(name))
        invented[name] = drawn.mask(ranks["gap", name] > 1 - gaps[name].mean()) if name in gaps else drawn
    task.save_release(pd.DataFrame(invented))


def ordered(task: Task, column: dict, train: pd.DataFrame) -> list[str]:
    """The categories, as far as they occur, in the order of what the target is among their patients on average."""
    if column["name"] == task.target:
        return [label for label in column["categories"] if (train[task.target] == label).any()]
    return list(pd.Series(task.targets(train)).groupby(train[column["name"]].astype(object)).mean().sort_values().index)


def as_numbers(cells: pd.Series, order: list[str] | None) -> pd.Series:
    """Numbers as they are, categories as their place in the order, empty cells as NaN."""
    if order is None:
        return cells.astype(float)
    return cells.astype(object).map({category: place for place, category in enumerate(order)})


def correlations(seen: pd.DataFrame) -> np.ndarray:
    """The correlations of the hidden variables behind the columns.

    Of a hidden variable Z a cell tells S = E[Z | cell]. If Z correlates with another's Y at r, then E[S Y] = r Var S,
    and about r Var S Var T if Y too shows only as T: so divide the covariance by both variances.
    """
    scores = seen.apply(normal_scores)
    variances = scores.var(ddof=0).to_numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        raw = np.nan_to_num(scores.cov().to_numpy() / np.outer(variances, variances), posinf=0, neginf=0).clip(-1, 1)
    np.fill_diagonal(raw, 1)
    # Estimated pair by pair, they may contradict one another: take the nearest matrix that is a covariance at all.
    strengths, axes = np.linalg.eigh(raw)
    possible = axes * strengths.clip(1e-6) @ axes.T
    spread = np.sqrt(np.diag(possible))
    return possible / np.outer(spread, spread)


def normal_scores(cells: pd.Series) -> pd.Series:
    """The mean of the hidden variable over the interval that a cell's value stands for; NaN for an empty cell."""
    shares = cells.value_counts(normalize=True).sort_index()
    edges = ndtri(np.concatenate([[0], shares.cumsum().to_numpy()]).clip(0, 1))
    density = np.exp(-(edges**2) / 2) / np.sqrt(2 * np.pi)
    return cells.map(pd.Series(-np.diff(density) / shares, index=shares.index))


def drawn_at(ranks: pd.Series, values: np.ndarray, order: list[str] | None) -> pd.Series:
    """The cells that stand at these ranks (0 to 1) of the values."""
    if len(values) == 0:
        return pd.Series(np.nan, index=ranks.index)
    if order is None:
        places = (np.arange(PLACES) + 0.5) / PLACES
        return pd.Series(np.interp(ranks, places, np.quantile(values, places)))
    shares = np.bincount(values.astype(int), minlength=len(order)).cumsum() / len(values)
    return pd.Series(np.array(order, dtype=object)[np.searchsorted(shares[:-1], ranks)])


if __name__ == "__main__":
    run(release=release)
