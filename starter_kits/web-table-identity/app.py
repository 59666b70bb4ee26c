"""Releases the table as it is: nothing is more useful, nothing leaks more."""

import os

import anomed_anonymizer as anon
import pandas as pd

CHALLENGE = f"http://{os.getenv('CHALLENGE_HOST')}"


class Identity(anon.TabularDataAnonymizer):
    def anonymize(self, leaky_data: pd.DataFrame) -> tuple[pd.DataFrame, str]:
        return leaky_data, "same"


application = anon.tabular_data_anonymizer_server_factory(
    anonymizer_identifier="web-table-identity",
    anonymizer_obj=Identity(),
    output_dir="/persistent_data",
    leaky_data_url=f"{CHALLENGE}/data/anonymizer/leaky",
    utility_evaluation_url=f"{CHALLENGE}/utility/anonymizer",
)
