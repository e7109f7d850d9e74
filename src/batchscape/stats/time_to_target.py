"""Time to a target: epochs, updates, examples and seconds until a metric first reaches it."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from batchscape.errors import InvalidInput, unknown_name
from batchscape.stats.paired import CONFIDENCE

COSTS = ("epoch", "updates", "examples", "seconds")
"""What an evaluation of a run has cost until then, as columns of `load_results(store, curves=True)`."""


def time_to_target(curves: pd.DataFrame, target: float, *, metric: str = "val_accuracy") -> pd.DataFrame:
    """The cost of each run (epochs, updates, examples, seconds) when a metric first reached a target at an evaluation.

    Args:
        curves: One row an evaluation, as `load_results(store, curves=True)` gives it; without `status` all are complete.
        target: The value to reach.
        metric: A column; the target bounds it from above if its name ends in `"loss"`, else from below.

    Returns:
        One row a run, in their order: `hash`, `batch`, `learning_rate`, `seed`, `status`; `arrived`;
        `epoch_to_target`, `updates_to_target`, `examples_to_target` and `seconds_to_target` (of training, evaluations left
        out), infinite for a run that did not arrive; `epoch_watched` and so on, what it had cost when it was given up,
        infinite if it diverged.

    Raises:
        InvalidInput: If there is no run, no such metric, or the target is not a finite number.
    """
    _check_metric(curves, metric)
    if not math.isfinite(target):
        raise InvalidInput(f"The target must be a finite number. Received: {target}")
    sign = -1 if metric.endswith("loss") else 1
    rows = []
    for name, run in curves.groupby("hash", sort=False):
        first = run.iloc[0]
        there = run[sign * run[metric] >= sign * target]
        row = {"hash": name, **first[["batch", "learning_rate", "seed"]], "status": first.get("status", "COMPLETE")}
        row["arrived"] = len(there) > 0
        row |= {f"{cost}_to_target": float(there[cost].iloc[0]) if len(there) else math.inf for cost in COSTS}
        ended = row["status"] == "DIVERGED" and not len(there)
        row |= {f"{cost}_watched": math.inf if ended else float(run[cost].iloc[-1]) for cost in COSTS}
        rows.append(row)
    return pd.DataFrame(rows)


def _check_metric(curves: pd.DataFrame, metric: str) -> None:
    if curves.empty:
        raise InvalidInput("The time to a target needs runs. Received: none")
    if missing := sorted({"hash", "batch", "learning_rate", "seed", *COSTS} - set(curves)):
        raise InvalidInput(f"The time to a target needs one row an evaluation. Received: a table without {missing}")
    if metric not in curves or not pd.api.types.is_float_dtype(curves[metric]):
        known = ", ".join(name for name in curves if name.endswith(("_loss", "_accuracy")))
        raise InvalidInput(f"The runs have no metric {metric!r}, but: {known}")


def describe_targets(curves: pd.DataFrame, target: float | None = None, *, metric: str = "val_accuracy") -> str:
    """The median cost to a target as text for a terminal: one line a batch size and learning rate.

    Args:
        curves: One row an evaluation.
        target: The value to reach; by default the one that half of the runs reach.
        metric: As in `time_to_target`.
    """
    _check_metric(curves, metric)
    if target is None:
        best = curves.groupby("hash")[metric].agg("min" if metric.endswith("loss") else "max")
        target = float(f"{best.median():.3g}")
    reached = time_to_target(curves, target, metric=metric)
    medians = {cost: median_to_target(reached, cost) for cost in COSTS}
    table = medians["epoch"].rename(columns={"median": "epochs"})
    for cost in COSTS[1:]:
        table[cost] = medians[cost]["median"]
    n = len(reached)
    text = table.to_string(index=False, float_format=_in_words, na_rep="-")
    return (
        f"{metric} {'≤' if metric.endswith('loss') else '≥'} {target:g}, reached by {int(reached['arrived'].sum())} of {n} "
        f"runs; medians (Kaplan–Meier), epochs with a 95 % interval (sign test, from six seeds)\n{text}"
    )


def _in_words(value: float) -> str:
    if value == math.inf:
        return "never"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def median_to_target(
    reached: pd.DataFrame, cost: str = "epoch", *, by: Sequence[str] = ("batch", "learning_rate")
) -> pd.DataFrame:
    """The Kaplan–Meier median of the cost to a target, one row a group of runs.

    A run that was given up counts as one that was still on its way then, and one that diverged as one that never arrives.
    The interval is the exact one of the sign test: that between two order statistics, which covers at least 95 %
    whatever the distribution; it needs six runs.

    Args:
        reached: The table of `time_to_target`.
        cost: `"epoch"`, `"updates"`, `"examples"` or `"seconds"`.
        by: Columns that tell the groups.

    Returns:
        The columns `by`, `runs`, `arrived`, and `median`, `low`, `high`; a median is infinite where fewer than half of the
        runs arrived, bounds are infinite where the run that they are did not arrive, and NaN below six runs.

    Raises:
        InvalidInput: For another cost, and without runs.

    Example:
        >>> runs = pd.DataFrame({"batch": [8] * 6, "arrived": [True] * 5 + [False], "epoch_watched": [9.0] * 6})
        >>> runs["epoch_to_target"] = [3.0, 1.0, 2.0, 2.0, 4.0, math.inf]
        >>> median_to_target(runs, by=["batch"]).iloc[0].tolist()
        [8.0, 6.0, 5.0, 2.0, 1.0, inf]
    """
    if cost not in COSTS:
        raise unknown_name("cost", cost, COSTS)
    if reached.empty:
        raise InvalidInput("A median needs the table of time_to_target. Received: no runs")
    rows = []
    for key, runs in reached.groupby(list(by), sort=True):
        values, watched = (runs[f"{cost}_{name}"].to_numpy(np.float64) for name in ("to_target", "watched"))
        arrived = runs["arrived"].to_numpy(bool)
        found = {"runs": len(runs), "arrived": int(arrived.sum()), "median": _median(values, watched, arrived)}
        rows.append({**dict(zip(by, key, strict=True)), **found, **_order_statistics(values)})
    return pd.DataFrame(rows)


def _median(values: np.ndarray, watched: np.ndarray, arrived: np.ndarray) -> float:
    """The smallest value at which the Kaplan–Meier estimate of "not there yet" is a half or less."""
    if not arrived.any():
        return math.inf
    later = 1 + np.max(values[arrived])  # Than all that is known, which is late enough for a run that diverged.
    given_up = np.minimum(watched[~arrived], later)
    left = stats.ecdf(stats.CensoredData(uncensored=values[arrived], right=given_up)).sf
    half = (left.probabilities <= 0.5) & np.isin(left.quantiles, values[arrived])
    return float(left.quantiles[half].min(initial=math.inf))


def _order_statistics(values: np.ndarray) -> dict[str, float]:
    """The interval of the sign test for a median: x₍ₖ₎ to x₍ₙ₊₁₋ₖ₎ with the largest k whose tail is at most 2.5 %."""
    n = len(values)
    k = int(stats.binom.ppf((1 - CONFIDENCE) / 2, n, 0.5))
    if stats.binom.cdf(k - 1, n, 0.5) > (1 - CONFIDENCE) / 2 or k < 1:
        return {"low": math.nan, "high": math.nan}
    ordered = np.sort(values)
    return {"low": float(ordered[k - 1]), "high": float(ordered[n - k])}


def fastest_by_target(
    curves: pd.DataFrame, epoch_seconds: pd.Series, targets: Sequence[float], *, metric: str = "val_accuracy"
) -> pd.DataFrame:
    """The batch size and learning rate that reach each of several targets first, by the median run.

    Args:
        curves: As in `time_to_target`.
        epoch_seconds: Seconds of an epoch, by batch size.
        targets: Values to reach.
        metric: As in `time_to_target`.

    Returns:
        One row a target: `target`, `batch`, `learning_rate`, `epochs`, `seconds`, and of the `choices` that were tried how
        many `arrive` with half of their runs or more; without a choice that arrives the first four are missing.
    """
    rows = []
    for target in targets:
        found = median_to_target(time_to_target(curves, target, metric=metric))
        seconds = found["median"] * found["batch"].map(epoch_seconds)
        arrive = np.isfinite(seconds)
        row = {"target": target, "choices": len(found), "arrive": int(arrive.sum())}
        if arrive.any():
            best = found.loc[seconds.idxmin()]
            row |= {"batch": int(best["batch"]), "learning_rate": best["learning_rate"], "epochs": best["median"]}
            row["seconds"] = seconds.min()
        rows.append(row)
    return pd.DataFrame(rows)


def of_all_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the batch sizes that every seed has."""
    return rows[rows.groupby("batch")["seed"].transform("nunique") == rows["seed"].nunique()]


def pareto_front(table: pd.DataFrame, minimise: Sequence[str]) -> pd.Series:
    """The Pareto front of a table: rows to which none other is as good in every quantity and better in one.

    Args:
        table: One row a choice.
        minimise: Columns of which less is better; a row with NaN, or with infinity, in one of them is on no front.

    Returns:
        One bool a row, with the index of the table.

    Raises:
        InvalidInput: Without quantities, or without one of these columns.

    Example:
        >>> choices = pd.DataFrame({"seconds": [1.0, 2.0, 3.0], "error": [0.3, 0.3, 0.1]})
        >>> pareto_front(choices, ["seconds", "error"]).tolist()
        [True, False, True]
    """
    missing = [name for name in minimise if name not in table]
    if missing or not minimise:
        raise InvalidInput(f"A Pareto front needs columns of the table. Received: {missing or 'none'}")
    values = table[list(minimise)].to_numpy(np.float64)
    as_good = (values[:, None] <= values[None]).all(axis=2)
    better = (values[:, None] < values[None]).any(axis=2)
    beaten = (as_good & better).any(axis=0)
    return pd.Series(np.isfinite(values).all(axis=1) & ~beaten, index=table.index)
