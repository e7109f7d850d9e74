"""A straight line through measurements, with its errors, read in both directions."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from batchscape.stats.paired import CONFIDENCE


@dataclasses.dataclass(frozen=True, repr=False)
class LineFit:
    """A straight line y = a + b x, fitted by least squares, weighted where the error grows with y.

    Attributes:
        intercept, slope: a and b.
        intercept_low, intercept_high, slope_low, slope_high: 95 % intervals (Student t); NaN below three points.
        r_squared: Share of the (weighted) variance that the line explains.
        n: Number of points.
        relative: Whether errors were taken as a share of y.
    """

    intercept: float
    slope: float
    intercept_low: float
    intercept_high: float
    slope_low: float
    slope_high: float
    r_squared: float
    n: int
    relative: bool
    _x_mean: float
    _xx: float
    _variance: float
    _weights: float

    def __call__(self, x):
        """The line at x."""
        return self.intercept + self.slope * np.asarray(x, np.float64)

    def band(self, x: float) -> tuple[float, float]:
        """95 % interval of a further measurement at x; infinite below three points."""
        if self.n < 3:
            return -math.inf, math.inf
        centre = float(self(x))
        own = max(centre, 0.0) ** 2 if self.relative else 1.0
        variance = self._variance * (own + 1 / self._weights + (x - self._x_mean) ** 2 / self._xx)
        half = stats.t.ppf((1 + CONFIDENCE) / 2, self.n - 2) * math.sqrt(variance)
        return centre - half, centre + half

    def solve(self, y: float) -> float:
        """The x at which the line reaches y; infinite where it does not rise."""
        return (y - self.intercept) / self.slope if self.slope > 0 else math.inf

    @property
    def rises(self) -> bool:
        """Whether the slope can be told from zero."""
        return self.slope_low > 0

    def __repr__(self) -> str:
        low, high = self.slope_low, self.slope_high
        return (
            f"{self.intercept:.4g} + {self.slope:.4g} x (slope [{low:.3g}, {high:.3g}], R² {self.r_squared:.3f}, "
            f"n = {self.n})"
        )


def fit_line(x: Sequence[float], y: Sequence[float], *, relative: bool = False) -> LineFit:
    """Fit a straight line by least squares.

    Minimises Σ wᵢ (yᵢ − a − b xᵢ)² with wᵢ = 1, or 1 / yᵢ² if `relative`.

    Args:
        x: Places, shape (n ≥ 2,), two different ones at least.
        y: Finite values, shape (n,); above zero if `relative`.
        relative: Whether the error of a value is a share of it, as that of a time is.

    Returns:
        A `LineFit`.

    Example:
        >>> line = fit_line([1, 2, 4], [3.0, 5.0, 9.0])
        >>> round(line.intercept, 9), round(line.slope, 9), round(line.solve(11.0), 9), round(line.r_squared, 9)
        (1.0, 2.0, 5.0, 1.0)
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    weights = 1 / y**2 if relative else np.ones_like(y)
    total = weights.sum()
    x_mean, y_mean = weights @ x / total, weights @ y / total
    xx = weights @ (x - x_mean) ** 2
    slope = weights @ ((x - x_mean) * (y - y_mean)) / xx
    intercept = y_mean - slope * x_mean
    left, whole = weights @ (y - intercept - slope * x) ** 2, weights @ (y - y_mean) ** 2
    n = len(x)
    variance = left / (n - 2) if n > 2 else math.nan
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, n - 2) if n > 2 else math.nan
    of_slope = quantile * math.sqrt(variance / xx)
    of_intercept = quantile * math.sqrt(variance * (1 / total + x_mean**2 / xx))
    return LineFit(
        intercept=float(intercept),
        slope=float(slope),
        intercept_low=float(intercept - of_intercept),
        intercept_high=float(intercept + of_intercept),
        slope_low=float(slope - of_slope),
        slope_high=float(slope + of_slope),
        r_squared=float(1 - left / whole) if whole > 0 else 1.0,
        n=n,
        relative=relative,
        _x_mean=float(x_mean),
        _xx=float(xx),
        _variance=float(variance),
        _weights=float(total),
    )
