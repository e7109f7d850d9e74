"""Paired comparisons at small n: intervals that cover, exact tests, and the effect that could have been seen."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats

from batchscape.errors import InvalidInput

CONFIDENCE = 0.95
POWER = 0.8


@dataclasses.dataclass(frozen=True)
class PairedEffect:
    """The mean of paired differences, with its interval and its exact test.

    Attributes:
        mean: Mean difference.
        low, high: 95 % interval (Student t), NaN for a single pair.
        p_value: Two-sided exact sign-flip test of a mean of zero; its floor is 2 / 2ⁿ.
        detectable: The smallest true mean that a t test with this n and this spread shows with a power of 80 %; the
            sign-flip test, which can say nothing below n = 6, needs a little more.
        n: Number of pairs.
    """

    mean: float
    low: float
    high: float
    p_value: float
    detectable: float
    n: int


def paired_effect(differences: Sequence[float] | np.ndarray) -> PairedEffect:
    """The mean of paired differences, with its interval and its exact test.

    Student t and not the paired bootstrap at any n: of 1,500 samples it covers as many as SciPy's percentile and BCa
    bootstraps or more, within 2 %, for normal, t(3), exponential and lognormal differences alike (n = 20: 95, 96, 93 and
    87 %, against 93, 92, 91 and 86 %; n = 6, normal: 95 against 86 %).

    Args:
        differences: One finite difference a pair, shape (n ≥ 1,).

    Raises:
        InvalidInput: If there is no difference, or one is not finite.

    Example:
        >>> effect = paired_effect([1.0, 2.0, 3.0, 2.0, 1.0, 3.0])
        >>> effect.mean, effect.n, effect.p_value == 2 / 2**6
        (2.0, 6, True)
    """
    differences = np.asarray(differences, dtype=np.float64)
    if not differences.size or not np.isfinite(differences).all():
        raise InvalidInput(f"A paired effect needs one or more finite differences. Received: {differences}")
    n, mean = len(differences), float(differences.mean())
    if n == 1:
        return PairedEffect(mean, np.nan, np.nan, 1.0, np.nan, n)
    stderr = differences.std(ddof=1) / np.sqrt(n)
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)
    detectable = float((quantile + stats.t.ppf(POWER, n - 1)) * stderr)
    return PairedEffect(mean, mean - quantile * stderr, mean + quantile * stderr, sign_flip(differences), detectable, n)


def sign_flip(differences: np.ndarray) -> float:
    """Two-sided p-value of a zero mean: the share of all 2ⁿ sign patterns with a mean at least as far from zero.

    Exact up to n = 13, from 9,999 random patterns above.
    """
    n = len(differences)
    test = stats.permutation_test(
        (differences,),
        lambda sample, axis: np.mean(sample, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf if n <= 13 else 9_999,
        rng=np.random.default_rng(0),
    )
    return float(test.pvalue)


def mean_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 % interval (Student t) of independent values; NaN bounds below two values.

    Example:
        >>> mean, low, high = mean_interval([1.0, 1.0, 1.0])
        >>> mean, low, high
        (1.0, 1.0, 1.0)
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return float(values.mean()) if len(values) else np.nan, np.nan, np.nan
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def with_interval(mean: float, low: float, high: float) -> str:
    """A value and its interval as text, three digits each.

    Example:
        >>> with_interval(2346.0, 1440.2, 3849.0)
        '2350 [1440, 3850]'
    """
    mean, low, high = (f"{float(f'{value:.3g}'):g}" for value in (mean, low, high))
    return f"{mean} [{low}, {high}]"
