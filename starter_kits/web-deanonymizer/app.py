"""Suspects the records that the model is surest and rightest about; a threshold makes verdicts of that.

The simplest membership inference attack (Yeom et al., Privacy Risk in Machine Learning, CSF 2018), on the base class
and the web server of the package anomed-deanonymizer. Only /evaluate is its own: it posts a score beside each verdict.
"""

import json
import os
from pathlib import Path

import anomed_deanonymizer as deanon
import anomed_utils as utils
import falcon
import numpy as np
import requests

MODEL = Path("/persistent_data/attack.pkl")
CHALLENGE = f"http://{os.getenv('CHALLENGE_HOST')}"
TARGET = f"http://{os.getenv('ATTACK_TARGET_HOST')}"
EVALUATION_DATA = f"{CHALLENGE}/data/attack-success-evaluation"
UTILITY = f"{CHALLENGE}/utility/deanonymizer"
NAMES = {"anonymizer": "web-anonymizer", "deanonymizer": "web-deanonymizer"}

# The platform rounds answers to 4 decimals: a probability of 0 may stand for anything up to this.
SMALLEST = 5e-5


class ConfidenceThreshold(deanon.SupervisedLearningMIA):
    """Asks the model about each record, once."""

    def fit(self, X_member: np.ndarray, y_member: np.ndarray, X_nonmember: np.ndarray, y_nonmember: np.ndarray) -> None:
        members, others = self.score(X_member, y_member), self.score(X_nonmember, y_nonmember)
        bounds = np.unique(np.concatenate([members, others]))
        hits = [(members >= bound).mean() - (others >= bound).mean() for bound in bounds]
        self.threshold = bounds[int(np.argmax(hits))]

    def score(self, X: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The log-odds that the model gives to the true class; of a number the error with a minus sign."""
        answers = ask(X)
        given = answers.get("probabilities", answers["prediction"])
        if given.ndim == 2 and given.shape[1] > 1:
            given = given[np.arange(len(y)), places(y, given.shape[1])].clip(SMALLEST, 1 - SMALLEST)
            return np.log(given) - np.log1p(-given)
        given = np.ravel(given)
        return -np.abs(given - y) if y.dtype.kind == "f" else (given == y).astype(float)

    def infer_memberships(self, X: np.ndarray, y: np.ndarray, batch_size: int | None = None) -> np.ndarray:
        return self.score(X, y) >= self.threshold

    def save(self, filepath: str | Path) -> None:
        deanon.pickle_deanonymizer(self, filepath)

    def validate_input(self, feature_array: np.ndarray) -> None:
        if feature_array.ndim != 2 or feature_array.dtype.kind not in "biuf":
            raise ValueError("The features must be a table of numbers.")


def ask(X: np.ndarray) -> dict[str, np.ndarray]:
    """The model's answers: `prediction` [rows], and of classes also `probabilities` [rows, classes]."""
    response = requests.post(f"{TARGET}/predict", data=utils.named_ndarrays_to_bytes({"X": X}), timeout=600)
    response.raise_for_status()
    return utils.bytes_to_named_ndarrays(response.content)


def places(y: np.ndarray, columns: int) -> np.ndarray:
    """The column of each label: classes 0, 1, 2, ... as they are, others in the order of their numbers."""
    classes = np.unique(y)
    return y if classes.min() >= 0 and classes.max() < columns else np.searchsorted(classes, y).clip(0, columns - 1)


class Evaluation:
    """POST /evaluate as the package serves it, with one array more in what it posts."""

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        split = request.get_param("data_split", required=True)
        if not MODEL.exists():
            raise falcon.HTTPBadRequest(description="This deanonymizer is not fitted yet.")
        attack = deanon.unpickle_deanonymizer(MODEL)
        asked = {**NAMES, "data_split": split}
        data = utils.get_named_arrays_or_raise(EVALUATION_DATA, ["X", "y"], params=asked, timeout=10)
        score = attack.score(data["X"], data["y"])
        verdict = {"prediction": score >= attack.threshold, "score": score}
        posted = requests.post(UTILITY, data=utils.named_ndarrays_to_bytes(verdict), params=asked, timeout=60)
        if posted.status_code != 201:
            raise falcon.HTTPInternalServerError(description="Utility evaluation failed.")
        response.text = json.dumps({"message": f"Evaluated on {split} data.", "evaluation": posted.json()})
        response.status = falcon.HTTP_CREATED


application = deanon.supervised_learning_MIA_server_factory(
    anonymizer_identifier=NAMES["anonymizer"],
    deanonymizer_identifier=NAMES["deanonymizer"],
    deanonymizer_obj=ConfidenceThreshold(),
    model_filepath=MODEL,
    default_batch_size=1024,
    member_url=f"{CHALLENGE}/data/deanonymizer/members",
    nonmember_url=f"{CHALLENGE}/data/deanonymizer/non-members",
    evaluation_data_url=EVALUATION_DATA,
    utility_evaluation_url=UTILITY,
    model_loader=deanon.unpickle_deanonymizer,
)
application.add_route("/evaluate", Evaluation())  # in place of the package's
