"""The learning rate tuned for each batch size: chosen on validation, reported on test, with the optimism of the choice.

The best of K rates looks better on the runs it was chosen on than it is. So what is reported for a seed comes from the rate
that the *other* seeds chose, and the difference to the value at the chosen rate on its own seeds is stated.
"""

import numpy as np
import pandas as pd

from batchscape.errors import InvalidInput
from batchscape.stats.paired import PairedEffect, mean_interval, paired_effect

_NO_EFFECT = PairedEffect(np.nan, np.nan, np.nan, np.nan, np.nan, 0)


def tune_learning_rate(
    runs: pd.DataFrame,
    *,
    choose: str = "val_loss",
    report: str = "test_loss",
    larger_is_better: bool = False,
) -> pd.DataFrame:
    """The best learning rate for each batch size, and its results on seeds that did not choose it.

    A run that diverged counts as the worst there is. Equal means go to the smaller rate.

    Args:
        runs: One row a run, as `load_results` gives it: `batch`, `learning_rate`, `seed`, `status`, and the two quantities.
            At each batch size all rates have the same seeds.
        choose: The quantity whose mean over seeds chooses; of validation.
        report: The quantity that is reported; of test.
        larger_is_better: For both; losses and updates to a target are better small, accuracies large.

    Returns:
        One row a batch size:
        `batch`; `learning_rate`, chosen by all seeds (NaN where every rate diverged for a seed or more);
        `edge`, `"lowest"` or `"highest"` where it is the last one tried on that side, else `""`: look further there;
        `n_rates`, `n_seeds`; `agreement`, the share of seeds whose fellows choose that rate too;
        `chosen`, the mean of `choose` there on the seeds that chose it;
        `held_out`, the mean of `choose` over seeds, each at the rate of its fellows;
        `optimism`, `optimism_low`, `optimism_high`, how much the first flatters against the second, positive where it
        does, with its 95 % interval;
        `reported`, `reported_low`, `reported_high`, the mean of `report` over seeds, each at the rate of its fellows, with
        its 95 % interval, over the runs that did not diverge; `diverged`, those that did.

    Raises:
        InvalidInput: If a column is missing, a run failed, or rates do not have the same seeds.
    """
    tuned = tuned_runs(runs, choose=choose, larger_is_better=larger_is_better)
    sign = -1.0 if larger_is_better else 1.0
    rows = []
    for batch, table in _costs(runs, choose, sign):
        rate = _best(table)
        own = tuned[tuned["batch"] == batch].set_index("seed").loc[table.index]
        held_out = _cost(own, choose, sign)
        chosen = table[rate] if np.isfinite(rate) else pd.Series(np.inf, table.index)
        several = len(table) > 1
        usable = several and np.isfinite(held_out).all() and np.isfinite(chosen).all()
        optimism = paired_effect(held_out - chosen.to_numpy()) if usable else _NO_EFFECT
        mean, low, high = mean_interval(own.loc[np.isfinite(held_out), report])
        rows.append({
            "batch": batch,
            "learning_rate": rate,
            "edge": _edge(rate, table.columns),
            "n_rates": table.shape[1],
            "n_seeds": len(table),
            "agreement": float((own["learning_rate"] == rate).mean()) if several else np.nan,
            "chosen": sign * chosen.mean(),
            "held_out": sign * held_out.mean() if several else np.nan,
            "optimism": optimism.mean,
            "optimism_low": optimism.low,
            "optimism_high": optimism.high,
            "reported": mean,
            "reported_low": low,
            "reported_high": high,
            "diverged": int((~np.isfinite(held_out)).sum()),
        })  # fmt: skip
    return pd.DataFrame(rows)


def tuned_runs(runs: pd.DataFrame, *, choose: str = "val_loss", larger_is_better: bool = False) -> pd.DataFrame:
    """The run of each batch size and seed at the rate that the other seeds choose: paired over batch sizes, none of them
    chosen by its own luck. A single seed chooses for itself.

    Args:
        runs, choose, larger_is_better: See `tune_learning_rate`.

    Returns:
        Rows of `runs`, one a batch size and seed; at a batch size where every rate diverges, those of the smallest rate.
    """
    sign = -1.0 if larger_is_better else 1.0
    rows = []
    for batch, table in _costs(runs, choose, sign):
        for seed in table.index:
            rate = _best(table.drop(seed) if len(table) > 1 else table)
            rate = table.columns[0] if np.isnan(rate) else rate
            rows.append((batch, seed, rate))
    chosen = pd.DataFrame(rows, columns=["batch", "seed", "learning_rate"])
    return chosen.merge(runs, on=["batch", "seed", "learning_rate"], how="left")[list(runs.columns)]


def _costs(runs: pd.DataFrame, choose: str, sign: float):
    """For each batch size, the cost of each seed (rows) at each rate (columns, rising)."""
    if not len(runs):
        raise InvalidInput("Tuning needs runs at several rates. Received: none")
    if missing := sorted({"batch", "learning_rate", "seed", "status", choose} - set(runs)):
        raise InvalidInput(
            f"Tuning needs runs with the columns {', '.join(missing)}. Received: {', '.join(map(str, runs.columns))}"
        )
    for batch, group in runs.groupby("batch"):
        counts = group.groupby(["learning_rate", "seed"]).size().unstack(fill_value=0)
        if (group["status"] == "FAILED").any() or (counts != 1).any(axis=None) or group["learning_rate"].isna().any():
            raise InvalidInput(
                "Every rate needs exactly one run of every seed, none of them failed. Received: at batch size "
                f"{batch}, {len(group)} runs for {counts.shape[0]} rates and {counts.shape[1]} seeds"
            )
        table = group.assign(cost=_cost(group, choose, sign)).pivot(
            index="seed", columns="learning_rate", values="cost"
        )
        yield batch, table.sort_index(axis=1)


def _cost(runs: pd.DataFrame, choose: str, sign: float) -> np.ndarray:
    """What is to be small; infinite for a run that diverged or has no finite value."""
    cost = sign * runs[choose].to_numpy(np.float64)
    return np.where((runs["status"] == "DIVERGED") | ~np.isfinite(cost), np.inf, cost)


def _best(costs: pd.DataFrame) -> float:
    """The rate of the smallest mean cost; NaN where none is finite."""
    means = costs.mean(axis=0)
    return float(means.idxmin()) if np.isfinite(means).any() else np.nan


def _edge(rate: float, rates: pd.Index) -> str:
    return "lowest" if rate == rates[0] else "highest" if rate == rates[-1] else ""
