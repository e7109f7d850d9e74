"""Values of a seed in the table `arrivals` of `run_target_study`: one policy, all batch sizes that every seed has.

A run that did not arrive has cost at least what it had when it was given up: as a numerator that is a lower bound, as a
denominator there is no value.
"""

import numpy as np
import pandas as pd
from scipy import stats

from batchscape.study import readings


def rank_of_epochs(rows: pd.DataFrame) -> float:
    """Spearman's rank correlation of B with the epochs to the target; runs that did not arrive come last, together."""
    return float(stats.spearmanr(rows["batch"], stats.rankdata(rows["epoch_to_target"])).statistic)


def ends_by_fastest(rows: pd.DataFrame) -> float | None:
    """Seconds to the target at the smallest or the largest B, whichever is less, ÷ at the B that other seeds find fastest."""
    ends = [_times(rows, end, _fastest(rows)) for end in (rows["batch"].min(), rows["batch"].max())]
    return None if None in ends else float(np.min(ends))


def published_by_fastest(rows: pd.DataFrame) -> float | None:
    """Seconds to the target at B = 256 ÷ at the B that other seeds find fastest."""
    return _times(rows, 256, _fastest(rows))


def excessive_by_fastest(rows: pd.DataFrame) -> float | None:
    """Seconds to the target at B = 1,000 ÷ at the B that other seeds find fastest."""
    return _times(rows, 1000, _fastest(rows))


def thousand_by_256(rows: pd.DataFrame) -> float | None:
    """Seconds to the target at B = 1,000 ÷ at B = 256, where both arrive."""
    return _times(rows, 1000, 256, bound=False)


def seconds_of_256_by_20(rows: pd.DataFrame) -> float | None:
    """Seconds to the target at B = 256 ÷ at B = 20."""
    return _times(rows, 256, 20)


def examples_of_256_by_20(rows: pd.DataFrame) -> float | None:
    """Examples to the target at B = 256 ÷ at B = 20."""
    return _times(rows, 256, 20, cost="examples")


def lean_by_fastest(rows: pd.DataFrame) -> float | None:
    """Seconds to the target at the smallest B, which needs the least memory, ÷ at the B that other seeds find fastest."""
    return _times(rows, rows["batch"].min(), _fastest(rows))


def share_of_bound_256(rows: pd.DataFrame) -> float | None:
    """log(epochs at 256 ÷ epochs at 50) ÷ log(256 / 50): 0 if as many are needed, 1 if as many times as the batch grew."""
    ratio = _times(rows, 256, 50, cost="epoch", bound=False)
    return None if ratio is None else float(np.log(ratio) / np.log(256 / 50))


def ends_less_best(rows: pd.DataFrame) -> float:
    """Validation error at the smallest or the largest B, whichever is less, minus that at the B that suits other seeds."""
    errors = rows.set_index("batch")["best_val_error"]
    return float(min(errors.iloc[0], errors.iloc[-1]) - errors[rows["best_elsewhere"].iloc[0]])


def fifty_less_twenty(rows: pd.DataFrame) -> float | None:
    """Smallest validation error at B = 50 less that at B = 20."""
    errors = rows.set_index("batch")["best_val_error"]
    return float(errors[50] - errors[20]) if {20, 50} <= set(errors.index) else None


def _fastest(rows: pd.DataFrame) -> int:
    return int(rows["fastest_elsewhere"].iloc[0])


def _times(rows: pd.DataFrame, batch: int, other: int, *, cost: str = "seconds", bound: bool = True) -> float | None:
    """What the target cost at a batch size ÷ at another one; None if there is no such batch size, NaN without a value."""
    by_batch = rows.set_index("batch")
    if not {batch, other} <= set(by_batch.index):
        return None
    value, reference = by_batch.loc[batch], by_batch.loc[other]
    if not reference["arrived"] or not (value["arrived"] or bound):
        return np.nan
    # A run that diverged never arrives; it had at least the time of one that was watched to the end.
    spent = value[f"{cost}_to_target"] if value["arrived"] else min(value[f"{cost}_watched"], _longest(by_batch, cost))
    return float(spent / reference[f"{cost}_to_target"])


def _longest(by_batch: pd.DataFrame, cost: str) -> float:
    watched = by_batch[f"{cost}_watched"]
    return float(watched[np.isfinite(watched)].max())


VALUES = {
    "rank_of_epochs": (rank_of_epochs, False),
    "ends_by_fastest": (ends_by_fastest, True),
    "published_by_fastest": (published_by_fastest, True),
    "excessive_by_fastest": (excessive_by_fastest, True),
    "thousand_by_256": (thousand_by_256, True),
    "seconds_of_256_by_20": (seconds_of_256_by_20, True),
    "examples_of_256_by_20": (examples_of_256_by_20, True),
    "lean_by_fastest": (lean_by_fastest, True),
    "share_of_bound_256": (share_of_bound_256, False),
    "ends_less_best": (ends_less_best, False),
    "fifty_less_twenty": (fifty_less_twenty, False),
}
"""By name: the function, and whether its value is a ratio, whose mean over seeds is geometric."""

readings.register(VALUES)
