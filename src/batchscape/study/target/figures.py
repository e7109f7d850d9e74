"""Figure of the time to a target: epochs, seconds and errors against batch size, and what speed costs in memory."""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from batchscape.plot import style
from batchscape.stats.time_to_target import median_to_target
from batchscape.study.published import LENET as PUBLISHED_LENET
from batchscape.study.rates.figures import POLICIES
from batchscape.study.target.arrivals import choices


def target(arrivals: pd.DataFrame) -> Figure:
    """Four panels: epochs and seconds to the target, smallest validation error, and the front of memory and time.

    Args:
        arrivals: The table of `run_target_study`.
    """
    figure, axes = plt.subplots(2, 2, figsize=(style.PAGE, 5.2))
    is_lenet = arrivals["model"].iloc[0] == "lenet"
    against_batch_size(axes[0, 0], arrivals, "epoch", published="epoch_to_target" if is_lenet else None)
    axes[0, 0].set_ylabel("epochs to the target")
    against_batch_size(axes[0, 1], arrivals, "seconds")
    axes[0, 1].set_ylabel("seconds to the target")
    errors(axes[1, 0], arrivals, published=is_lenet)
    front(axes[1, 1], arrivals)
    style.letter_panels(axes.ravel())
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def against_batch_size(ax: Axes, arrivals: pd.DataFrame, cost: str, *, published: str | None = None) -> Axes:
    """Kaplan–Meier medians of what the target cost, one curve a policy; open: one seed; bars: sign test; crosses: never."""
    medians = {policy: median_to_target(rows, cost, by=["batch"]) for policy, rows in _by_policy(arrivals)}
    known = PUBLISHED_LENET[["batch", published]].dropna() if published else pd.DataFrame({"batch": [], published: []})
    finite = [found["median"][np.isfinite(found["median"])] for found in medians.values()]
    never = 2 * max(np.concatenate([*finite, known[published]]), default=1.0)
    for shift, (policy, found) in zip((0.94, 1.0, 1.06), medians.items(), strict=True):
        look = POLICIES[policy]
        there = found[np.isfinite(found["median"])]
        ax.plot(there["batch"] * shift, there["median"], **{**look, "marker": ""})
        for rows, face in ((there[there["runs"] > 1], look["color"]), (there[there["runs"] == 1], "white")):
            ax.plot(
                rows["batch"] * shift, rows["median"], look["marker"], color=look["color"], mfc=face, markersize=3.5
            )
        several = there[there["low"].notna()]
        bounds = [several["median"] - several["low"], np.minimum(several["high"], never) - several["median"]]
        ax.errorbar(several["batch"] * shift, several["median"], bounds, fmt="none", color=look["color"], linewidth=0.8)
        missed = found[~np.isfinite(found["median"])]
        ax.plot(missed["batch"] * shift, np.full(len(missed), never), "x", color=look["color"], markersize=4)
    if published:
        ax.plot(known["batch"], known[published], ".", color="black", markersize=4, label="published (N = 50,000)")
    style.log_axis(ax.yaxis)
    style.batch_axis(ax, sorted(arrivals["batch"].unique()))
    ax.annotate("not reached", (1, 1.15 * never), xycoords=("axes fraction", "data"), ha="right", fontsize=6)
    ax.set_ylim(top=2 * never)
    return ax


def errors(ax: Axes, arrivals: pd.DataFrame, *, published: bool) -> Axes:
    """Smallest validation error along the run, one curve a policy: means with 95 % bands where there are several seeds."""
    for policy, rows in _by_policy(arrivals):
        look = POLICIES[policy]
        seeds = rows.groupby("batch")["seed"].transform("nunique")
        several, one = rows[seeds > 1], rows[seeds == 1]
        if len(several):
            style.curve_with_band(ax, several, "best_val_error", log=True, markersize=3.5, **look)
        ax.plot(one["batch"], one["best_val_error"], look["marker"], markersize=3, mfc="none", color=look["color"])
    if published:
        ax.plot(PUBLISHED_LENET["batch"], PUBLISHED_LENET["best_val_error"], ".", color="black", markersize=4)
    style.log_axis(ax.yaxis)
    style.batch_axis(ax, sorted(arrivals["batch"].unique()))
    ax.set_ylabel("smallest validation error")
    return ax


def front(ax: Axes, arrivals: pd.DataFrame) -> Axes:
    """Memory against seconds to the target (medians), a point a batch size and policy; filled: on the Pareto front."""
    found = choices(arrivals).dropna(subset=["memory"])
    if found.empty:
        ax.annotate("memory was not measured", (0.5, 0.5), xycoords="axes fraction", ha="center", fontsize=6)
        return ax
    for policy, rows in found.groupby("policy"):
        look = POLICIES[policy]
        for on_front, points in rows.groupby("on_front"):
            face = look["color"] if on_front else "none"
            ax.plot(
                points["seconds"], points["memory"] / 1e6, look["marker"], color=look["color"], mfc=face, markersize=4
            )
    for point in found[found["on_front"]].itertuples():
        label = f"{point.batch}"
        ax.annotate(label, (point.seconds, point.memory / 1e6), (3, 3), textcoords="offset points", fontsize=6)
    style.log_axis(ax.xaxis)
    style.log_axis(ax.yaxis)
    ax.set_xlabel("seconds to the target")
    ax.set_ylabel("peak memory [MB]")
    return ax


def _by_policy(arrivals: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    present = [policy for policy in POLICIES if policy in set(arrivals["policy"])]
    return [(policy, arrivals[arrivals["policy"] == policy]) for policy in present]
