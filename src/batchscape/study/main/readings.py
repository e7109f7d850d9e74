"""Values of a seed in the table of runs of the main job."""

import numpy as np
import pandas as pd

from batchscape.study import readings


def share_of_bound(rows: pd.DataFrame) -> float:
    """log(epochs at K·B ÷ epochs at B) ÷ log K, at one rate: 0 if as many epochs are needed, 1 if K times as many."""
    rows = rows.sort_values("batch")
    if not (rows["reached"] == True).all() or len(rows) != 2:  # noqa: E712 (the column also holds None)
        return np.nan
    epochs, batches = (np.log(rows[column].to_numpy(np.float64)) for column in ("epoch", "batch"))
    return float(np.diff(epochs)[0] / np.diff(batches)[0])


VALUES = {"share_of_bound": (share_of_bound, False)}
"""By name: the function, and whether its value is a ratio, whose mean over seeds is geometric."""

readings.register(VALUES)
