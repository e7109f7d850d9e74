"""Values of a seed in the tables of `run_noise_study`: the gradient, last batches, the shape of the loss."""

import numpy as np
import pandas as pd

from batchscape.study import readings


def _drawn(rows: pd.DataFrame, quantity: str, *, replacement: bool) -> pd.Series:
    """A quantity by batch size, rising."""
    return rows[rows["replacement"] == replacement].set_index("batch")[quantity].sort_index()


def error_slope(rows: pd.DataFrame) -> float:
    """Slope of log E‖g_B − G‖² on log B, batches drawn with replacement; −1 for independent examples."""
    errors = _drawn(rows, "relative_error", replacement=True)
    return float(np.polyfit(np.log(errors.index), np.log(errors), 1)[0])


def error_of_full_size(rows: pd.DataFrame) -> float:
    """Relative error of the largest batch ÷ that of the smallest, drawn with replacement."""
    errors = _drawn(rows, "relative_error", replacement=True)
    return float(errors.iloc[-1] / errors.iloc[0])


def angle_of_large_batches(rows: pd.DataFrame) -> float:
    """Angle between successive gradients of the largest batch short of the whole ÷ that of the smallest batch."""
    angles = _drawn(rows, "angle", replacement=False)
    angles = angles[angles.index < rows["n"].iloc[0]]
    return float(angles.iloc[-1] / angles.iloc[0])


def gain_of_doubling(rows: pd.DataFrame) -> float:
    """What the cosine to the full gradient gains from 4 B_simple to 8 B_simple; NaN where no batch is that large."""
    cosines, scale = _drawn(rows, "cosine", replacement=True), rows["simple"].iloc[0]
    if not cosines.index[0] <= 4 * scale <= 8 * scale <= cosines.index[-1]:
        return np.nan
    at = np.interp(np.log([4 * scale, 8 * scale]), np.log(cosines.index), cosines)
    return float(at[1] - at[0])


def cosine_of_half(rows: pd.DataFrame) -> float:
    """Cosine between the gradient of half of the examples and that of all of them."""
    cosines = _drawn(rows, "cosine", replacement=False)
    return float(cosines.loc[cosines.index[np.abs(cosines.index - rows["n"].iloc[0] / 2).argmin()]])


def update_of_large_batches(rows: pd.DataFrame) -> float:
    """‖g_B‖ of the largest batch ÷ that of the smallest: the size of an update at one learning rate."""
    norms = _drawn(rows, "norm", replacement=False)
    return float(norms.iloc[-1] / norms.iloc[0])


def variance_of_a_last_batch_of_one(rows: pd.DataFrame) -> float:
    """E‖g_B − G‖² of a batch of one ÷ that of a batch of 100, drawn without replacement; NaN where one is missing."""
    errors = _drawn(rows, "relative_error", replacement=False)
    return float(errors[1] / errors[100]) if {1, 100} <= set(errors.index) else np.nan


def update_variance_slope(rows: pd.DataFrame) -> float:
    """Slope of log η² E‖g_B − G‖² on log B with η ∝ √B, batches drawn with replacement."""
    return error_slope(rows) + 1


def loss_after_a_last_batch_of_one(rows: pd.DataFrame) -> float:
    """By what the update of a last batch of one multiplies the validation loss."""
    return float(np.exp(rows["last_change"].iloc[0]))


def loss_kept_by_dropped(rows: pd.DataFrame) -> float | None:
    """Validation loss at the end of runs that keep a last batch of one ÷ of those that drop it."""
    ratio = rows["kept_by_dropped"].iloc[0]
    return None if np.isnan(ratio) else float(ratio)


def extra_time_exponent(rows: pd.DataFrame) -> float:
    """Exponent of the time of a full gradient in N, of a net less that of a convex loss."""
    slopes = {
        convex: np.polyfit(np.log(part["n"]), np.log(part["gradient_seconds"]), 1)[0]
        for convex, part in rows.groupby("convex")
    }
    return float(slopes[False] - slopes[True])


def bowl_of_linear_neuron(rows: pd.DataFrame) -> float | None:
    """What a paraboloid misses of the loss of a linear neuron at the longest step."""
    rows = rows[rows["net"] == "linear"]
    return float(rows.sort_values("radius")["residual"].iloc[-1]) if len(rows) else None


def bowl_of_smooth_net(rows: pd.DataFrame) -> float | None:
    """What a paraboloid misses of the loss of a net of tanh units at a step of 1 % of ‖w‖."""
    return _bowl_nearby(rows, "tanh")


def bowl_of_net_with_kinks(rows: pd.DataFrame) -> float | None:
    """The same of a net of ReLU units."""
    return _bowl_nearby(rows, "ReLU")


def _bowl_nearby(rows: pd.DataFrame, net: str) -> float | None:
    rows = rows[(rows["net"] == net) & np.isclose(rows["radius"], 0.01)]
    return float(rows["residual"].iloc[0]) if len(rows) else None


VALUES = {
    "error_slope": (error_slope, False),
    "error_of_full_size": (error_of_full_size, True),
    "angle_of_large_batches": (angle_of_large_batches, True),
    "gain_of_doubling": (gain_of_doubling, False),
    "cosine_of_half": (cosine_of_half, False),
    "update_of_large_batches": (update_of_large_batches, True),
    "variance_of_a_last_batch_of_one": (variance_of_a_last_batch_of_one, True),
    "update_variance_slope": (update_variance_slope, False),
    "loss_after_a_last_batch_of_one": (loss_after_a_last_batch_of_one, True),
    "loss_kept_by_dropped": (loss_kept_by_dropped, True),
    "extra_time_exponent": (extra_time_exponent, False),
    "bowl_of_linear_neuron": (bowl_of_linear_neuron, False),
    "bowl_of_smooth_net": (bowl_of_smooth_net, False),
    "bowl_of_net_with_kinks": (bowl_of_net_with_kinks, False),
}
"""By name: the function, and whether its value is a ratio, whose mean over seeds is geometric."""

readings.register(VALUES)
