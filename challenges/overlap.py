"""Whether two tables have records in common."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from challenges.schema import Schema


def fingerprints(table: pd.DataFrame, schema: Schema) -> NDArray[np.uint64]:
    """One number per row that is the same for rows that agree in all columns but the patient id."""
    plain = {
        column.name: table[column.name].astype("object").where(table[column.name].notna(), "")
        if column.type == "category"
        else table[column.name].to_numpy(dtype=np.float64, na_value=np.nan) + 0.0  # one zero, one NaN
        for column in schema.shared
    }
    return np.asarray(pd.util.hash_pandas_object(pd.DataFrame(plain), index=False), dtype=np.uint64)


def shared_rows(sample: pd.DataFrame, table: pd.DataFrame, schema: Schema) -> int:
    """How many rows of `sample` are rows of `table`, the patient id aside."""
    return int(np.isin(fingerprints(sample, schema), fingerprints(table, schema)).sum())
