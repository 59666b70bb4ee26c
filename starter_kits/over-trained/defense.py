"""A neural network, trained far too long: it knows its patients by heart."""

import warnings

import joblib
import numpy as np
from anomed_task import INPUT, OUTPUT, Task, run
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

MODEL = "model/network.joblib"
# The two things to change first: fewer rounds, or a penalty, and it has less of a memory.
ROUNDS = 300
PENALTY = 0.0


def fit(task: Task) -> None:
    train = task.table("train")
    targets = task.targets(train)
    kind = MLPClassifier if task.labels else MLPRegressor
    # Small batches and long steps: it gets to know each patient many times over.
    size = {"hidden_layer_sizes": (128,), "batch_size": min(32, len(train)), "learning_rate_init": 0.003}
    network = kind(**size, alpha=PENALTY, max_iter=ROUNDS, tol=0, n_iter_no_change=ROUNDS, random_state=task.seed)
    if task.labels and len(np.unique(targets)) == 1:  # a rare class may be absent: there is nothing to learn
        network = DummyClassifier()
    model = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler(), network)
    # That it has not converged is no news.
    warnings.filterwarnings("ignore", category=ConvergenceWarning)
    model.fit(task.features(train), targets)
    (OUTPUT / MODEL).parent.mkdir(exist_ok=True)
    joblib.dump(model, OUTPUT / MODEL)


def predict(task: Task) -> None:
    queries = task.table("queries")
    model = joblib.load(INPUT / MODEL)
    task.save("predictions", task.answers(queries, task.predict(model, task.features(queries))))


if __name__ == "__main__":
    run(fit=fit, predict=predict)
