"""Part 1: attacks that know nothing, against a defense that tells nothing."""

from __future__ import annotations

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

from benchmarks.common import Verdict
from benchmarks.validation.report import BLUE, RED, Figure, Part, Table, percent, plus_minus
from benchmarks.validation.simulate import Floats
from challenges import features, splits, tables
from challenges.metrics import duel
from challenges.scenarios.membership import estimates
from challenges.schema import Schema
from challenges.splits import Deal, Sizes

NHANES = Path(__file__).parents[2] / "challenges" / "bundled" / "nhanes-diabetes" / "data.parquet"
DRAWN, COLUMNS, MIXTURES = 10, 10, 5  # and one attack for each of LEARNERS: 30
ROUNDS, QUICK_ROUNDS = 200, 12
SEEDS = 3
# At most so many rounds may lie outside three standard errors. Of normal noise 0.3 % do; but the terms of W share data
# through the choice of the worst attack, and its standard error knows nothing of that.
OUTSIDE_AT_MOST = 0.05


def run(*, quick: bool = False) -> Part:
    rounds = QUICK_ROUNDS if quick else ROUNDS
    profile = tables.profile(NHANES, ".parquet", target="diabetes")
    with TemporaryDirectory() as folder:
        tables.write_canonical(NHANES, profile.schema, Path(folder, "table.parquet"))
        frame = tables.read(Path(folder, "table.parquet"))
    inputs = features.matrix(frame, profile.schema, profile.schema.shared)
    inputs = np.nan_to_num((inputs - np.nanmean(inputs, axis=0)) / (np.nanstd(inputs, axis=0) + 1e-9))
    settings = {"development": (1, 2), "final": (SEEDS, 1)}
    worst: dict[str, list[duel.WorstLeak]] = {name: [] for name in settings}
    naive: dict[str, list[float]] = {name: [] for name in settings}
    for number in range(rounds):
        for name, (seeds, folds) in settings.items():
            values, errors = _leaks(frame, inputs, profile.schema, number, seeds, folds)
            worst[name].append(duel.crossfit(values, errors))
            naive[name].append(float(values.mean(axis=0).max()))
    return _part(worst, naive)


def _leaks(frame: Any, inputs: Floats, schema: Schema, number: int, seeds: int, folds: int) -> tuple[Floats, Floats]:
    """Leaks of 30 useless attacks on one evaluation, and their standard errors: [unit, attack, metric]."""
    units = []
    for seed in range(seeds):
        deal = splits.deal(
            frame,
            schema,
            secret=b"validation: null",
            challenge="nhanes-diabetes",
            phase="final" if seeds > 1 else "development",
            scope=f"round {number}",
            seed=seed,
            sizes=Sizes(1000, 500, 2400),
            folds=folds,
        )
        random = np.random.default_rng([number, seed, folds])
        units.append([estimates(deal, scores) for scores in _useless(deal, inputs, random)])
    values, errors = (
        np.concatenate([np.stack([attack[index] for attack in unit], axis=1) for unit in units]) for index in (0, 1)
    )
    return values, errors


def _useless(deal: Deal, inputs: Floats, random: np.random.Generator) -> list[Floats]:
    """What 30 attacks make of the trivial anchor, whose answer is the same for everybody: they have records, no more.

    Some roll dice, some sort by a column, some mix columns, some learn from the candidates whose membership is told.
    The mixture of columns changes from round to round.
    """
    rows = inputs[deal.scored]
    made = [random.random(len(rows)) for _ in range(DRAWN)]
    chosen = random.choice(inputs.shape[1], COLUMNS, replace=False)
    made += [rows[:, column] * random.choice([-1, 1]) for column in chosen]
    made += [rows @ random.normal(size=inputs.shape[1]) for _ in range(MIXTURES)]
    for learner in _learners():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made.append(learner.fit(inputs[deal.revealed], deal.revealed_member).predict_proba(rows)[:, 1])
    return made


def _learners() -> list[Any]:
    return [
        LogisticRegression(C=0.1, max_iter=200),
        GaussianNB(),
        DecisionTreeClassifier(max_depth=5, random_state=0),
        KNeighborsClassifier(1),
        KNeighborsClassifier(15),
    ]


