"""Numbers that a statement is judged by: one value a seed and place of training, from a table of measurements.

The functions in `on_gradients`, `on_minima` and `on_rates` take the rows of one seed at one place: an epoch, a family of
runs, a factor, a weight decay, or a budget and a batch size. They give NaN where their value does not exist, and None where
the question does not arise.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from batchscape.judge import on_gradients, on_minima, on_rates, on_training, strata
from batchscape.judge.stats import mean_interval

READINGS: dict[str, tuple[Callable[[pd.DataFrame], float | None], bool]] = {
    **on_gradients.VALUES,
    **on_minima.VALUES,
    **on_rates.VALUES,
    **on_training.VALUES,
}
"""Values of one seed at one place, by name, and whether they are ratios, whose mean is geometric."""


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


def read(noise: pd.DataFrame, name: str, predicted: Sequence[float], *, outside: bool = False) -> tuple[Reading, ...]:
    """The readings of that name, one a place of training, in the order of training.

    Args:
        noise: The table.
        name: In `READINGS`.
        predicted: The range that the statement predicts, (low, high).
        outside: Whether it predicts that the value is outside of the range.
    """
    function, is_ratio = READINGS[name]
    found = []
    for place, rows in _places(noise):
        of_seeds = [function(of_seed) for _, of_seed in rows.groupby("seed")]
        if all(value is None for value in of_seeds):
            continue
        values = np.array(of_seeds, np.float64)
        reading = _judge(place, values, (predicted[0], predicted[1]), is_ratio=is_ratio)
        turned = {"holds": "fails", "fails": "holds"} if outside else {}
        found.append(dataclasses.replace(reading, outcome=turned.get(reading.outcome, reading.outcome)))
    return tuple(found)


def _places(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The places of a table, in order, with their rows."""
    if "policy" in table:
        return _places_of_policies(table)
    if "seconds_per_update" in table:
        return _places_of_workers(table)
    if "schedule" in table:
        return [("at the end", table)]
    if "times_linear" in table:
        return [
            (f"B = {batch} ({count_of_times(multiple)})", rows)
            for (batch, multiple), rows in table.groupby(["batch", "times_linear"])
        ]
    if "rule" in table:
        return [(f"B = {batch}", rows) for batch, rows in table.groupby("batch")]
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


def _places_of_policies(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Each budget with all batch sizes, and with each of them beside the one where the policies agree."""
    found = []
    for budget, rows in table.groupby("budget"):
        base = rows["base_batch"].iloc[0]
        others = sorted(set(rows["batch"]) - {base})
        if len(others) > 1:
            found.append((f"equal {budget}", rows))
        for batch in others:
            found.append((f"B = {batch} (equal {budget})", rows[rows["batch"].isin([base, batch])]))
    return found


def _places_of_workers(runs: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Each batch size beside the next one, at one rate: what K times as many workers make of it."""
    found = []
    for family in strata.families(runs):
        if family.stratum == strata.FIXED_RATE:
            for small, large in zip(family.batches, family.batches[1:], strict=False):
                found.append((f"B {small} → {large}", family.runs[family.runs["batch"].isin([small, large])]))
    return found


def count_of_times(multiple: float) -> str:
    """A multiple of a rate ∝ B in words."""
    return "η ∝ B" if multiple == 1 else f"{multiple:g} times η ∝ B"


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
