"""The likelihood-ratio attack, offline: how unlikely is this answer of a model that was not trained on the record?

Shadow models, each trained on a random half of `aux`, show which confidence a model has in a candidate that it never
saw: a normal distribution per candidate. The score is how far the defense's confidence lies above it, in standard
deviations (Carlini et al., Membership Inference Attacks From First Principles, S&P 2022, section VI.A; its one-sided
probability orders the candidates alike, but would tie those far out).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from anomed_task import Task, run
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

SHADOWS = 16
Family = Callable[[Task, int], Any]


def regression(task: Task, seed: int) -> Any:
    last = LogisticRegression(C=0.02, max_iter=1000) if task.labels else Ridge(alpha=50)
    return make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler(), last)


def forest(task: Task, seed: int) -> Any:
    kind = RandomForestClassifier if task.labels else RandomForestRegressor
    return kind(n_estimators=50, bootstrap=False, max_features="sqrt", random_state=seed)


def attack(task: Task) -> None:
    aux, candidates = task.table("aux"), task.table("candidates")
    of_aux = task.confidence(aux, task.read_answers("aux_answers", aux))
    of_candidates = task.confidence(candidates, task.read_answers("answers", candidates))

    def mismatch(shadows: tuple[np.ndarray, np.ndarray]) -> float:
        """How badly these shadows foretell what the defense makes of people whom it has not seen either."""
        judged = ~np.isnan(shadows[0]).all(axis=0)
        return float(np.mean((np.nanmean(shadows[0][:, judged], axis=0) - of_aux[judged]) ** 2))

    # A regression cannot tell classes apart of which it has seen but one.
    families = (regression, forest) if aux[task.target].nunique() > 1 else (forest,)
    _, unseen = min((shadow_confidences(task, family) for family in families), key=mismatch)
    variance = unseen.var(axis=0)
    # From few shadows a candidate's own variance is a rough guess: half of it is borrowed from all the others.
    spread = np.sqrt((variance + variance.mean()) / 2)
    scores = (of_candidates - unseen.mean(axis=0)) / np.maximum(spread, 1e-6)
    task.save("scores", candidates[["row"]].assign(score=scores))


def shadow_confidences(task: Task, family: Family) -> tuple[np.ndarray, np.ndarray]:
    """The shadows' confidences in aux [SHADOWS, aux] (NaN where trained on) and candidates [SHADOWS, candidates]."""
    aux, candidates = task.table("aux"), task.table("candidates")
    features, targets = task.features(aux), task.targets(aux)
    asked = task.features(candidates)
    random = np.random.default_rng(task.seed)
    of_aux = np.full((SHADOWS, len(aux)), np.nan)
    of_candidates = np.empty((SHADOWS, len(candidates)))
    for number in range(SHADOWS):
        seen = half(task, targets, random)
        unseen = np.setdiff1d(np.arange(len(aux)), seen)
        shadow = family(task, number).fit(features[seen], targets[seen])
        of_aux[number, unseen] = task.confidence(aux.iloc[unseen], task.predict(shadow, features[unseen]).round(4))
        of_candidates[number] = task.confidence(candidates, task.predict(shadow, asked).round(4))
    return of_aux, of_candidates


def half(task: Task, targets: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Positions of a random half, drawn class by class and rounded up: also of a rare class a shadow sees something."""
    groups = (
        [np.flatnonzero(targets == label) for label in np.unique(targets)] if task.labels else [range(len(targets))]
    )
    return np.concatenate([random.permutation(group)[: (len(group) + 1) // 2] for group in groups])


if __name__ == "__main__":
    run(attack=attack)
