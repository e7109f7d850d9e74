"""Tables made of the arrivals of a target study."""

import numpy as np
import pandas as pd

from batchscape.stats.time_to_target import median_to_target, of_all_seeds, pareto_front


def table_of(arrivals: pd.DataFrame, policy: str) -> pd.DataFrame:
    """Return the rows of the published table for one policy, one column a batch size: medians, and how many seeds arrived."""
    rows = arrivals[arrivals["policy"] == policy]
    medians = {
        cost: median_to_target(rows, cost, by=["batch"]).set_index("batch") for cost in ("epoch", "updates", "seconds")
    }
    middle = rows.groupby("batch").median(numeric_only=True)
    fastest = medians["seconds"]["median"].min()
    seconds = middle["epochs"] * middle["epoch_seconds"]
    lines = {
        "seeds": medians["epoch"]["runs"],
        "total epochs": middle["epochs"],
        "total iterations": middle["updates"],
        "time of all epochs": seconds / seconds.min(),
        "seeds that reached the target": medians["epoch"]["arrived"],
        "target reached at epoch": medians["epoch"]["median"],
        "time to the target": medians["seconds"]["median"] / (fastest if np.isfinite(fastest) else 1.0),
        "updates to the target": medians["updates"]["median"],
        "best validation error": middle["best_val_error"],
        "best error at epoch": middle["best_epoch"],
        "best test error": middle["best_test_error"],
        "final test error": middle["final_test_error"],
    }
    shown = pd.DataFrame(lines).sort_index(ascending=False).T
    return shown.map(lambda value: "-" if not np.isfinite(value) else f"{value:.4g}")


def choices(arrivals: pd.DataFrame) -> pd.DataFrame:
    """Return the batch sizes and policies that all seeds of a policy have, and with which half of them reach the target.

    Returns:
        One row each: `policy`, `batch`, `seconds` (median), `best_val_error` (mean), `memory` [bytes], and `on_front`, the
        Pareto front of these three.
    """
    medians = median_to_target(arrivals, "seconds", by=["policy", "batch"])
    means = arrivals.groupby(["policy", "batch"], as_index=False)[["best_val_error", "memory"]].mean()
    complete = medians["runs"] == medians.groupby("policy")["runs"].transform("max")
    found = medians[complete & np.isfinite(medians["median"])].merge(means)
    found = found.rename(columns={"median": "seconds"})
    quantities = [name for name in ("seconds", "best_val_error", "memory") if found[name].notna().any()]
    return found.assign(on_front=pareto_front(found, quantities))


def runs_to_target(arrivals: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of all policies once each, as `critical_batch_size` takes them.

    Args:
        arrivals: The table of `run_target_study`; seeds that not all policies have are left out, and batch sizes that not
            all of the other seeds have.

    Returns:
        One row a run, with `batch`, `learning_rate`, `seed`, `updates` (to the target, or all that the run had),
        `reached` and `max_updates`.
    """
    shared = arrivals.groupby("policy")["seed"].nunique().min()
    runs = arrivals[arrivals["seed"] < shared].drop_duplicates(["batch", "learning_rate", "seed"])
    runs = of_all_seeds(runs)
    return pd.DataFrame(
        {
            **{name: runs[name] for name in ("batch", "learning_rate", "seed")},
            "updates": runs["updates_to_target"].where(runs["arrived"], runs["updates"]),
            "reached": runs["arrived"],
            "max_updates": runs["updates"],
        }
    )
