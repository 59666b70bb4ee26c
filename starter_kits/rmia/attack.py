"""Compares the defense's answer about a candidate with its answers about many who were certainly not in training.

How much likelier is the candidate's class under the defense than under models at large? And for how many people of the
population is the candidate's ratio the larger one, by a factor of GAMMA? Models at large are a few that were trained on
parts of `aux`; whom they have not seen they judge as strangers (Zarifzadeh, Liu and Shokri, Low-Cost High-Power
Membership Inference Attacks, ICML 2024; offline, equations 2 and 10).
"""

from typing import Any

import numpy as np
import pandas as pd
from anomed_task import Task, run
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

MODELS = 4  # of each kind
GAMMA = 2.0
# How much of the likelihood that a model gives to its own training data is taken to be seen by strangers as well.
OFFLINE_A = 0.3


def attack(task: Task) -> None:
    tables = {name: task.table(name) for name in ("candidates", "aux")}
    answers = {"candidates": "answers", "aux": "aux_answers"}
    spread = error_spread(task, tables["aux"], task.read_answers("aux_answers", tables["aux"]))
    strangers = by_strangers(task, tables, spread)
    ratios = {}
    for name, table in tables.items():
        by_defense = likelihood(task, table, task.read_answers(answers[name], table), spread)
        ratios[name] = by_defense / ((1 + OFFLINE_A) / 2 * strangers[name] + (1 - OFFLINE_A) / 2)
    population = np.sort(ratios["aux"])
    scores = np.searchsorted(population, ratios["candidates"] / GAMMA, side="right") / len(population)
    # Many exceed all of the population, or nobody: among them the ratio itself decides.
    scores = scores + 1e-6 * ratios["candidates"].argsort().argsort() / len(scores)
    task.save("scores", tables["candidates"][["row"]].assign(score=scores))


def error_spread(task: Task, table: pd.DataFrame, predicted: np.ndarray) -> float:
    """The usual size of the defense's errors, where the target is a number; 1 otherwise."""
    return 1.0 if task.labels else float(np.abs(task.targets(table) - predicted).mean()) + 1e-9


def likelihood(task: Task, table: pd.DataFrame, predicted: np.ndarray, spread: float) -> np.ndarray:
    """What each record's true class is given, or how near to its true number the prediction is (0 to 1)."""
    confidence = task.confidence(table, predicted)
    return 1 / (1 + np.exp(-confidence)) if task.labels else np.exp(confidence / spread)


def by_strangers(task: Task, tables: dict[str, pd.DataFrame], spread: float) -> dict[str, np.ndarray]:
    """The mean likelihood of the records of both tables under models that have not seen them."""
    aux = tables["aux"]
    features, targets = task.features(aux), task.targets(aux)
    asked = task.features(tables["candidates"])
    random = np.random.default_rng(task.seed)
    of_candidates, of_aux = np.zeros(len(asked)), np.zeros(len(aux))
    asked_judges, judges = 0, np.zeros(len(aux))
    for number in range(MODELS):
        # Each half of aux judges the other.
        place = random.permutation(len(aux))
        for seen, unseen in (np.array_split(place, 2), np.array_split(place, 2)[::-1]):
            for model in models(task, len(np.unique(targets[seen])), number):
                model.fit(features[seen], targets[seen])
                of_candidates += likelihood(task, tables["candidates"], told(task, model, asked), spread)
                of_aux[unseen] += likelihood(task, aux.iloc[unseen], told(task, model, features[unseen]), spread)
                judges[unseen] += 1
                asked_judges += 1
    return {"candidates": of_candidates / asked_judges, "aux": of_aux / np.maximum(judges, 1)}


def told(task: Task, model: Any, features: np.ndarray) -> np.ndarray:
    """As the platform hands on answers: with four decimals."""
    return task.predict(model, features).round(4)


def models(task: Task, classes: int, seed: int) -> list[Any]:
    """One of each kind, untrained."""
    forest = RandomForestClassifier if task.labels else RandomForestRegressor
    kinds: list[Any] = [forest(n_estimators=50, min_samples_leaf=2, random_state=seed)]
    if classes > 1:  # a regression cannot tell classes apart of which it sees but one
        last = LogisticRegression(C=0.02, max_iter=1000) if task.labels else Ridge(alpha=50)
        gaps = SimpleImputer(strategy="median", keep_empty_features=True)
        kinds.append(make_pipeline(gaps, StandardScaler(), last))
    return kinds


if __name__ == "__main__":
    run(attack=attack)
