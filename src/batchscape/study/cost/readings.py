"""Values of a round in the tables of `run_cost_study`: times of an update, and memory.

Rows are those of one net, or of the narrowest and the widest of one kind.
"""

import numpy as np
import pandas as pd

from batchscape.cost.line import fit_line
from batchscape.study import readings


def line_of_time(rows: pd.DataFrame) -> tuple[float, float]:
    """Fit ms = a + b B to the median at each batch size, by least squares of errors relative to ms.

    Returns:
        a, b, in milliseconds and milliseconds an example.
    """
    medians = rows.groupby("batch")["milliseconds"].median()
    line = fit_line(medians.index, medians, relative=True)
    return line.intercept, line.slope


def line_of_memory(rows: pd.DataFrame) -> tuple[float, float, float]:
    """Fit M = M₀ + c B to the mean at each batch size, by least squares.

    Returns:
        M₀ in bytes, c in bytes an example, and R².
    """
    means = rows.groupby("batch")["peak_bytes"].mean()
    line = fit_line(means.index, means)
    return line.intercept, line.slope, line.r_squared


def seconds_of_epoch(rows: pd.DataFrame) -> pd.Series:
    """Seconds of the updates of an epoch, ⌈N / B⌉ times the median of an update, by batch size."""
    medians = rows.groupby("batch")["milliseconds"].median()
    return np.ceil(rows["n_train"].iloc[0] / medians.index) * medians / 1e3


def epoch_of_largest(rows: pd.DataFrame) -> float | None:
    """Time of an epoch at the largest batch ÷ at the smallest."""
    if _is_pair(rows):
        return None
    seconds = seconds_of_epoch(rows)
    return float(seconds.iloc[-1] / seconds.iloc[0])


def last_gain(rows: pd.DataFrame) -> float | None:
    """Examples a second at the largest batch ÷ at the largest one that is at most half of it."""
    if _is_pair(rows):
        return None
    speeds = rows.groupby("batch")["samples_per_second"].median()
    return float(speeds.iloc[-1] / speeds[speeds.index <= speeds.index[-1] / 2].iloc[-1])


def fixed_share_of_smallest(rows: pd.DataFrame) -> float | None:
    """A / (a + b B), the share of an update's time that does not depend on the batch, at the smallest batch."""
    return _fixed_share(rows, rows["batch"].min())


def fixed_share_of_largest(rows: pd.DataFrame) -> float | None:
    """The same at the largest."""
    return _fixed_share(rows, rows["batch"].max())


def _fixed_share(rows: pd.DataFrame, batch: int) -> float | None:
    if _is_pair(rows):
        return None
    a, b = line_of_time(rows)
    return a / (a + b * batch)


def examples_of_an_update(rows: pd.DataFrame) -> float | None:
    """A / b, what an update costs besides its examples, in examples: at this batch size half of the speed is reached."""
    if _is_pair(rows):
        return None
    a, b = line_of_time(rows)
    return a / b if min(a, b) > 0 else np.nan


def widest_by_narrowest(rows: pd.DataFrame) -> float | None:
    """A / b of the widest net ÷ that of the narrowest."""
    if not _is_pair(rows):
        return None
    narrow, wide = (examples_of_an_update(rows) for _, rows in rows.groupby("width"))
    return wide / narrow


def r_squared_of_memory(rows: pd.DataFrame) -> float:
    """Share of the variance of memory that a rising line explains; 0 where it does not rise."""
    _, slope, r_squared = line_of_memory(rows)
    return r_squared if slope > 0 else 0.0


def slope_by_activations(rows: pd.DataFrame) -> float:
    """Bytes by which an example raises memory ÷ bytes of its activations; NaN where memory does not rise."""
    _, slope, _ = line_of_memory(rows)
    return slope / rows["activation_bytes"].iloc[0] if slope > 0 else np.nan


def _is_pair(rows: pd.DataFrame) -> bool:
    return rows["net"].nunique() > 1


VALUES = {
    "epoch_of_largest": (epoch_of_largest, True),
    "last_gain": (last_gain, True),
    "fixed_share_of_smallest": (fixed_share_of_smallest, False),
    "fixed_share_of_largest": (fixed_share_of_largest, False),
    "examples_of_an_update": (examples_of_an_update, True),
    "widest_by_narrowest": (widest_by_narrowest, True),
    "r_squared_of_memory": (r_squared_of_memory, False),
    "slope_by_activations": (slope_by_activations, True),
}
"""By name: the function, and whether its value is a ratio, whose mean over rounds is geometric."""

readings.register(VALUES)
