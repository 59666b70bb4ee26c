"""What organisers publish: challenges, their phases, their private data, and the report of the last check."""

from challenges.models.core import (
    SAMPLE_FOLDS,
    SAMPLE_SECRET,
    Challenge,
    Phase,
    _new_secret,
    metric_choices,
    scenario_choices,
    zone_choices,
)
from challenges.models.data import FILE_NAME_LENGTH, PATIENCE, CheckReport, Dataset, dataset_path

__all__ = [
    "FILE_NAME_LENGTH",
    "PATIENCE",
    "SAMPLE_FOLDS",
    "SAMPLE_SECRET",
    "Challenge",
    "CheckReport",
    "Dataset",
    "Phase",
    "_new_secret",
    "dataset_path",
    "metric_choices",
    "scenario_choices",
    "zone_choices",
]
