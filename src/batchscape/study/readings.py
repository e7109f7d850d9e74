"""The registry of readings: the numbers that a statement is judged by, one value a seed and place of training.

Each study registers functions in its own `readings.py`. They take the rows of one seed, or of what else the table repeats,
at one place; `subjects` says what that is and which places a table has. They give NaN where their value does not exist, and
None where the question does not arise.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from batchscape.stats.paired import mean_interval
from batchscape.study.subjects import SUBJECTS, subject_of

Values = Mapping[str, tuple[Callable[[pd.DataFrame], float | None], bool]]
"""Functions by name, and whether their values are ratios, whose mean over seeds (or rounds) is geometric."""

READINGS: dict[str, tuple[Callable[[pd.DataFrame], float | None], bool]] = {}
"""All of them, by the name that `claims.toml` gives."""


def register(values: Values) -> None:
    """Make the readings of a study known.

    Raises:
        ValueError: If another study has a reading of that name.
    """
    if taken := READINGS.keys() & values:
        raise ValueError(f"Names of readings must be unique. Received twice: {', '.join(sorted(taken))}")
    READINGS.update(values)


@dataclasses.dataclass(frozen=True)
class Reading:
    """The mean of a value over seeds at one place of training, against the range that a statement predicts.

    Attributes:
        place: Such as `"at the start"` or `"after 5 epochs"`.
        value, low, high: Mean with its 95 % interval (Student t).
        predicted: The range, (low, high).
        n: Number of seeds, or of rounds.
        left_out: Those where the value does not exist.
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
            return f"{self.place}: too few values to say ({self.left_out} left out)"
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
    replicate = SUBJECTS[subject_of(noise)].replicate
    found = []
    for place, rows in _places(noise):
        of_seeds = [function(of_seed) for _, of_seed in rows.groupby(replicate)]
        if all(value is None for value in of_seeds):
            continue
        values = np.array(of_seeds, np.float64)
        reading = _judge(place, values, (predicted[0], predicted[1]), is_ratio=is_ratio)
        turned = {"holds": "fails", "fails": "holds"} if outside else {}
        found.append(dataclasses.replace(reading, outcome=turned.get(reading.outcome, reading.outcome)))
    return tuple(found)


def _places(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The places of a table, in order, with their rows."""
    return SUBJECTS[subject_of(table)].places(table)


def _judge(place: str, values: np.ndarray, predicted: tuple[float, float], *, is_ratio: bool) -> Reading:
    mean, low, high = np.exp(mean_interval(np.log(values))) if is_ratio else mean_interval(values)
    n = int(np.isfinite(values).sum())
    outcome = "not shown"
    if n >= 2 and predicted[0] <= low and high <= predicted[1]:
        outcome = "holds"
    elif n >= 2 and (high < predicted[0] or low > predicted[1]):
        outcome = "fails"
    return Reading(place, float(mean), float(low), float(high), predicted, n, len(values) - n, outcome)
