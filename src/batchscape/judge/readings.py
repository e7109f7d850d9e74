"""Numbers that a statement is judged by: one value a seed and place of training, from a table of measurements.

A function here takes the rows of one seed at one place: an epoch, a family of runs, a factor, or a weight decay. It gives
NaN where its value does not exist, and None where the question does not arise. The tables are those of `run_noise_study`
and `run_minima_study`.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from batchscape.judge import strata
from batchscape.judge.stats import mean_interval


@dataclasses.dataclass(frozen=True)
class Reading:
    """The mean of a value over seeds at one place of training, against the range that a statement predicts.

    Attributes:
        place: Such as `"at the start"` or `"after 5 epochs"`.
        value, low, high: Mean with its 95 % interval (Student t).
        predicted: The range, (low, high).
        n: Number of seeds.
        left_out: Seeds where the value does not exist.
        outcome: `"holds"` where the interval lies in the range, `"fails"` where it lies outside, else `"not shown"`.
    """

    place: str
    value: float
    low: float
    high: float
    predicted: tuple[float, float]
    n: int
    left_out: int
    outcome: str

    def __str__(self) -> str:
        if self.n < 2:
            return f"{self.place}: too few seeds to say ({self.left_out} left out)"
        left_out = f", {self.left_out} left out" if self.left_out else ""
        return (
            f"{self.place}: {self.value:.3g} [{self.low:.3g}, {self.high:.3g}], n = {self.n}{left_out}: {self.outcome}"
        )


def read(noise: pd.DataFrame, name: str, predicted: Sequence[float]) -> tuple[Reading, ...]:
    """The readings of that name, one a place of training, in the order of training."""
    function, is_ratio = READINGS[name]
    found = []
    for place, rows in _places(noise):
        of_seeds = [function(of_seed) for _, of_seed in rows.groupby("seed")]
        if all(value is None for value in of_seeds):
            continue
        values = np.array(of_seeds, np.float64)
        found.append(_judge(place, values, (predicted[0], predicted[1]), is_ratio=is_ratio))
    return tuple(found)


def _places(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The places of a table, in order, with their rows."""
    if "factor" in table:
        factors = sorted(set(table["factor"]) - {1.0})
        return [(f"α = {factor:g}", table[table["factor"].isin([1.0, factor])]) for factor in factors]
    if "phi" in table:
        return [(f"at fixed {family.label}", family.runs) for family in strata.families(table)]
    if "width" in table:
        return [(f"at a weight decay of {decay:g}", rows) for decay, rows in table.groupby("weight_decay")]
    return [
        ("at the start" if epoch == 0 else f"after {count_of(epoch)}", rows) for epoch, rows in table.groupby("epoch")
    ]


def count_of(epochs: float) -> str:
    """A number of epochs in words, such as "1 epoch"."""
    return f"{epochs:g} epoch{'s' if epochs > 1 else ''}"


def _judge(place: str, values: np.ndarray, predicted: tuple[float, float], *, is_ratio: bool) -> Reading:
    mean, low, high = np.exp(mean_interval(np.log(values))) if is_ratio else mean_interval(values)
    n = int(np.isfinite(values).sum())
    outcome = "not shown"
    if n >= 2 and predicted[0] <= low and high <= predicted[1]:
        outcome = "holds"
    elif n >= 2 and (high < predicted[0] or low > predicted[1]):
        outcome = "fails"
    return Reading(place, float(mean), float(low), float(high), predicted, n, len(values) - n, outcome)


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


READINGS: dict[str, tuple[Callable[[pd.DataFrame], float], bool]] = {
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
"""Values of one seed at one place, from its rows of a table, and whether they are ratios, whose mean
is geometric."""
