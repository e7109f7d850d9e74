"""What becomes of each batch size where the learning rate stays, grows as √B or as B, or is tuned."""

import numpy as np
import pandas as pd

from batchscape.config import LR_POLICIES
from batchscape.errors import InvalidInput
from batchscape.stats.tuning import tuned_runs

RESULTS = ("train_loss", "best_val_loss", "test_loss", "test_accuracy")
NEEDED = {"budget", "batch", "learning_rate", "seed", "status", *RESULTS}


def by_policy(runs: pd.DataFrame, *, base_batch_size: int, base_rate: float, chance: float = 0.1) -> pd.DataFrame:
    """Return the runs that each policy of the learning rate chooses at each batch size, from a sweep over both.

    The policies are `"fixed"`, `"sqrt"` and `"linear"`, as for a `Cell`; `"tuned"`, the rate of the smallest validation loss
    of the *other* seeds (see `tuned_runs`); and `"best"`, the rate of the smallest training loss of each seed.

    Args:
        runs: One row a run, with `budget`, `batch`, `learning_rate`, `seed`, `status` and `RESULTS`.
        base_batch_size, base_rate: Where all policies but the last two agree.
        chance: See `count_diverged`.

    Returns:
        One row a budget, batch size, policy and seed: the columns of `runs`, and `policy`, `at_edge` (the rate is the
        smallest or the largest of the grid), `deviation` (|log of the test loss ÷ its median over seeds|) and `base_batch`.
        Policies whose rate is not on the grid are left out.

    Raises:
        InvalidInput: Without runs, or without one of these columns.
    """
    missing = sorted(NEEDED - set(runs.columns))
    if missing or runs.empty:
        raise InvalidInput(f"Policies need runs with the columns {sorted(NEEDED)}. Received: none of {missing}")
    runs = count_diverged(runs, chance=chance)
    found = []
    for (_, batch), rows in runs.groupby(["budget", "batch"]):
        chosen = {}
        for policy, power in LR_POLICIES.items():
            rate = base_rate * (batch / base_batch_size) ** power
            chosen[policy] = rows[np.isclose(rows["learning_rate"], rate, rtol=1e-3)]
        chosen["tuned"] = tuned_runs(rows, choose="best_val_loss")
        chosen["best"] = rows.sort_values(["train_loss", "learning_rate"]).drop_duplicates("seed").sort_values("seed")
        ends = rows["learning_rate"].min(), rows["learning_rate"].max()
        found += [
            picked.assign(
                policy=policy, at_edge=picked["learning_rate"].isin(ends), deviation=_deviation(picked["test_loss"])
            )
            for policy, picked in chosen.items()
        ]
    return pd.concat(found, ignore_index=True).assign(base_batch=base_batch_size)


def count_diverged(runs: pd.DataFrame, *, chance: float) -> pd.DataFrame:
    """The runs with infinite losses, and a test accuracy of chance, where they diverged."""
    diverged = runs["status"] == "DIVERGED"
    losses = {name: runs[name].where(~diverged, np.inf) for name in RESULTS if name.endswith("loss")}
    return runs.assign(**losses, test_accuracy=runs["test_accuracy"].where(~diverged, chance))


def _deviation(losses: pd.Series) -> pd.Series:
    """|log x − median| of each value."""
    logs = np.log(losses.replace(np.inf, np.nan))
    return (logs - logs.median()).abs()