def _part(worst: dict[str, list[duel.WorstLeak]], naive: dict[str, list[float]]) -> Part:
    rounds = len(naive["final"])
    rows, facts, verdicts = [], {}, []
    z = {name: np.array([one.mean / (one.standard_error or np.inf) for one in all_]) for name, all_ in worst.items()}
    means = {name: np.array([one.mean for one in all_]) for name, all_ in worst.items()}
    for name in worst:
        mean, error = float(means[name].mean()), float(means[name].std(ddof=1) / np.sqrt(rounds))
        outside = float(np.mean(np.abs(z[name]) > 3))
        top = float(np.mean(naive[name]))
        facts[name] = {
            "mean": round(mean, 5), "error": round(error, 5), "z_mean": round(float(z[name].mean()), 3),
            "z_spread": round(float(z[name].std(ddof=1)), 3), "outside_3": outside, "naive": round(top, 4),
            "naive_least": round(float(np.min(naive[name])), 4),
        }  # fmt: skip
        rows.append(
            (
                name,
                plus_minus(mean, error, 4),
                f"{means[name].std(ddof=1):.4f}",
                f"{z[name].std(ddof=1):.2f}",
                percent(float(np.mean(np.abs(z[name]) <= 3))),
                f"{top:.4f}",
                f"{np.min(naive[name]):.4f}",
            )
        )
        verdicts += [
            Verdict(f"null, {name}: share of rounds with W beyond 3 standard errors of 0", outside, OUTSIDE_AT_MOST),
            Verdict(f"null, {name}: distance of the mean W from 0, in its standard errors", abs(mean) / error, 3.0),
        ]
    final, development = facts["final"], facts["development"]
    answer = (
        f"Thirty attacks that cannot know anything were set on a defense that tells nothing, {rounds} times over. "
        "Whoever reports the best of the thirty, as many comparisons do, reports a leak of "
        f"{percent(development['naive'])} in the development phase and {percent(final['naive'])} in a final on "
        f"average, and never less than {percent(min(development['naive_least'], final['naive_least']))}: chance "
        "alone, read as harm. The arena chooses the worst attack on one part of the people and measures it on "
        f"another. Its figure is on average {percent(development['mean'], 2)} in the development phase and "
        f"{percent(final['mean'], 2)} in a final, and lay within three standard errors of zero in "
        f"{percent(1 - development['outside_3'])} and {percent(1 - final['outside_3'])} of the rounds."
    )
    method = (
        "Records: NHANES 2017-18 (5,018 adults), dealt anew in every round by `challenges.splits.deal`: 2,400 "
        "candidates, 1,920 of them scored. Development: one draw in two folds; final: three draws. The defense is "
        "the trivial anchor, whose answer is the same for everybody, so that an attack has nothing but the records: "
        "10 attacks roll dice, 10 sort by one column, 5 by random mixtures of columns, 5 learn from the candidates "
        "whose membership is told (logistic regression, naive Bayes, a tree, 1 and 15 nearest neighbours). W is "
        "shown before it is clipped at 0. Its standard error takes the chosen attacks as given; as the choice "
        "follows noise here, W spreads a little more than it says (the fourth column), and more often than in 0.3 % "
        "of the rounds beyond three of them. The intervals on the boards come from resamples in which the choice is "
        "made anew, see part 2."
    )
    return Part(
        name="null",
        title="Where there is nothing to find, nothing is found",
        question="Does the arena report a leak where there is none?",
        answer=answer,
        method=method,
        facts=facts,
        verdicts=verdicts,
        tables=[
            Table(
                f"{rounds} rounds of 30 useless attacks. The truth is 0 everywhere.",
                ("phase", "mean W ± its error", "spread of W", "spread of W / its standard error (1 is right)",
                 "W within 3 standard errors of 0", "naive maximum, mean", "naive maximum, smallest"),
                rows,
            )
        ],
        figures=[
            Figure(
                "null",
                f"Two histograms of {rounds} rounds each. The cross-fitted W lies around zero; the naive maximum lies "
                "wholly to the right of zero.",
                _draw,
                {name: (means[name], naive[name]) for name in means},
                panels=2,
            )
        ],
    )  # fmt: skip


def _draw(axes: Any, data: dict[str, tuple[Floats, list[float]]]) -> None:
    for axis, (name, (means, naive)) in zip(axes, data.items(), strict=True):
        edges = np.linspace(min(means.min(), 0), max(naive), 40)
        axis.hist(means, edges, color=BLUE, label="cross-fitted W (the arena's)", alpha=0.85)
        axis.hist(naive, edges, color=RED, label="maximum of 30 attacks (naive)", alpha=0.85)
        axis.axvline(0, color="#222222", linewidth=1)
        axis.set(title=name, xlabel="reported leak (the truth is 0)", ylabel="rounds")
        axis.set_ylim(top=1.3 * axis.get_ylim()[1])  # room for the legend
    axes[0].legend(frameon=False)
