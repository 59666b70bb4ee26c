"""The kit web-anonymizer with a long fit: of any training data with as many rows as the image's environment says."""

import os
import time

import anomed_anonymizer as anon
import numpy as np
from kit import CHALLENGE, MODEL, NoisyLinearModel


class Slow(NoisyLinearModel):
    def fit(self, X: np.ndarray, y: np.ndarray) -> None:
        if len(X) >= int(os.environ["FIT_ROWS"]):
            time.sleep(float(os.environ["FIT_SECONDS"]))
        super().fit(X, y)


application = anon.supervised_learning_anonymizer_server_factory(
    anonymizer_identifier="slow",
    anonymizer_obj=Slow(),
    model_filepath=MODEL,
    default_batch_size=1024,
    training_data_url=f"{CHALLENGE}/data/anonymizer/training",
    tuning_data_url=f"{CHALLENGE}/data/anonymizer/tuning",
    validation_data_url=f"{CHALLENGE}/data/anonymizer/validation",
    utility_evaluation_url=f"{CHALLENGE}/utility/anonymizer",
    model_loader=anon.unpickle_anonymizer,
)
