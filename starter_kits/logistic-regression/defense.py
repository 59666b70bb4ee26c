"""A risk score as clinics use them: measurements cut into steps, and points for each step by logistic regression.

(By ridge regression where the target is a number.) Useful, and far from knowing its patients by heart; but the fewer
people share a step, the more do its points say about them.
"""

import warnings

import joblib
import numpy as np
from anomed_task import INPUT, OUTPUT, Task, run
from sklearn.dummy import DummyClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline, make_union
from sklearn.preprocessing import KBinsDiscretizer, StandardScaler

MODEL = "model/score.joblib"
# The two things to change first: fewer steps, or a stronger penalty, and a single person moves the points less.
STEPS = 20
PENALTY = 50.0


def score(task: Task, targets: np.ndarray) -> Pipeline:
    """The score itself: every feature as it is (standardised), and as one 0/1 column per step."""
    steps = KBinsDiscretizer(STEPS, encode="onehot-dense", quantile_method="averaged_inverted_cdf")
    points = LogisticRegression(C=1 / PENALTY, max_iter=1000) if task.labels else Ridge(alpha=PENALTY)
    if task.labels and len(np.unique(targets)) == 1:  # a rare class may be absent: there is nothing to weigh
        points = DummyClassifier()
    gaps = SimpleImputer(strategy="median", keep_empty_features=True)
    return make_pipeline(gaps, make_union(StandardScaler(), steps), points)


def fit(task: Task) -> None:
    train = task.table("train")
    # A feature with few values has fewer steps than asked for, which is as it should be.
    warnings.filterwarnings("ignore", message="Bins whose width are too small|Feature .* is constant")
    targets = task.targets(train)
    model = score(task, targets).fit(task.features(train), targets)
    (OUTPUT / MODEL).parent.mkdir(exist_ok=True)
    joblib.dump(model, OUTPUT / MODEL)


def predict(task: Task) -> None:
    queries = task.table("queries")
    model = joblib.load(INPUT / MODEL)
    task.save("predictions", task.answers(queries, task.predict(model, task.features(queries))))


if __name__ == "__main__":
    run(fit=fit, predict=predict)
