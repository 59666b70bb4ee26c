"""Suspects records around which the release is denser than the population is.

A generator that has learned its patients by heart puts too many rows near them. Where many people are alike, rows are
dense for good reasons: so the density of the release is divided by that of `aux`, people of the same kind who were
certainly not in the training data (van Breugel et al., Membership Inference Attacks against Synthetic Data through
Overfitting Detection, AISTATS 2023, equation 2). Densities are sums of little bells, one around each row.
"""

import numpy as np
from anomed_task import Task, run
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from sklearn.impute import SimpleImputer
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import QuantileTransformer

# How wide the bells are, as a share of the usual distance to the nearest person. Which width tells most is seen on
# those whose membership is known.
WIDTHS = (0.04, 0.08, 0.2)
# Where the population is sparser than around so many of its people, no density can be told from nothing.
SPARSE = 0.25


def attack(task: Task) -> None:
    names = ("candidates", "known", "release", "aux")
    candidates, known, release, aux = (task.matrix(task.table(name), task.columns) for name in names)
    member = task.table("known")["member"].to_numpy(bool)
    gaps = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    # By ranks, so that neither a column's unit nor its outliers decide what is near.
    ranks = make_pipeline(gaps, QuantileTransformer(n_quantiles=min(200, len(aux)), subsample=None)).fit(aux)
    asked = ranks.transform(np.concatenate([known, candidates]))
    to_release, to_aux = (cdist(asked, ranks.transform(table), "cityblock") for table in (release, aux))
    usual = np.median(to_aux.min(axis=1)) + 1e-9
    ratios = [density_ratio(to_release, to_aux, usual * width) for width in WIDTHS]
    # With nobody known, or all alike, the middle width is as good as any.
    judged = [roc_auc_score(member, ratio[: len(known)]) for ratio in ratios] if 0 < member.sum() < len(member) else []
    telling = int(np.argmax(judged)) if judged else 1
    task.save("scores", task.table("candidates")[["row"]].assign(score=ratios[telling][len(known) :]))


def density_ratio(to_release: np.ndarray, to_aux: np.ndarray, width: float) -> np.ndarray:
    """The logarithm of the release's density over the population's, for each row of the distances [asked, rows]."""
    there, expected = (logsumexp(-to / width, axis=1) - np.log(to.shape[1]) for to in (to_release, to_aux))
    least = np.quantile(expected, SPARSE)
    return np.logaddexp(there, least) - np.logaddexp(expected, least)


if __name__ == "__main__":
    run(attack=attack)
