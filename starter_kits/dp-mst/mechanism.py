"""A tree of noisy two-way counts, with differential privacy: which columns go together, and how.

After McKenna, Miklau and Sheldon (Winning the NIST Contest, Journal of Privacy and Confidentiality 2021): count each
column with noise, choose a maximum spanning tree of the most telling pairs, count these pairs with noise, and draw from
the tree. Codes only: columns are whole numbers from 0 to their size, and nothing but `Budget` ever learns from them.
"""

from dataclasses import dataclass

import numpy as np

# How the budget is split between single columns, the choice of the pairs, and the pairs.
COLUMNS, CHOICE, PAIRS = 0.3, 0.1, 0.6


def zcdp(epsilon: float, delta: float) -> float:
    """The rho for which rho-zCDP implies (epsilon, delta)-DP (Bun and Steinke, TCC 2016, proposition 1.3)."""
    return (np.sqrt(np.log(1 / delta) + epsilon) - np.sqrt(np.log(1 / delta))) ** 2


@dataclass
class Noise:
    """The only two ways in which the patients are looked at. Both state what they cost in zCDP."""

    random: np.random.Generator

    def counts(self, true: np.ndarray, rho: float) -> np.ndarray:
        """Counts with Gaussian noise; one patient more changes one count by 1 (proposition 1.6: sigma² = 1 / 2 rho)."""
        return true + self.random.normal(0, np.sqrt(1 / (2 * rho)), true.shape)

    def choice(self, scores: np.ndarray, rho: float) -> int:
        """The exponential mechanism for scores that one patient more changes by 1 at most.

        With weights exp(epsilon score / 2) it is epsilon-DP and (epsilon²/8)-zCDP (Cesar and Rogers, Bounding,
        Concentrating, and Truncating, ALT 2021). Adding Gumbel noise and taking the largest draws from these weights.
        """
        epsilon = np.sqrt(8 * rho)
        return int(np.argmax(epsilon * scores / 2 + self.random.gumbel(size=len(scores))))


@dataclass
class Tree:
    """The noisy shares of the first column, and of each further one given an earlier one, in an order to draw in."""

    root: int
    first: np.ndarray
    branches: list[tuple[int, int, np.ndarray]]  # parent, child, shares [parent's code, child's code]

    def draw(self, rows: int, random: np.random.Generator) -> dict[int, np.ndarray]:
        """Codes of invented patients, by column."""
        codes = {self.root: random.choice(len(self.first), rows, p=self.first)}
        for parent, child, shares in self.branches:
            edges = shares.cumsum(axis=1)[codes[parent]]
            codes[child] = (random.random((rows, 1)) > edges[:, :-1]).sum(axis=1)
        return codes


def noisy_columns(codes: list[np.ndarray], sizes: list[int], rho: float, noise: Noise) -> list[np.ndarray]:
    """How many patients have each code of each column, with noise, none below 0."""
    each = COLUMNS * rho / len(codes)
    return [
        proper(noise.counts(np.bincount(code, minlength=size), each)) for code, size in zip(codes, sizes, strict=True)
    ]


def grow(codes: list[np.ndarray], columns: list[np.ndarray], rho: float, noise: Noise) -> Tree:
    """The tree over columns whose noisy counts are known already, as the rest of the budget allows."""
    edges = spanning_tree(codes, columns, CHOICE * rho, noise)
    joint = {}
    for one, other in edges:
        true = pair_counts(codes, one, other, columns)
        noisy = proper(noise.counts(true, PAIRS * rho / len(edges)))
        joint[one, other] = fitted(noisy, columns[one], columns[other])
    reached, branches = [0], []
    while len(reached) < len(codes):
        one, other = next(pair for pair in joint if (pair[0] in reached) != (pair[1] in reached))
        together = joint[one, other] if one in reached else joint[one, other].T
        parent, child = (one, other) if one in reached else (other, one)
        branches.append((parent, child, shares(together, columns[child])))
        reached.append(child)
    return Tree(0, columns[0] / columns[0].sum(), branches)


def spanning_tree(
    codes: list[np.ndarray], columns: list[np.ndarray], rho: float, noise: Noise
) -> list[tuple[int, int]]:
    """One pair after the other, each chosen among those that join two parts that are not joined yet.

    A pair's score is how far its counts are from what its columns would give if they were independent: the sum of the
    differences, which changes by 1 at most with one patient, as the noisy counts of the columns do not change.
    """
    pairs = [(one, other) for one in range(len(codes)) for other in range(one)]
    scores = np.array([surprise(codes, *pair, columns) for pair in pairs])
    part = list(range(len(codes)))
    chosen = []
    for _ in range(len(codes) - 1):
        open_ones = [place for place, (one, other) in enumerate(pairs) if part[one] != part[other]]
        one, other = pairs[open_ones[noise.choice(scores[open_ones], rho / (len(codes) - 1))]]
        chosen.append((one, other))
        part = [part[one] if group == part[other] else group for group in part]
    return chosen


def surprise(codes: list[np.ndarray], one: int, other: int, columns: list[np.ndarray]) -> float:
    expected = np.outer(columns[one], columns[other]) / max(columns[other].sum(), 1)
    return float(np.abs(pair_counts(codes, one, other, columns) - expected).sum())


def pair_counts(codes: list[np.ndarray], one: int, other: int, columns: list[np.ndarray]) -> np.ndarray:
    shape = len(columns[one]), len(columns[other])
    return np.bincount(codes[one] * shape[1] + codes[other], minlength=shape[0] * shape[1]).reshape(shape)


def proper(noisy: np.ndarray) -> np.ndarray:
    """The nearest counts that are not below 0 and have the same sum: most of the noise in empty places goes away."""
    total = max(noisy.sum(), 1.0)
    ordered = np.sort(noisy.ravel())[::-1]
    excess = (ordered.cumsum() - total) / np.arange(1, noisy.size + 1)
    return np.maximum(noisy - excess[np.flatnonzero(ordered > excess)[-1]], 0)


def fitted(together: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """A pair's counts, scaled until their sums are those of the two columns, which were told with less noise."""
    together = together + 1e-3
    for _ in range(50):
        together *= (rows / np.maximum(together.sum(axis=1), 1e-12))[:, None]
        together *= columns / np.maximum(together.sum(axis=0), 1e-12)
    return together


def shares(together: np.ndarray, child: np.ndarray) -> np.ndarray:
    """What share of each row goes where; a row without anybody goes where all others go."""
    together = together + 1e-9 * child / child.sum()
    return together / together.sum(axis=1, keepdims=True)
