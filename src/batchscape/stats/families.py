"""Families of runs that keep η or η/B fixed while the batch size varies.

At a fixed learning rate η a change of B changes η/B, the noise of the updates, as well. So runs are compared in two
strata: at fixed η, and at fixed η/B.
"""

import dataclasses

import numpy as np
import pandas as pd

FIXED_RATE = "fixed rate"
FIXED_RATIO = "fixed rate/batch"


@dataclasses.dataclass(frozen=True)
class Family:
    """Runs that keep η, or η/B, fixed while the batch size varies.

    Attributes:
        stratum: `"fixed rate"` or `"fixed rate/batch"`.
        fixed: The value kept fixed.
        runs: The rows of the table of runs.
    """

    stratum: str
    fixed: float
    runs: pd.DataFrame

    @property
    def batches(self) -> list[int]:
        """Batch sizes, rising."""
        return sorted(self.runs["batch"].unique())

    @property
    def label(self) -> str:
        """What is fixed, for tables and legends."""
        return f"η = {self.fixed:g}" if self.stratum == FIXED_RATE else f"η/B = {self.fixed:g}"

    def pairs(self, quantity: str, usable: pd.Series | None = None) -> pd.DataFrame:
        """A quantity at the smallest and the largest batch size, one row a seed, NaN where a run is not usable."""
        ends = {self.batches[0]: "small", self.batches[-1]: "large"}
        runs = self.runs if usable is None else self.runs[usable.loc[self.runs.index]]
        wide = runs.pivot(index="seed", columns="batch", values=quantity)
        wide = wide.reindex(index=sorted(self.runs["seed"].unique()), columns=list(ends))
        return wide.rename(columns=ends).astype(np.float64)


def families(runs: pd.DataFrame, *, least: int = 3) -> list[Family]:
    """The families in a table of runs: at least `least` batch sizes at one η, or at one η/B.

    Args:
        runs: One row a run, with the columns `batch`, `learning_rate` and `seed`.
        least: Batch sizes that make a family.
    """
    ratio = runs["learning_rate"] / runs["batch"]
    # Equal up to rounding: 0.4 / 32 and 0.1 / 8 are one ratio.
    keys = {FIXED_RATE: runs["learning_rate"], FIXED_RATIO: ratio.map(lambda value: float(f"{value:.6g}"))}
    found = [
        Family(stratum, float(fixed), rows)
        for stratum, key in keys.items()
        for fixed, rows in runs.groupby(key)
        if rows["batch"].nunique() >= least
    ]
    return sorted(found, key=lambda family: (family.stratum != FIXED_RATE, family.fixed))
