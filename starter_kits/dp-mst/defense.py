"""Invents patients from counts that carry noise: whatever an attacker does, one person's data hardly shows in them.

The guarantee holds for all that is done with the patients, so nothing but the noisy counts of mechanism.py may be
learned from them: which numbers fall into one bin is decided by the declared ranges and by noisy counts.
"""

import numpy as np
import pandas as pd
from anomed_task import Task, run
from mechanism import Noise, grow, noisy_columns, zcdp

EPSILON = 3.0
# The chance that the promise fails: well below one in the number of patients.
DELTA = 1e-5
# Numbers are counted in so many bins of equal width; then neighbours are joined until each holds a fair share.
FINE_BINS, JOINED_BINS = 48, 8


def release(task: Task) -> None:
    train = task.table("train")
    random = np.random.default_rng(task.seed)
    noise, rho = Noise(random), zcdp(EPSILON, DELTA)
    fine = [coded(column, train[column["name"]]) for column in task.columns]
    counts = noisy_columns(fine, [size_of(column) for column in task.columns], rho, noise)
    groups = [joined(column, count) for column, count in zip(task.columns, counts, strict=True)]
    coarse = [group[code] for group, code in zip(groups, fine, strict=True)]
    sums = [np.bincount(group, weights=count) for group, count in zip(groups, counts, strict=True)]
    drawn = grow(coarse, sums, rho, noise).draw(task.rows, random)
    invented = {}
    for place, column in enumerate(task.columns):
        codes = refined(drawn[place], groups[place], counts[place], random)
        invented[column["name"]] = cells(column, codes, random)
    task.save_release(pd.DataFrame(invented))


def bins_of(column: dict) -> int:
    """The number of a column's codes but the last one, which stands for an empty cell where there may be one."""
    if column["type"] == "category":
        return len(column["categories"])
    # No more bins than there are values between the ends.
    values = round((column["maximum"] - column["minimum"]) * 10 ** column.get("decimals", 0)) + 1
    return min(FINE_BINS, values)


def size_of(column: dict) -> int:
    return bins_of(column) + bool(column.get("missing"))


def coded(column: dict, cells: pd.Series) -> np.ndarray:
    bins = bins_of(column)
    if column["type"] == "category":
        codes = pd.Categorical(cells.astype("string"), categories=column["categories"]).codes.astype(int)
        return np.where(codes < 0, bins, codes)
    numbers = cells.astype(float).to_numpy()
    width = max(column["maximum"] - column["minimum"], 1e-9)
    places = np.nan_to_num(np.floor((numbers - column["minimum"]) / width * bins)).clip(0, bins - 1)
    return np.where(np.isnan(numbers), bins, places).astype(int)


def joined(column: dict, counts: np.ndarray) -> np.ndarray:
    """Each code's group: neighbouring bins of a number together hold a fair share of the (noisy) patients."""
    if column["type"] == "category":
        return np.arange(len(counts))
    seen = counts[: bins_of(column)]
    middles = seen.cumsum() - seen / 2
    shares = np.floor(middles / max(seen.sum(), 1e-9) * JOINED_BINS).clip(0, JOINED_BINS - 1)
    groups = np.unique(shares, return_inverse=True)[1]
    return np.append(groups, [groups.max() + 1] * (len(counts) - len(seen))).astype(int)


def refined(drawn: np.ndarray, groups: np.ndarray, counts: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """For each drawn group one of its codes, by their noisy counts."""
    codes = np.empty(len(drawn), dtype=int)
    for group in np.unique(drawn):
        members = np.flatnonzero(groups == group)
        weights = counts[members] + 1e-9
        codes[drawn == group] = random.choice(members, (drawn == group).sum(), p=weights / weights.sum())
    return codes


def cells(column: dict, codes: np.ndarray, random: np.random.Generator) -> pd.Series:
    """A category, a number from anywhere in its bin, or an empty cell."""
    bins = bins_of(column)
    if column["type"] == "category":
        return pd.Series(np.array([*column["categories"], None], dtype=object)[codes])
    width = (column["maximum"] - column["minimum"]) / bins
    numbers = column["minimum"] + (codes + random.random(len(codes))) * width
    return pd.Series(numbers).mask(codes == bins)


if __name__ == "__main__":
    run(release=release)
