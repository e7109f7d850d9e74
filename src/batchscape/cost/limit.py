"""The largest batch that fits, predicted from a line before it is met, and then confirmed under a hard limit."""

import dataclasses
import math
from collections.abc import Callable

from batchscape.cost.line import LineFit, fit_line

CLOSE = 1.05
"""The search ends once a batch that does not fit is at most so many times the largest that does."""

MOST_TRIALS = 8

LEAP = 8
"""A line that is not sure of its slope is not followed further than so many times the largest batch that fitted."""


@dataclasses.dataclass(frozen=True)
class Limit:
    """The largest batch that fits.

    Attributes:
        fits: The largest batch that was seen to fit, in examples; 0 where none did.
        fails: The smallest one that was seen not to; None where none failed.
        predicted: Where the line of memory meets the limit; infinite where it does not rise.
        reason: Why the smallest that failed did, else "".
        trials: Batches tried one by one to find this.
    """

    fits: int
    fails: int | None
    predicted: float
    reason: str = ""
    trials: int = 0

    @property
    def confirmed(self) -> bool:
        """Whether the limit has been met from both sides, within 5 %."""
        return self.fails is not None and self.fails <= max(CLOSE * self.fits, self.fits + 1)


def next_trial(peaks: dict[int, float], fails: int | None, most: int, bound: float) -> int | None:
    """The batch to try next; None where the search is over.

    Just below the batch at which the line through the peaks meets the bound, as long as nothing so large was seen to fit;
    then just above the largest one that fitted, so that the limit is met from both sides.

    Args:
        peaks: Peak memory in bytes of the batches that fitted.
        fails: The smallest batch that did not.
        most: The largest batch there can be: all examples.
        bound: The limit in bytes.

    Example:
        >>> peaks = {1: 101.0, 2: 102.0, 4: 104.0, 8: 108.0}  # 100 + B
        >>> next_trial(peaks, None, 10_000, 200.0)  # a little below 100, where the line meets 200, but at most 8 × 8
        64
        >>> next_trial({**peaks, 64: 164.0}, None, 10_000, 200.0)
        98
        >>> next_trial({**peaks, 64: 164.0, 98: 198.0}, None, 10_000, 200.0)
        102
        >>> next_trial({**peaks, 64: 164.0, 98: 198.0}, 102, 10_000, 200.0) is None
        True
    """
    fits = max(peaks, default=0)
    least = fits + 1
    ceiling = most + 1 if fails is None else fails
    if least >= ceiling or (fails is not None and fails <= CLOSE * fits):
        return None
    if not fits:
        return max(1, ceiling // 2)
    inside = min(0.98 * _meets(peaks, bound), LEAP * fits)
    if inside > fits * math.sqrt(CLOSE):
        trial = inside
    elif fails is None or fails > CLOSE**2 * fits:
        trial = CLOSE * fits
    else:
        trial = math.sqrt(fits * ceiling)
    if trial >= ceiling:
        trial = most if fails is None else math.sqrt(fits * ceiling)
    return min(max(round(trial - 0.5), least), ceiling - 1)


def line_of(peaks: dict[int, float]) -> LineFit:
    """The line of memory against batch size."""
    return fit_line(list(peaks), list(peaks.values()))


def _meets(peaks: dict[int, float], bound: float) -> float:
    """Where the line through the three largest batches meets the bound; allocators make the rise a little uneven."""
    largest = {batch: peaks[batch] for batch in sorted(peaks)[-3:]}
    return line_of(largest).solve(bound) if len(largest) > 1 else math.inf


def search(
    try_batch: Callable[[int], float | str], peaks: dict[int, float], fails: int | None, most: int, bound: float
) -> Limit:
    """Close in on the largest batch that fits.

    Args:
        try_batch: Trains a little; returns the peak in bytes, or why it did not fit.
        peaks, fails, most, bound: See `next_trial`; `peaks` grows by what was tried and fitted.

    Returns:
        A `Limit`.
    """
    reason, trials = "", 0
    while trials < MOST_TRIALS and (batch := next_trial(peaks, fails, most, bound)) is not None:
        outcome = try_batch(batch)
        trials += 1
        if isinstance(outcome, str):
            fails, reason = batch, outcome
        elif outcome > bound:  # A peak too short for the watch to see.
            fails, reason = batch, "its peak passed the limit"
        else:
            peaks[batch] = outcome
    predicted = line_of(peaks).solve(bound) if len(peaks) > 1 else math.nan
    return Limit(max(peaks, default=0), fails, predicted, reason, trials)
