"""Suspects the records that the defense knows better than a model that never saw them.

A model errs less on what it was trained on, but also on records that are easy anyway. So the attack trains a model of
its own on `aux`, which holds no candidate, and subtracts that model's confidence: what is left is what the defense
knows beyond the record's difficulty (Watson et al., On the Importance of Difficulty Calibration in Membership
Inference Attacks, ICLR 2022).
"""

import numpy as np
import pandas as pd
from anomed_task import Task, run
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor


def attack(task: Task) -> None:
    candidates = task.table("candidates")
    seen = task.confidence(candidates, task.read_answers("answers", candidates))
    expected = task.confidence(candidates, answers_of_a_stranger(task, candidates))
    task.save("scores", candidates[["row"]].assign(score=seen - expected))


def answers_of_a_stranger(task: Task, candidates: pd.DataFrame) -> np.ndarray:
    """What a model says of the candidates that was trained without any of them."""
    aux = task.table("aux")
    forest = RandomForestClassifier if task.labels else RandomForestRegressor
    # Leaves of 5 records: probabilities between 0 and 1 also where single trees would be certain.
    model = forest(n_estimators=100, min_samples_leaf=5, random_state=task.seed)
    model.fit(task.features(aux), task.targets(aux))
    return task.predict(model, task.features(candidates)).round(4)


if __name__ == "__main__":
    run(attack=attack)
