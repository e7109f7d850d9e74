"""Numbers that a statement about the gradient is judged by: one value a seed and place, from the noise table.

The noise table has one row a seed, epoch, batch size and way of drawing; see `noise.measure`.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from batchscape.judge.stats import mean_interval


@dataclasses.dataclass(frozen=True)
class Reading:
    """The mean of a value over seeds at one place of training, against the range that a statement predicts.

    Attributes:
        place: `"at the start"` or `"after 5 epochs"`.
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
    for epoch, rows in noise.groupby("epoch"):
        values = np.array([function(of_seed) for _, of_seed in rows.groupby("seed")])
        place = "at the start" if epoch == 0 else f"after {count_of(epoch)}"
        found.append(_judge(place, values, (predicted[0], predicted[1]), is_ratio=is_ratio))
    return tuple(found)


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


READINGS: dict[str, tuple[Callable[[pd.DataFrame], float], bool]] = {
    "error_slope": (error_slope, False),
    "error_of_full_size": (error_of_full_size, True),
    "angle_of_large_batches": (angle_of_large_batches, True),
    "gain_of_doubling": (gain_of_doubling, False),
    "cosine_of_half": (cosine_of_half, False),
    "update_of_large_batches": (update_of_large_batches, True),
    "variance_of_a_last_batch_of_one": (variance_of_a_last_batch_of_one, True),
}
"""Values of one seed at one place of training, from its rows of the noise table, and whether they are ratios, whose mean
is geometric."""
