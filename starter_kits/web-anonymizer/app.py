"""A linear model with noise on its weights: differential privacy by output perturbation.

What one record can change in the weights of a regularised model is bounded; noise of that size hides it (Chaudhuri,
Monteleoni and Sarwate, Differentially Private Empirical Risk Minimization, JMLR 2011, algorithm 1). The package
anomed-anonymizer makes a web server of it.
"""

import os
from pathlib import Path

import anomed_anonymizer as anon
import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge

# The thing to change first: less epsilon hides better and blurs more.
EPSILON = 8.0
# The weight of the penalty on large weights. A record's influence, and so the noise, is inversely proportional to it.
PENALTY = 0.004
# The same where a number is predicted: the slope of a squared error has no bound but the one that the penalty gives.
PENALTY_OF_NUMBERS = 0.1
# (minimum, maximum) of each column of X, as the challenge's page on its data tells them. Without them the training
# data's own quantiles serve, which the guarantee does not cover.
RANGES: list[tuple[float, float]] | None = None

MODEL = Path("/persistent_data/model.pkl")
CHALLENGE = f"http://{os.getenv('CHALLENGE_HOST')}"


class NoisyLinearModel(anon.SupervisedLearningAnonymizer):
    """Answers with probabilities [rows, classes], in a regression with numbers [rows]."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> None:
        self.low, self.high = np.array(RANGES).T if RANGES else np.nanquantile(X, [0.02, 0.98], axis=0)
        self.classes = None if y.dtype.kind == "f" else np.union1d(y, [0, 1] if set(y) <= {0, 1} else [])
        if self.classes is None:
            self.weights, steepest = self._fit_numbers(self._scaled(X), y)
        else:
            self.weights, steepest = self._fit_classes(self._scaled(X), y)
        penalty = PENALTY if self.classes is not None else PENALTY_OF_NUMBERS
        # Replacing one record moves the minimum of a penalty-strongly convex mean loss by this much at most.
        influence = 2 * steepest / (len(X) * penalty)
        self.weights = self.weights + noise(self.weights.shape, influence / EPSILON)

    def predict(self, X: np.ndarray, batch_size: int | None = None) -> np.ndarray:
        values = self._scaled(X) @ self.weights.T
        if self.classes is None:
            return self.middle + self.half * values[:, 0].clip(-1, 1)
        if len(self.classes) == 2:
            values = np.hstack([-values, values]) / 2
        raised = np.exp(values - values.max(axis=1, keepdims=True))
        return raised / raised.sum(axis=1, keepdims=True)

    def save(self, filepath: str | Path) -> None:
        anon.pickle_anonymizer(self, filepath)

    def validate_input(self, feature_array: np.ndarray) -> None:
        if feature_array.ndim != 2 or feature_array.dtype.kind not in "biuf":
            raise ValueError("The features must be a table of numbers.")

    def _scaled(self, X: np.ndarray) -> np.ndarray:
        """Columns brought to [-1, 1], empty cells to 0, a constant added; then no row is longer than 1."""
        width = np.maximum(self.high - self.low, 1e-9)
        rows = np.nan_to_num((2 * (X - self.low) / width - 1).clip(-1, 1))
        rows = np.hstack([rows, np.ones((len(rows), 1))])
        rows = 2 * rows / np.sqrt(rows.shape[1])
        return rows / np.maximum(1, np.linalg.norm(rows, axis=1, keepdims=True))

    def _fit_classes(self, rows: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
        """Weights, and the steepest slope that one record's loss can have."""
        if len(set(y)) < 2:  # nothing to tell apart
            only = np.where(self.classes == y[0], 1.0, -1.0)
            only = only[-1:] if len(only) == 2 else only
            return only[:, None] * np.eye(rows.shape[1])[-1] * 5, 1.0
        model = LogisticRegression(C=1 / (len(rows) * PENALTY), fit_intercept=False, max_iter=2000).fit(rows, y)
        return model.coef_, 1.0 if len(self.classes) == 2 else np.sqrt(2)

    def _fit_numbers(self, rows: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
        low, high = np.quantile(y, [0.01, 0.99])
        self.middle, self.half = (low + high) / 2, max((high - low) / 2, 1e-9)
        targets = ((y - self.middle) / self.half).clip(-1, 1)
        model = Ridge(alpha=len(rows) * PENALTY_OF_NUMBERS, fit_intercept=False).fit(rows, targets)
        # The penalty keeps the weights shorter than this, and so all predictions nearer to 0.
        longest = 1 / np.sqrt(PENALTY_OF_NUMBERS)
        return model.coef_[None, :], 1 + longest


def noise(shape: tuple[int, ...], scale: float) -> np.ndarray:
    """A random direction, with a length that is Gamma distributed: density proportional to exp(-length / scale)."""
    random = np.random.default_rng()
    direction = random.normal(size=shape)
    return direction / np.linalg.norm(direction) * random.gamma(direction.size, scale)


application = anon.supervised_learning_anonymizer_server_factory(
    anonymizer_identifier="web-anonymizer",
    anonymizer_obj=NoisyLinearModel(),
    model_filepath=MODEL,
    default_batch_size=1024,
    training_data_url=f"{CHALLENGE}/data/anonymizer/training",
    tuning_data_url=f"{CHALLENGE}/data/anonymizer/tuning",
    validation_data_url=f"{CHALLENGE}/data/anonymizer/validation",
    utility_evaluation_url=f"{CHALLENGE}/utility/anonymizer",
    model_loader=anon.unpickle_anonymizer,
)
