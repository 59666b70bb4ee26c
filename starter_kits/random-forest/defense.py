"""Fully grown trees on all the data: they know every training record by heart, and their answers say so."""

import joblib
from anomed_task import INPUT, OUTPUT, Task, run
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

MODEL = "model/forest.joblib"


def fit(task: Task) -> None:
    train = task.table("train")
    forest = RandomForestClassifier if task.labels else RandomForestRegressor
    # Without the bootstrap each tree sees each record, and grown to the end it repeats what it saw.
    model = forest(n_estimators=100, bootstrap=False, max_features="sqrt", random_state=task.seed)
    model.fit(task.features(train), task.targets(train))
    (OUTPUT / MODEL).parent.mkdir(exist_ok=True)
    joblib.dump(model, OUTPUT / MODEL)


def predict(task: Task) -> None:
    queries = task.table("queries")
    model = joblib.load(INPUT / MODEL)
    task.save("predictions", task.answers(queries, task.predict(model, task.features(queries))))


if __name__ == "__main__":
    run(fit=fit, predict=predict)
