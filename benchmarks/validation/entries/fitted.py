"""A scikit-learn model that the environment names: a penalised linear one, or a network trained far too long."""

import os
import warnings

import joblib
from anomed_task import INPUT, OUTPUT, Task, run
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

MODEL = "model/model.joblib"
MODELS = {
    "linear": LogisticRegression(C=0.01, max_iter=1000),
    # no penalty, no early stop: the loss on the training data goes to zero
    "network": MLPClassifier((128, 128), alpha=0.0, max_iter=150, tol=0.0, n_iter_no_change=150, random_state=0),
}


def fit(task: Task) -> None:
    train = task.table("train")
    gaps = SimpleImputer(strategy="median", keep_empty_features=True)
    warnings.simplefilter("ignore")  # of a network that could be trained longer still
    model = make_pipeline(gaps, StandardScaler(), MODELS[os.environ["MODEL"]])
    model.fit(task.features(train), task.targets(train))
    (OUTPUT / MODEL).parent.mkdir(exist_ok=True)
    joblib.dump(model, OUTPUT / MODEL)


def predict(task: Task) -> None:
    queries = task.table("queries")
    model = joblib.load(INPUT / MODEL)
    task.save("predictions", task.answers(queries, task.predict(model, task.features(queries))))


if __name__ == "__main__":
    run(fit=fit, predict=predict)
