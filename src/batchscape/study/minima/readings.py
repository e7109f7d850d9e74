"""Values of a seed in the tables of `run_minima_study`: minima, escapes, rescalings, widths."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from batchscape.study import readings


def loss_after_escape(rows: pd.DataFrame) -> float | None:
    """Training loss where a small batch went on from a minimum of full batch ÷ where full batch did, at equal updates."""
    losses = rows.set_index("arm")["train_loss"]
    return None if rows["epoch"].iloc[0] == 0 else float(losses["small batch, same η"] / losses["full batch"])


def barrier_of_escape(rows: pd.DataFrame) -> float | None:
    """Barrier on the line from a minimum of full batch to where a small batch went on ÷ the loss at that minimum."""
    return _of_escape(rows, lambda row: row["barrier"] / row["start_loss"])


def curvature_after_escape(rows: pd.DataFrame) -> float | None:
    """λ_max where a small batch went on from a minimum of full batch ÷ λ_max there."""
    return _of_escape(rows, lambda row: row["lambda_max"] / row["start_lambda_max"])


def curvature_after_quiet_escape(rows: pd.DataFrame) -> float | None:
    """The same at the η/B of full batch."""
    return _of_escape(rows, lambda row: row["lambda_max"] / row["start_lambda_max"], arm="small batch, same η/B")


def curvature_after_escape_by_control(rows: pd.DataFrame) -> float | None:
    """λ_max where a small batch went on from a minimum of full batch ÷ λ_max where full batch did, at equal updates."""
    tops = rows.set_index("arm")["lambda_max"]
    return None if rows["epoch"].iloc[0] == 0 else float(tops["small batch, same η"] / tops["full batch"])


def distance_after_escape(rows: pd.DataFrame) -> float | None:
    """Distance from the initial weights where a small batch went on from a minimum of full batch ÷ that of the minimum."""
    return _of_escape(rows, lambda row: row["distance"] / row["start_distance"])


def _of_escape(
    rows: pd.DataFrame, value: Callable[[pd.Series], float], arm: str = "small batch, same η"
) -> float | None:
    row = rows[rows["arm"] == arm].iloc[0]
    return None if row["epoch"] == 0 else float(value(row))


def error_with_phi(rows: pd.DataFrame) -> float:
    """Spearman's rank correlation of Keskar's φ with the test error, over the batch sizes of one seed."""
    return _rank_correlation(rows, "phi", 1 - rows["test_accuracy"])


def error_with_lambda_max(rows: pd.DataFrame) -> float:
    """The same of λ_max."""
    return _rank_correlation(rows, "lambda_max", 1 - rows["test_accuracy"])


def error_with_adaptive_sharpness(rows: pd.DataFrame) -> float:
    """The same of adaptive worst-case sharpness."""
    return _rank_correlation(rows, "adaptive_worst", 1 - rows["test_accuracy"])


def loss_with_phi(rows: pd.DataFrame) -> float:
    """Spearman's rank correlation of Keskar's φ with the test loss, over the batch sizes of one seed."""
    return _rank_correlation(rows, "phi", rows["test_loss"])


def _rank_correlation(rows: pd.DataFrame, measure: str, target: pd.Series) -> float:
    usable = (rows["reached"] == True) & rows[measure].notna()  # noqa: E712 (the column also holds None)
    measure, target = rows.loc[usable, measure].rank(), target[usable].rank()
    varies = usable.sum() > 2 and measure.nunique() > 1 and target.nunique() > 1
    return float(measure.corr(target)) if varies else np.nan


def width_to_the_other(rows: pd.DataFrame) -> float:
    """Width of the basin of the small batch ÷ that of the large, on the line between them."""
    return _ratio_of_widths(rows, "to the other")


def width_as_drawn(rows: pd.DataFrame) -> float:
    """The same along random directions of one length."""
    return _ratio_of_widths(rows, "none")


def width_filter_normalised(rows: pd.DataFrame) -> float:
    """The same along filter-normalised directions."""
    return _ratio_of_widths(rows, "filter")


def _ratio_of_widths(rows: pd.DataFrame, way: str) -> float:
    widths = rows[rows["way"] == way].set_index("batch")["width"].sort_index()
    return float(widths.iloc[0] / widths.iloc[-1])


def curvature_of_rescaled(rows: pd.DataFrame) -> float:
    """λ_max after a rescaling that leaves the function alone ÷ before."""
    return _ratio_of_rescaled(rows, "lambda_max")


def phi_of_rescaled(rows: pd.DataFrame) -> float:
    """The same of Keskar's φ."""
    return _ratio_of_rescaled(rows, "phi")


def adaptive_sharpness_of_rescaled(rows: pd.DataFrame) -> float:
    """The same of adaptive worst-case sharpness."""
    return _ratio_of_rescaled(rows, "adaptive_worst")


def _ratio_of_rescaled(rows: pd.DataFrame, measure: str) -> float:
    before = rows["factor"] == 1
    return float(rows.loc[~before, measure].iloc[0] / rows.loc[before, measure].iloc[0])


VALUES = {
    "loss_after_escape": (loss_after_escape, True),
    "barrier_of_escape": (barrier_of_escape, False),
    "curvature_after_escape": (curvature_after_escape, True),
    "curvature_after_quiet_escape": (curvature_after_quiet_escape, True),
    "curvature_after_escape_by_control": (curvature_after_escape_by_control, True),
    "distance_after_escape": (distance_after_escape, True),
    "error_with_phi": (error_with_phi, False),
    "error_with_lambda_max": (error_with_lambda_max, False),
    "error_with_adaptive_sharpness": (error_with_adaptive_sharpness, False),
    "loss_with_phi": (loss_with_phi, False),
    "width_to_the_other": (width_to_the_other, True),
    "width_as_drawn": (width_as_drawn, True),
    "width_filter_normalised": (width_filter_normalised, True),
    "curvature_of_rescaled": (curvature_of_rescaled, True),
    "phi_of_rescaled": (phi_of_rescaled, True),
    "adaptive_sharpness_of_rescaled": (adaptive_sharpness_of_rescaled, True),
}
"""By name: the function, and whether its value is a ratio, whose mean over seeds is geometric."""

readings.register(VALUES)
