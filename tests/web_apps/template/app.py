"""An anonymizer after the published example: wrapped, with labels as answers, constants left in names and URLs."""

import os

import anomed_anonymizer as anon
import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline


def validate_feature_array(feature_array: np.ndarray) -> None:
    if feature_array.ndim != 2:
        raise ValueError("Feature array needs to have two dimensions.")
    if feature_array.dtype != np.float64:
        raise ValueError("Feature array must be an array of floats.")


hostname = os.getenv("CHALLENGE_HOST")

application = anon.supervised_learning_anonymizer_server_factory(
    anonymizer_identifier="example_anonymizer",
    anonymizer_obj=anon.WrappedAnonymizer(
        make_pipeline(SimpleImputer(keep_empty_features=True), GaussianNB()),
        serializer=anon.pickle_anonymizer,
        feature_array_validator=validate_feature_array,
    ),
    model_filepath="/persistent_data/anonymizer.pkl",
    default_batch_size=64,
    training_data_url=f"http://{hostname}/data/anonymizer/training",
    tuning_data_url=f"http://{hostname}/data/anonymizer/tuning",
    # As in the published example, where it is wrong: the platform does not depend on it.
    validation_data_url=f"http://{hostname}/data/anonymizer/training",
    utility_evaluation_url=f"http://{hostname}/utility/anonymizer",
    model_loader=anon.unpickle_anonymizer,
)
