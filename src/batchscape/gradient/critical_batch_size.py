"""The critical batch size: beyond it, more examples in a batch save hardly any updates.

Updates S and examples E that a target takes, at the best learning rate for each batch size B, follow

    S = S_min (1 + B_crit / B)        E = B S = E_min (1 + B / B_crit),        E_min = S_min B_crit

(McCandlish et al. 2018, arXiv 1812.06162, eq. 2.11 and section 2.3): twice the fewest updates, and twice the fewest
examples, at B = B_crit.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize

from batchscape.errors import InvalidInput
from batchscape.landscape.digest import digest
from batchscape.landscape.files import Result
from batchscape.stats.paired import mean_interval

NEEDED = {"batch", "learning_rate", "seed", "updates", "reached", "max_updates"}
"""Columns that a fit needs."""

BEYOND = 5
"""A fit that lies by more than this factor outside of the batch sizes is none."""


@dataclasses.dataclass(frozen=True, repr=False)
class CriticalBatchSize(Result):
    """The critical batch size B_crit, with S_min, fitted to the updates to a target.

    Attributes:
        b_crit, low, high: B_crit in examples, the geometric mean over seeds with its 95 % interval (Student t of logs).
        min_updates: S_min, the geometric mean over seeds.
        min_examples: E_min.
        rates: The learning rate chosen for each batch size.
        at_edge: Batch sizes whose rate is the smallest or the largest that was tried, so that a better one may exist.
        censored: Runs that were given up before the target.
        n: Number of seeds; those that reached the target at fewer than three batch sizes are left out.
        about: Data sets and models of the runs, where the table names them, and a digest of what the fit used.
    """

    b_crit: float
    low: float
    high: float
    min_updates: float
    min_examples: float
    rates: dict[int, float]
    at_edge: tuple[int, ...]
    censored: int
    n: int
    about: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        # In a file, names are texts.
        object.__setattr__(self, "rates", {int(batch): rate for batch, rate in self.rates.items()})

    def updates(self, batch_size: np.ndarray | float) -> np.ndarray | float:
        """Updates to the target at a batch size, S."""
        return self.min_updates * (1 + self.b_crit / batch_size)

    def __repr__(self) -> str:
        flags = (
            f", best rate at the edge of the grid for B = {', '.join(map(str, self.at_edge))}" if self.at_edge else ""
        )
        given_up = f", {self.censored} runs given up" if self.censored else ""
        return (
            f"CriticalBatchSize({self.b_crit:.3g} [{self.low:.3g}, {self.high:.3g}] examples, n = {self.n}; "
            f"S_min {self.min_updates:.3g} updates, E_min {self.min_examples:.3g} examples{given_up}{flags})"
        )


def critical_batch_size(runs: pd.DataFrame) -> CriticalBatchSize:
    """Fit the critical batch size to the numbers of updates to a target, one fit a seed.

    The rate of a batch size is the one whose runs took the fewest updates (geometric mean over all seeds, a run that was
    given up or diverged counted at the cap of its budget), so it favours no seed, but it is the best of those tried.

    Args:
        runs: One row a run with `until_loss`: `batch`, `learning_rate`, `seed`, `updates`, `reached`, `max_updates`.

    Returns:
        `CriticalBatchSize`.

    Raises:
        InvalidInput: Without one of these columns, with fewer than three batch sizes, if no seed reached its target at
            three of them, or if the fit is far outside of them.
    """
    if missing := sorted(NEEDED - set(runs)):
        raise InvalidInput(f"A critical batch size needs the columns {sorted(NEEDED)}. Received: none of {missing}")
    if runs["batch"].nunique() < 3 or not runs["reached"].eq(True).any():
        raise InvalidInput(
            "A critical batch size needs runs at three batch sizes or more that reached a loss target. "
            f"Received: {runs['batch'].nunique()} batch sizes, {int(runs['reached'].eq(True).sum())} runs that reached it"
        )
    reached = runs["reached"].eq(True)
    runs = runs.assign(reached=reached, updates=runs["updates"].where(reached, runs["max_updates"]).astype(float))
    about = _about(runs)
    rates = _best_rates(runs)
    chosen = runs[runs["learning_rate"] == runs["batch"].map(rates)].sort_values("batch")
    of_seeds = [rows for _, rows in chosen.groupby("seed") if rows["reached"].sum() >= 3]
    fits = np.array([fit(*(rows[name] for name in ("batch", "updates", "reached"))) for rows in of_seeds])
    if not len(fits):
        raise InvalidInput(
            "A critical batch size needs a seed that reached its target at three batch sizes. Received: none"
        )
    b_crit, low, high = np.exp(mean_interval(fits[:, 1]))
    least, most = runs["batch"].min(), runs["batch"].max()
    if not least / BEYOND <= b_crit <= BEYOND * most:
        raise InvalidInput(
            f"The updates must bend somewhere within the batch sizes {least} to {most}, or they do not tell B_crit. "
            f"Received: a fit at {b_crit:.2g}"
        )
    min_updates = float(np.exp(fits[:, 0].mean()))
    tried = runs.groupby("batch")["learning_rate"].agg(["min", "max"])
    known = set(chosen.loc[chosen["reached"], "batch"])  # Where every run was given up, no rate is the best.
    rates = {batch: rate for batch, rate in rates.items() if batch in known}
    edges = [batch for batch, rate in rates.items() if rate in tuple(tried.loc[batch])]
    return CriticalBatchSize(
        b_crit=float(b_crit),
        low=float(low),
        high=float(high),
        min_updates=min_updates,
        min_examples=min_updates * float(b_crit),
        rates=rates,
        at_edge=tuple(edges),
        censored=int((~chosen["reached"]).sum()),
        n=len(fits),
        about=about,
    )


def fit(batches: Sequence[int], updates: Sequence[float], reached: Sequence[bool]) -> tuple[float, float]:
    """Log S_min and log B_crit by least squares of log S; a run that was given up pulls only where the fit is below it.

    Example:
        >>> b = np.array([1, 10, 100, 1000])
        >>> log_s, log_b = fit(b, 50 * (1 + 30 / b), b > 0)
        >>> round(float(np.exp(log_s)), 3), round(float(np.exp(log_b)), 3)
        (50.0, 30.0)
    """
    batches, logs, reached = np.asarray(batches, float), np.log(np.asarray(updates, float)), np.asarray(reached, bool)

    def residuals(parameters):
        missing = logs - parameters[0] - np.log1p(np.exp(parameters[1]) / batches)
        return np.where(reached, missing, np.maximum(missing, 0.0))

    start = logs.min(), np.log(np.sqrt(batches.min() * batches.max()))
    log_s, log_b = optimize.least_squares(residuals, start).x
    return float(log_s), float(log_b)


def _about(runs: pd.DataFrame) -> dict[str, Any]:
    """The data sets and the models of a table of runs, and a digest of the columns that a fit needs."""
    names = {name: sorted(map(str, runs[name].unique())) for name in ("dataset", "model") if name in runs}
    return {**names, "runs": digest([runs[sorted(NEEDED)].to_numpy(np.float64)])}


def _best_rates(runs: pd.DataFrame) -> dict[int, float]:
    """The rate with the fewest updates for each batch size; any of them where no run reached the target."""
    means = np.log(runs["updates"]).groupby([runs["batch"], runs["learning_rate"]]).mean()
    return {int(batch): float(means[batch].idxmin()) for batch in means.index.levels[0]}
